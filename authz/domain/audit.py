"""The change log as an audit trail: queries and their results."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from authz.domain.entities import Entity, EntityKind, Share
from authz.domain.ids import ResourceRef, Scope, Subject
from authz.domain.instants import Instant
from authz.domain.kinds.fields import MaxLength
from authz.domain.mentions import subjects_in
from authz.domain.mutations import Mutation, Operation
from authz.domain.tokens import ConsistencyToken

_FOR = " for "
"""Between the caller and the person in an actor. No id has a space."""


MAX_PRINCIPAL_LENGTH = 256
Principal: TypeAlias = Annotated[str, MaxLength(MAX_PRINCIPAL_LENGTH)]
"""A caller, or the person on whose behalf it called, as logs name them."""


class LoggedChange(msgspec.Struct, frozen=True, kw_only=True):
    """The change of one record in the change log."""

    revision: int
    committed_at: Instant
    actor: str
    reason: str
    request_id: str
    mutation: Mutation

    @property
    def before(self) -> Entity | None:
        """The record before; None if there was none, or an older release did not log it."""
        if self.mutation.operation is Operation.DELETE:
            return self._target
        return self.mutation.before

    @property
    def after(self) -> Entity | None:
        """The record after; None if the change deleted it."""
        return None if self.mutation.operation is Operation.DELETE else self._target

    @property
    def _target(self) -> Entity:
        target = self.mutation.target
        assert isinstance(target, Entity)  # noqa: S101  the log holds whole entities
        return target


class ChangeQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which changes to list; an empty field filters nothing. From `since` on, before `until`."""

    kinds: tuple[EntityKind, ...] = ()
    subject: Subject | None = None
    resource: ResourceRef | None = None
    scope: Scope | None = None
    principal: Principal = ""
    since: Instant | None = None
    until: Instant | None = None
    oldest_first: bool = False

    def names(self, change: LoggedChange) -> bool:
        """Whether the principal, the subject and the resource match, byte by byte."""
        if self.principal not in ("", change.actor, *change.actor.split(_FOR)):
            return False
        records = [each for each in (change.before, change.after) if each is not None]
        return (self.subject is None or any(self.subject in subjects_in(each) for each in records)) and (
            self.resource is None or any(self.resource == _resource_of(each) for each in records)
        )


def _resource_of(record: Entity) -> object:
    """The resource that a record is, or that it shares."""
    return record.resource if isinstance(record, Share) else record.key


class ChangePage(msgspec.Struct, frozen=True):
    """A page of changes, and the state that was read. `next_token` is empty exactly on the last page."""

    changes: tuple[LoggedChange, ...]
    next_token: str
    read_at: ConsistencyToken
