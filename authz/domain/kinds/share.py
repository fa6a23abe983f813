"""A share: its key, levels, filter and rules."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from authz.domain.ids import ResourceRef, Subject
from authz.domain.kinds.kind import Filter, Kind, RecordKey
from authz.domain.kinds.resource import IN_RESOURCE, require_content
from authz.domain.vocabulary import Vocabulary


class ShareLevel(StrEnum):
    """What a share opens. An editor is also a viewer."""

    VIEWER = "VIEWER"
    EDITOR = "EDITOR"


class ShareKey(RecordKey, frozen=True, gc=False, tag="share_key"):
    """Identifies a share."""

    resource: ResourceRef
    subject: Subject

    def __str__(self) -> str:
        return f"share of {self.resource} with {self.subject}"


class Share(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="share"):
    """A resource opened to one subject. It never reaches past membership.

    The subject must have a membership in the course or session of the resource, and the share ends with it.
    With `awaits_membership` it needs none: it waits for one, and stays when one ends.
    """

    resource: ResourceRef
    subject: Subject
    level: ShareLevel
    awaits_membership: bool = False

    @property
    def key(self) -> ShareKey:
        """Its identity."""
        return ShareKey(self.resource, self.subject)


class ShareFilter(Filter[Share], frozen=True, kw_only=True):
    """Shares by resource, by subject, or by whether they await a membership."""

    resource: ResourceRef | None = None
    subject: Subject | None = None
    awaits_membership: bool | None = None


def _validate(share: Share, vocabulary: Vocabulary) -> None:
    require_content(
        share.resource.type, vocabulary, of_record="a {} is not shared; add a membership in the {} instead"
    )


SHARE = Kind(
    Share,
    ShareKey,
    ShareFilter,
    key_order=("resource", "subject"),
    container=IN_RESOURCE,
    lookups=("subject",),
    rule=_validate,
)
