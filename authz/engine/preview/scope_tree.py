"""A course with its sessions, as a preview reads it: who holds what, and which facts the resources have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import msgspec

from authz.domain.context import ResourceContext, ScopeContext, facts_at
from authz.domain.decisions import CREATE_ACTION, STRUCTURAL_TYPES
from authz.domain.effective_roles import EffectiveRoles, Memberships
from authz.domain.facts import ALL_FACTS, ATTENDING, OWN, TIMED, share_facts
from authz.domain.ids import ResourceRef, Scope, ScopeKind, Subject
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.domain.vocabulary import API_TYPE
from authz.engine.preview.cells import DifferingCell
from authz.policy.situations import situations_of


class MemberGroup:
    """All who hold the same memberships in a course, and whose accounts are not suspended: their roles under
    either policy, and the cells that may change for them."""

    def __init__(
        self,
        memberships: Memberships,
        before: EffectiveRoles,
        after: EffectiveRoles,
        cells: tuple[DifferingCell, ...],
    ) -> None:
        self.memberships = memberships
        self.before, self.after = before, after
        self.cells = cells
        self._attending: dict[int, tuple[int, int]] = {}

    @cached_property
    def cells_of_subject(self) -> Mapping[str, list[DifferingCell]]:
        """By type, those for which it matters whose a resource is, or with whom it is shared."""
        found: dict[str, list[DifferingCell]] = {}
        for cell in self.cells:
            if cell.depends_on_subject and _is_about_resources(cell):
                found.setdefault(cell.type_name, []).append(cell)
        return found

    def attending(self, index: int, context: ScopeContext) -> tuple[int, int]:
        """The fact `attending` under either policy, as a mask, in the context at an index."""
        found = self._attending.get(index)
        if found is None:
            before, after = (
                ATTENDING if context.is_attended(in_course=held.in_course, in_session=held.in_session) else 0
                for held in (self.before, self.after)
            )
            found = self._attending[index] = (before, after)
        return found


class Relation(msgspec.Struct, frozen=True, eq=False):
    """How a subject has to do with resources of one type and context with the same facts: as their owner, or
    by a share. `extra` are the facts of that."""

    type_name: str
    index: int
    facts: int
    extra: int


class ScopeTree:
    """A course and its sessions, a session without a course, or the platform.

    `contexts` begins with the scope itself; an index says which of them a resource is in. Generators that
    return nothing yield None for each record that they read.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        contexts: list[ScopeContext],
        make: Callable[[ScopeContext, Memberships], MemberGroup],
        facts_named: Callable[[str, str | None], int],
        now: Instant,
    ) -> None:
        """`make` makes the group of given memberships; it is called once for each. `facts_named` tells which
        facts decide about a type in a course."""
        self.contexts = contexts
        self.scopes = [context.scopes[-1] for context in contexts]
        self._snapshot = snapshot
        self._make = make
        self._facts_named = facts_named
        self._now = now
        self._groups: dict[Memberships, MemberGroup] = {}
        self._by_facts: dict[str, list[dict[int, list[ResourceRef]]]] = {}
        self._personal: dict[str, dict[Subject, list[tuple[Relation, ResourceRef]]]] = {}
        self._relations: dict[tuple[str, int, int, int], Relation] = {}

    @property
    def scope(self) -> Scope:
        """The scope itself."""
        return self.scopes[0]

    def group(self, memberships: Memberships) -> MemberGroup:
        """The group of members who hold exactly these memberships."""
        found = self._groups.get(memberships)
        if found is None:
            found = self._groups[memberships] = self._make(self.contexts[0], memberships)
        return found

    def session_members(self) -> Iterator[tuple[int, Subject, Memberships]]:
        """The members of the sessions of a course, each with the index of the session."""
        for index, context in enumerate(self.contexts[1:], 1):
            for subject, memberships in self._snapshot.scan_memberships(context):
                yield index, subject, memberships

    def read_resources(self, type_name: str) -> Iterator[None]:
        """Read all resources of a type, once."""
        if type_name in self._by_facts:
            return
        personal: dict[Subject, list[tuple[Relation, ResourceRef]]] = defaultdict(list)
        found: list[dict[int, list[ResourceRef]]] = []
        self._by_facts[type_name], self._personal[type_name] = found, personal
        named = self._facts_named(type_name, self.contexts[0].course_id)
        for index, context in enumerate(self.contexts):
            by_facts: dict[int, list[ResourceRef]] = defaultdict(list)
            found.append(by_facts)
            for ref, owner, resource in self._snapshot.scan_owned(context, type_name):
                yield None
                facts = self._facts(resource, named)
                by_facts[facts].append(ref)
                extras = {} if owner is None else {owner: OWN}
                for subject, level in self._snapshot.scan_shares(ref) if resource.is_shared else ():
                    yield None
                    extras[subject] = extras.get(subject, 0) | share_facts(level)
                for subject, extra in extras.items():
                    personal[subject].append((self._relation(type_name, index, facts, extra), ref))

    def _relation(self, type_name: str, index: int, facts: int, extra: int) -> Relation:
        key = (type_name, index, facts, extra)
        found = self._relations.get(key)
        if found is None:
            found = self._relations[key] = Relation(*key)
        return found

    def personal(self, type_name: str, subject: Subject) -> list[tuple[Relation, ResourceRef]]:
        """What of the resources of a type that were read is the subject's own, or shared with it."""
        return self._personal[type_name].get(subject, [])

    def resources(self, cell: DifferingCell, index: int) -> list[tuple[int, list[ResourceRef]]]:
        """What a cell is about in one of the contexts: resources with the same facts together.

        Those of content must have been read. A resource to `create` has no id.
        """
        context = self.contexts[index]
        if not _is_asked_in(cell, context):
            return []
        if _is_about_resources(cell):
            return list(self._by_facts[cell.type_name][index].items())
        is_new = cell.action == CREATE_ACTION
        id_ = "" if is_new else API_TYPE if cell.type_name == API_TYPE else self.scopes[index].id
        ref = ResourceRef(cell.type_name, id_)
        return [(self._facts(ResourceContext(context, context.state.facts), ALL_FACTS), [ref])]

    def _facts(self, resource: ResourceContext, named: int) -> int:
        """Of the facts named, those that do not depend on the subject."""
        if not named & TIMED:
            return resource.facts & named
        return facts_at(self._now, resource, named)[0] & named


def types_read(group: MemberGroup) -> list[str]:
    """The types whose resources must be read for what changes."""
    return list(dict.fromkeys(cell.type_name for cell in group.cells if _is_about_resources(cell)))


def _is_about_resources(cell: DifferingCell) -> bool:
    """Whether it is about registered content, and not about a scope or what is to be created."""
    return cell.type_name not in STRUCTURAL_TYPES and cell.action != CREATE_ACTION


def _is_asked_in(cell: DifferingCell, context: ScopeContext) -> bool:
    """Whether Check can be asked about it where the resource is in this context."""
    kinds = {scope.kind for scope in context.scopes} - {ScopeKind.PLATFORM}
    return any(kinds == situation.kinds for situation in situations_of(cell.type_name, cell.action))
