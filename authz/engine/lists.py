"""Lists what a subject may act upon, and who may act upon a resource: every item decided as Check decides it.

A list goes through candidates in the order of their keys: what is in the scopes where the subject has a
membership, or the members of the resource's scopes. It leaves out a scope, or all that is not the subject's
own, where no combination of facts can make the rules allow. So it costs what its answer and the memberships
cost, not what the database does.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Generic, TypeAlias, TypeVar

import msgspec

from authz.domain.context import ResourceContext, ScopeContext
from authz.domain.decisions import (
    COURSE_TYPE,
    CREATE_ACTION,
    STRUCTURAL_TYPES,
    Question,
    Reason,
    Rule,
    Verdict,
)
from authz.domain.effective_roles import Memberships, Suspension
from authz.domain.errors import ErrorReason, InvalidArgumentError, malformed
from authz.domain.facts import ATTENDING, FOR_AI_RESPONSE, OWN, SHARED, TIMED
from authz.domain.ids import ResourceRef, Scope, ScopeKind, Subject, SubjectType
from authz.domain.instants import Instant
from authz.domain.lists import ListedResource, ListedSubject, Position, ResourceQuery
from authz.domain.ports import Snapshot
from authz.domain.vocabulary import API_TYPE, Vocabulary, suggest
from authz.engine.check import Access, Checker
from authz.engine.reach import ReachableScopes, Validity
from authz.policy.rules import ANY

ItemT = TypeVar("ItemT")

_By: TypeAlias = tuple[str, Scope, str, Rule]
"""The fields of a `ListedSubject` without the subject."""
_OWN = OWN | SHARED
_NOBODY = Subject(SubjectType.SERVICE, "")
MAX_CANDIDATES = 10_000
"""Candidates of a page. The page ends there, with a position to continue from."""


def types_to_list(vocabulary: Vocabulary, action: str, types: tuple[str, ...]) -> tuple[str, ...]:
    """The types, or all that know the action. Raises `InvalidArgumentError` unless they know it."""
    if action == CREATE_ACTION:
        raise malformed(
            "action",
            "is `create`, which is about no resource; ask ListActions or `authz actions` where to create",
        )
    for name in types:
        if name == API_TYPE:
            raise malformed(
                "types",
                f"has `{API_TYPE}`, of which there is one; ask ListActions or `authz actions` about it",
            )
        vocabulary.require_action(name, action, refused=(API_TYPE, CREATE_ACTION))
    declared = vocabulary.resource_types
    known = types or tuple(name for name, each in declared.items() if action in each.actions)
    if not known:
        every = {action for each in declared.values() for action in each.actions} - {CREATE_ACTION}
        raise InvalidArgumentError(
            ErrorReason.UNKNOWN_ACTION, f"unknown action `{action}`; {suggest(action, every)}", action=action
        )
    return known


def why_unlisted(checker: Checker, snapshot: Snapshot, query: ResourceQuery) -> Reason | None:
    """Why nothing is listed, if that follows from the query alone."""
    if not checker.permits(query.purpose):
        return Reason.PURPOSE_NOT_PERMITTED
    if query.within is not None and snapshot.scope(query.within) is None:
        return Reason.RESOURCE_UNKNOWN
    return None


class ListPage(Generic[ItemT]):
    """One page of a list, made as it is iterated: an item, or None for a candidate that is not in the list.

    Once iterated, `position` is where the next page continues, None after the last one, and `valid_until` the
    earliest instant at which time alone may change this page. `unlisted` says why the list is empty, if that
    follows from what is asked.
    """

    unlisted: Reason | None = None

    def __init__(self, checker: Checker, snapshot: Snapshot, now: Instant, size: int) -> None:
        self.position: Position | None = None
        self._validity = Validity()
        self._checker, self._snapshot, self._now = checker, snapshot, now
        self._left, self._candidates_left = size, MAX_CANDIDATES

    @property
    def valid_until(self) -> Instant | None:
        """The earliest time at which passing time alone may change the page; None if it cannot."""
        return self._validity.until

    def __iter__(self) -> Iterator[ItemT | None]:
        """Do the work of the page, a candidate a step."""
        raise NotImplementedError

    def _ends(self, *, found: bool) -> bool:
        """Count a candidate; return whether the page ends with it."""
        self._left -= found
        self._candidates_left -= 1
        return not (self._left and self._candidates_left)


class ResourcePage(ListPage[ListedResource]):
    """A page of resources, in the order of their course, session, type and id, as the snapshot orders ids.

    The course and the session of a resource never change, and so its place in this order: what the subject
    may act upon the whole time, while other things change between pages, is on exactly one page.
    """

    def __init__(  # noqa: PLR0917  what decides, then what is asked for
        self,
        checker: Checker,
        snapshot: Snapshot,
        now: Instant,
        query: ResourceQuery,
        size: int,
        after: Position = (),
    ) -> None:
        super().__init__(checker, snapshot, now, size)
        self._query = query
        self._reach = ReachableScopes(checker, snapshot, now, query, self._validity)
        self._types = sorted(set(query.types))
        self._start = after or ("", "", "", "")
        self.unlisted = why_unlisted(checker, snapshot, query)

    def __iter__(self) -> Iterator[ListedResource | None]:
        course_id, session_id, first_type, last_id = self._start
        start = (course_id, session_id)
        for context in () if self.unlisted else self._reach.contexts(start):
            if context is None:
                yield None
                continue
            place = (context.course_id or "", context.session_id or "")
            resumes = place == start
            for type_name in self._types:
                if resumes and type_name < first_type:
                    continue
                after = last_id if resumes and type_name == first_type else ""
                ended_at = yield from self._listed(context, type_name, after)
                if ended_at is not None:
                    self.position = (*place, type_name, ended_at)
                    return

    def _listed(
        self, context: ScopeContext, type_name: str, after: str
    ) -> Generator[ListedResource | None, None, str | None]:
        """What is listed of each candidate of a type in a context. Returns the last id, if the page ends."""
        access = self._reach.access(context, type_name)
        rules, (certain, possible) = access.rules, self._reach.facts_in(context, access, type_name)
        if access.refusal is not None or not rules.may_allow(certain, possible):
            yield None
            return after if self._ends(found=False) else None
        only_own = not rules.may_allow(certain, possible & ~_OWN)
        is_timed = rules.required_facts & TIMED != 0
        course_id, session_id = context.course_id, context.session_id
        of_type = self._query.question(ResourceRef(type_name, ""))  # without a share, the id does not matter
        known: dict[int, bool] = {}
        for id_, resource in (
            _scope_itself(context, type_name, after)
            if type_name in STRUCTURAL_TYPES
            else self._snapshot.scan_content(
                context, type_name, self._query.subject, after=after, only_own=only_own
            )
        ):
            allowed = known.get(resource.facts)
            if allowed is None or resource.is_shared:
                shared = self._query.question(ResourceRef(type_name, id_)) if resource.is_shared else None
                allowed = self._allows(shared or of_type, resource, access)
                if not (is_timed or resource.is_shared):  # then its facts alone decide
                    known[resource.facts] = allowed
            yield ListedResource(type_name, id_, course_id, session_id) if allowed else None
            if self._ends(found=allowed):
                return id_
        return None

    def _allows(self, question: Question, resource: ResourceContext, access: Access) -> bool:
        found, changes_at = self._checker.verdict(self._snapshot, question, resource, access, self._now)
        self._validity.note(changes_at)
        return found.allowed


class SubjectPage(ListPage[ListedSubject]):
    """A page of the subjects that may do what a question asks, in the order of the snapshot. The subject of
    the question does not matter."""

    def __init__(  # noqa: PLR0917  what decides, then what is asked for
        self,
        checker: Checker,
        snapshot: Snapshot,
        now: Instant,
        question: Question,
        size: int,
        after: Subject | None = None,
    ) -> None:
        super().__init__(checker, snapshot, now, size)
        checker.require_valid(question)
        self._after = after
        self._question = question
        found = checker.locate(snapshot, msgspec.structs.replace(question, subject=_NOBODY))
        self.unlisted = found if isinstance(found, Reason) else None
        if not checker.permits(question.purpose):
            self.unlisted = Reason.PURPOSE_NOT_PERMITTED
        self._resource = found
        scope = None if isinstance(found, Reason) else found.scope
        self._scopes = {} if scope is None else {kind: scope.scope_of_kind(kind) for kind in ScopeKind}
        self._owner, self._owned = self._owner_of(question)
        self._known: dict[Memberships, tuple[_By | None]] = {}

    def _owner_of(self, question: Question) -> tuple[Subject | None, ResourceContext | Reason]:
        """The owner of what the question names, and that as the owner finds it."""
        owner = self._snapshot.owner(question.resource)
        if owner is None and question.inline is not None:
            owner = question.inline.owner
        if owner is None or question.action == CREATE_ACTION:
            return None, self._resource
        asked = msgspec.structs.replace(question, subject=owner)
        return owner, self._checker.locate(self._snapshot, asked)

    def __iter__(self) -> Iterator[ListedSubject | None]:
        if self.unlisted is not None:
            return
        for subject in self._candidates():
            found = self._listed(subject)
            yield found
            if self._ends(found=found is not None):
                self.position = (subject.type.value, subject.id)
                return

    def _candidates(self) -> Iterator[Subject]:
        """Who may be allowed: members, or only who owns the resource or has a share of it."""
        resource, question = self._resource, self._question
        assert isinstance(resource, ResourceContext)  # noqa: S101  nothing is unlisted; narrows the type
        certain, possible = self._facts_of(resource)
        policy = self._checker.policy_in(self._snapshot, resource.scope)
        rules = [
            policy.rules_for(
                frozenset((role,)), resource.scope.course_id, question.resource.type, question.action
            )
            for role in policy.vocabulary.roles
        ]
        # A subject that is allowed with several roles is allowed with one of them: see `policy.obligations`.
        if not any(each.may_allow(certain, possible) for each in rules):
            return iter(())
        if question.inline is None and not any(each.may_allow(certain, possible & ~_OWN) for each in rules):
            return self._snapshot.scan_holders(question.resource, after=self._after)
        structural = question.resource.type in STRUCTURAL_TYPES
        return self._snapshot.scan_members(resource.scope, platform=structural, after=self._after)

    def _facts_of(self, resource: ResourceContext) -> tuple[int, int]:
        """The facts that hold for every subject at any time, and those that may hold for some subject."""
        certain, possible = resource.facts & ~TIMED, resource.facts | _OWN | ATTENDING
        return (
            (certain | FOR_AI_RESPONSE, possible | FOR_AI_RESPONSE)
            if self._question.purpose
            else (certain, possible)
        )

    def _listed(self, subject: Subject) -> ListedSubject | None:
        is_owner = subject == self._owner
        resource = self._owned if is_owner else self._resource
        assert isinstance(resource, ResourceContext)  # noqa: S101  nothing is unlisted; narrows the type
        memberships = self._snapshot.memberships(subject, resource.scope)
        suspension = self._snapshot.suspension(subject)
        if is_owner or resource.is_shared or suspension is not None:
            by = self._granted(subject, resource, memberships, suspension)
        else:
            # To all who neither own it nor have a share, the same memberships give the same.
            known = self._known.get(memberships)
            if known is None:
                known = self._known[memberships] = (self._granted(subject, resource, memberships, None),)
            (by,) = known
        return None if by is None else ListedSubject(subject, *by)

    def _granted(
        self,
        subject: Subject,
        resource: ResourceContext,
        memberships: Memberships,
        suspension: Suspension | None,
    ) -> _By | None:
        """By what a subject with these memberships is allowed; None if it is not."""
        checker, snapshot, scope, now = self._checker, self._snapshot, resource.scope, self._now
        question = msgspec.structs.replace(self._question, subject=subject)
        access = checker.access_by(memberships, suspension, snapshot, question, scope, now)
        if access.refusal is not None:
            self._validity.note(access.next_change_at)
            return None
        found, changes_at = checker.verdict(snapshot, question, resource, access, now)
        self._validity.note(changes_at)
        return self._by(scope, access, found) if found.allowed else None

    def _by(self, scope: ScopeContext, access: Access, verdict: Verdict) -> _By:
        """The membership to which the rule applies."""
        rule, policy, scopes = verdict.rule, self._checker.policy, self._scopes
        assert rule is not None  # noqa: S101  every allow has one; narrows the type
        memberships = access.memberships
        if len(memberships) == 1:
            (role,) = access.held.roles
            return role, scopes[memberships[0].kind], memberships[0].role, rule
        for membership, roles in self._checker.given_by(access, scope, self._now):
            for role in roles:
                if rule.role == ANY or rule.role in policy.inherited[role]:
                    return role, scopes[membership.kind], membership.role, rule
        raise AssertionError("a rule allows by a role that no membership gives")


def _scope_itself(context: ScopeContext, type_name: str, after: str) -> Iterator[tuple[str, ResourceContext]]:
    """The course or the session of a context, as a resource."""
    id_ = context.session_id
    if type_name == COURSE_TYPE:
        id_ = context.course_id if context.session_id is None else None
    if id_ is not None and id_ != after:
        yield id_, ResourceContext(context, context.state.facts)
