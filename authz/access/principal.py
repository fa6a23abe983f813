"""Who makes a call."""

from __future__ import annotations

import msgspec

from authz.domain.ids import Subject


class Principal(msgspec.Struct, frozen=True, gc=False):
    """The caller, None without a credential, and the person on whose behalf it calls, if it names one.

    The id of a caller comes from its credential, and may be malformed.
    """

    caller: Subject | None = None
    on_behalf_of: Subject | None = None

    @property
    def kind(self) -> str:
        """The kind of caller, for metrics: `unauthenticated`, `service` or `for_person`."""
        if self.on_behalf_of is not None:
            return "for_person"
        return "unauthenticated" if self.caller is None else "service"

    @property
    def actor(self) -> str:
        """The caller and the person, as logs and the change log name them."""
        caller = "unauthenticated" if self.caller is None else str(self.caller)
        return caller if self.on_behalf_of is None else f"{caller} for {self.on_behalf_of}"


UNAUTHENTICATED = Principal()
