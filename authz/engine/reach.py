"""The courses and sessions that a subject reaches, and the rules there, for lists and plans."""

from __future__ import annotations

from collections.abc import Iterator

from authz.domain.context import ScopeContext
from authz.domain.decisions import STRUCTURAL_TYPES
from authz.domain.facts import ALL_FACTS, ATTENDING, FOR_AI_RESPONSE
from authz.domain.ids import PLATFORM, ResourceRef, ScopeKind, Subject
from authz.domain.instants import Instant
from authz.domain.lists import ResourceQuery
from authz.domain.ports import Snapshot
from authz.engine.check import Access, Checker


class Validity:
    """The earliest instant at which time alone may change any of some decisions."""

    def __init__(self) -> None:
        self.until: Instant | None = None

    def note(self, changes_at: Instant | None) -> None:
        """Take a decision into account."""
        if changes_at is not None and (self.until is None or changes_at < self.until):
            self.until = changes_at


class ReachableScopes:
    """The courses and sessions in which a subject may find something. Notes how long that is valid."""

    def __init__(
        self, checker: Checker, snapshot: Snapshot, now: Instant, query: ResourceQuery, validity: Validity
    ) -> None:
        self._checker, self._snapshot, self._now = checker, snapshot, now
        self._query, self._validity = query, validity

    def contexts(self, start: tuple[str, str] = ("", "")) -> Iterator[ScopeContext | None]:
        """Those in which the subject may find something, in the order of `Snapshot.scan_contexts`."""
        snapshot, within = self._snapshot, self._query.within
        if within is None:
            yield from snapshot.scan_contexts(self.scanned_subject(), start=start)
        elif within.kind is ScopeKind.SESSION:
            yield snapshot.scope(within)
        else:
            for context in snapshot.scan_contexts(
                self.scanned_subject(), start=start if start[0] else (within.id, "")
            ):
                if context is not None and context.course_id != within.id:
                    return
                yield context

    def scanned_subject(self) -> Subject | None:
        """The subject whose scopes to scan; None for all scopes, if a platform role may open any of them."""
        subject, platform = self._query.subject, self._snapshot.scope(PLATFORM)
        for type_name in STRUCTURAL_TYPES:
            if platform is not None and type_name in self._query.types:
                access = self.access(platform, type_name)
                if self.has_overrides() or access.rules.may_allow(0, ALL_FACTS):
                    return subject if access.refusal else None
        return subject

    def has_overrides(self) -> bool:
        """Whether any course has rules of its own."""
        return bool(self._checker.policy.overrides) or self._snapshot.has_course_policies()

    def access(self, context: ScopeContext, type_name: str) -> Access:
        """What decides on everything of a type in a context."""
        question = self._query.question(ResourceRef(type_name, ""))
        access = self._checker.access(self._snapshot, question, context, self._now)
        self._validity.note(access.next_change_at)
        return access

    def facts_in(self, context: ScopeContext, access: Access, type_name: str) -> tuple[int, int]:
        """The facts that hold for everything of a type in a context, and those that may hold for a part."""
        held, certain = access.held, context.state.facts
        if context.is_attended(in_course=held.in_course, in_session=held.in_session):
            certain |= ATTENDING
        if self._query.purpose:
            certain |= FOR_AI_RESPONSE
        if type_name in STRUCTURAL_TYPES:
            return certain, certain
        return certain, context.state.possible & ~(ATTENDING | FOR_AI_RESPONSE) | certain
