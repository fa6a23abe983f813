"""Looks for anybody of one course who may do anything in another, through every call that tells of access."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from authz.client import Client, ItemFault
from authz.domain.decisions import AI_PROCESS, COURSE_TYPE, CREATE_ACTION, JOIN, SESSION_TYPE
from authz.domain.facts import PURPOSE_AI_RESPONSE, PURPOSES
from authz.domain.ids import PLATFORM, ResourceRef, Scope, ScopeKind, Subject, course_scope, session_scope
from authz.domain.lists import PlanKind
from authz.domain.vocabulary import API_TYPE, Vocabulary

_TYPES = {ScopeKind.COURSE: COURSE_TYPE, ScopeKind.SESSION: SESSION_TYPE}


class Leak(msgspec.Struct, frozen=True):
    """`subject`, who is in the course `inside` alone, may perform `action` on `resource` of the course
    `outside`, as the call `told_by` says."""

    subject: str
    inside: str
    action: str
    resource: str
    outside: str
    told_by: str
    purpose: str = ""

    def __str__(self) -> str:
        purpose = f" for {self.purpose}" if self.purpose else ""
        return (
            f"{self.subject}, who is in {self.inside} alone, may {self.action} {self.resource}"
            f" of {self.outside}{purpose} (told by {self.told_by})"
        )


class LeakSearch:
    """What those who are in the course `inside`, and neither in `outside` nor on the platform, may do in
    `outside`. People of both courses are left out: what they may do in one is theirs to do. Who only owns
    something in a course is not in it."""

    def __init__(self, client: Client, vocabulary: Vocabulary, *, inside: str, outside: str) -> None:
        self._client = client
        self._vocabulary = vocabulary
        self._inside, self._outside = inside, outside
        self._types = [each for each in vocabulary.types.values() if each.name != API_TYPE]
        here, there = self._scopes(inside), self._scopes(outside)
        self.strangers = (self._members(here) | self._owners(here)) - self._members((*there, PLATFORM))
        self._targets = [
            *(ResourceRef(_TYPES[each.kind], each.id) for each in there),
            *(found.entity.key for scope in there for found in client.read_resources(scope=scope)),
        ]

    def leaks(self) -> Iterator[Leak]:
        """Every leak, once for each call that tells of it."""
        for stranger in sorted(self.strangers, key=str):
            for purpose in PURPOSES:
                yield from self._told_by_actions(stranger, purpose)
                yield from self._told_by_resources(stranger, purpose)
                yield from self._told_by_plans(stranger, purpose)
            yield from self._told_by_creating(stranger)
            yield from self._told_by_sessions(stranger)
            yield from self._told_by_sources(stranger)
        yield from self._told_by_subjects()

    def _told_by_actions(self, stranger: Subject, purpose: str) -> Iterator[Leak]:
        answers = self._client.batch_list_actions(stranger, self._targets, purpose=purpose)
        for target, actions in zip(self._targets, answers, strict=True):
            if isinstance(actions, ItemFault):
                raise RuntimeError(f"{target} cannot be asked about: {actions.message}")  # noqa: TRY004
            for action, answer in actions.actions.items():
                if answer:
                    yield self._leak(stranger, action, target, "ListActions", purpose)

    def _told_by_resources(self, stranger: Subject, purpose: str) -> Iterator[Leak]:
        for action in sorted({name for each in self._types for name in each.actions} - {CREATE_ACTION}):
            for scope in (None, course_scope(self._outside)):
                listed = self._client.list_resources(stranger, action, scope=scope, purpose=purpose)
                for found in listed:
                    if found.course_id == self._outside:
                        yield self._leak(stranger, action, found.resource, "ListResources", purpose)

    def _told_by_plans(self, stranger: Subject, purpose: str) -> Iterator[Leak]:
        there = {target for target in self._targets if target.type in _TYPES.values()}
        for each in self._types:
            for action in each.actions:
                if action == CREATE_ACTION:
                    continue
                plan = self._client.plan_resources(stranger, action, each.name, purpose=purpose)
                named = {
                    ResourceRef(type_name, id_)
                    for group in plan.groups
                    for type_name, ids in (
                        (COURSE_TYPE, group.course_ids),
                        (SESSION_TYPE, group.session_ids),
                    )
                    for id_ in ids
                }
                if plan.kind is PlanKind.ALWAYS or named & there:
                    yield self._leak(stranger, action, each.name, "PlanResources", purpose)

    def _told_by_creating(self, stranger: Subject) -> Iterator[Leak]:
        for each in self._types:
            if CREATE_ACTION in each.actions and self._client.check(
                stranger, CREATE_ACTION, each.name, course_id=self._outside
            ):
                yield self._leak(stranger, CREATE_ACTION, each.name, "Check", "")

    def _told_by_sessions(self, stranger: Subject) -> Iterator[Leak]:
        for target in self._that_know(JOIN):
            if target.type == SESSION_TYPE and self._client.authorize_session(stranger, target.id):
                yield self._leak(stranger, JOIN, target, "AuthorizeSession", "")

    def _told_by_sources(self, stranger: Subject) -> Iterator[Leak]:
        for found in self._client.authorize_sources(stranger, self._that_know(AI_PROCESS)):
            if found:
                yield self._leak(
                    stranger, AI_PROCESS, found.resource, "AuthorizeSources", PURPOSE_AI_RESPONSE
                )

    def _that_know(self, action: str) -> list[ResourceRef]:
        return [each for each in self._targets if action in self._vocabulary.types[each.type].actions]

    def _told_by_subjects(self) -> Iterator[Leak]:
        strangers = {str(stranger) for stranger in self.strangers}
        for target in self._targets:
            for action in self._vocabulary.types[target.type].actions:
                if action == CREATE_ACTION:
                    continue
                for purpose in PURPOSES:
                    for found in self._client.list_subjects(action, target, purpose=purpose):
                        if found.subject in strangers:
                            yield self._leak(found.subject, action, target, "ListSubjects", purpose)

    def _leak(self, subject: object, action: str, resource: object, told_by: str, purpose: str) -> Leak:
        return Leak(str(subject), self._inside, action, str(resource), self._outside, told_by, purpose)

    def _scopes(self, course: str) -> tuple[Scope, ...]:
        sessions = (session_scope(each.entity.id) for each in self._client.read_sessions(course_id=course))
        return (course_scope(course), *sessions)

    def _members(self, scopes: Sequence[Scope]) -> set[Subject]:
        return {each.entity.subject for s in scopes for each in self._client.read_memberships(scope=s)}

    def _owners(self, scopes: Sequence[Scope]) -> set[Subject]:
        owners = {each.entity.owner for s in scopes for each in self._client.read_resources(scope=s)}
        return {owner for owner in owners if owner is not None}
