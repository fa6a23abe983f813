"""A breach as a small directory: load it, ask the question, and the answer is the one that must not be."""

from __future__ import annotations

from typing import Any

import msgspec

from authz.domain.decisions import COURSE_TYPE, CREATE_ACTION, SESSION_TYPE, Question
from authz.domain.entities import (
    Course,
    CourseState,
    Entity,
    Membership,
    Resource,
    Session,
    SessionState,
    Share,
    ShareLevel,
)
from authz.domain.facts import FACTS_BY_NAME, PURPOSE_AI_RESPONSE
from authz.domain.ids import (
    PLATFORM,
    ResourceRef,
    Scope,
    ScopeKind,
    Subject,
    SubjectType,
    course_scope,
    session_scope,
)
from authz.domain.instants import Instant
from authz.domain.vocabulary import API_TYPE, RoleDeclaration, Vocabulary
from authz.policy.obligations import Obligation
from authz.policy.prove import Breach

SOMEBODY = Subject(SubjectType.USER, "somebody")
_OWNER = Subject(SubjectType.USER, "another")
_COURSE, _SESSION, _RESOURCE, _API = "a-course", "a-session", "a-resource", "authz"
NOW: Instant = 1_767_268_800_000_000  # 2026-01-01T12:00:00Z


class Counterexample(msgspec.Struct, frozen=True):
    """`question`, asked at `now` of a directory of the entities, is allowed, and the invariant says never.

    For an invariant about gaining a role, it is allowed and must stay so; with `gained`, one membership more,
    it is denied.
    """

    entities: tuple[Entity, ...]
    question: Question
    now: Instant
    gained: Membership | None = None


def counterexample(breach: Breach, vocabulary: Vocabulary) -> Counterexample:
    """A directory in which exactly the facts of the breach hold for a subject with exactly its roles."""
    obligation = breach.obligation
    directory = _Directory(obligation, breach.facts, vocabulary)
    entities = (*directory.scopes(), *directory.memberships(), *directory.content())
    gained = None if obligation.gained is None else directory.membership(vocabulary.roles[obligation.gained])
    return Counterexample(entities, directory.question(), NOW, gained)


class _Directory:
    def __init__(self, obligation: Obligation, facts: int, vocabulary: Vocabulary) -> None:
        self._type_name, self._action = obligation.type_name, obligation.action
        self._facts = {name for name, fact in FACTS_BY_NAME.items() if fact.bit & facts}
        self._roles = [vocabulary.roles[name] for name in obligation.roles]
        kinds = obligation.situation.kinds
        self._course_id = (obligation.course_id or _COURSE) if ScopeKind.COURSE in kinds else None
        self._session_id = _SESSION if ScopeKind.SESSION in kinds else None
        self._is_content = obligation.situation.is_content and self._action != CREATE_ACTION

    def scopes(self) -> list[Entity]:
        found: list[Entity] = []
        if self._course_id is not None:
            archived = "course_archived" in self._facts
            state = CourseState.ARCHIVED if archived else CourseState.ACTIVE
            found.append(Course(id=self._course_id, state=state, ai_enabled="ai_enabled" in self._facts))
        if self._session_id is not None:
            state_of = {"session_live": SessionState.LIVE, "session_ended": SessionState.ENDED}
            states = [state for fact, state in state_of.items() if fact in self._facts]
            in_session = any(role.scope_kind is ScopeKind.SESSION for role in self._roles)
            found.append(
                Session(
                    id=self._session_id,
                    course_id=self._course_id,
                    state=states[0] if states else SessionState.SCHEDULED,
                    open_to_course="attending" in self._facts and not in_session,
                )
            )
        return found

    def memberships(self) -> list[Membership]:
        return [self.membership(role) for role in self._roles]

    def membership(self, role: RoleDeclaration) -> Membership:
        return Membership(subject=SOMEBODY, scope=self._scope_of(role.scope_kind), role=role.name)

    def content(self) -> list[Entity]:
        if not self._is_content:
            return []
        of_resource = (FACTS_BY_NAME[name].of_resource for name in self._facts)
        values: dict[str, Any] = dict(each for each in of_resource if each is not None)
        resource = Resource(
            type=self._type_name,
            id=_RESOURCE,
            scope=self._innermost(),
            owner=SOMEBODY if "own" in self._facts else _OWNER,
            created_at=NOW if "within_edit_window" in self._facts else None,
            **values,
        )
        if "shared_view" not in self._facts:
            return [resource]
        level = ShareLevel.EDITOR if "shared_edit" in self._facts else ShareLevel.VIEWER
        return [resource, Share(resource=resource.key, subject=SOMEBODY, level=level)]

    def question(self) -> Question:
        purpose = PURPOSE_AI_RESPONSE if "for_ai_response" in self._facts else ""
        if self._action == CREATE_ACTION:
            in_session = self._session_id if self._type_name not in (COURSE_TYPE, SESSION_TYPE) else None
            return Question(
                SOMEBODY,
                self._action,
                ResourceRef(self._type_name, ""),
                stated_course_id=self._course_id,
                stated_session_id=in_session,
                purpose=purpose,
            )
        ids = {COURSE_TYPE: self._course_id, SESSION_TYPE: self._session_id, API_TYPE: _API}
        ref = ResourceRef(self._type_name, ids.get(self._type_name, _RESOURCE) or "")
        return Question(SOMEBODY, self._action, ref, purpose=purpose)

    def _innermost(self) -> Scope:
        if self._session_id is not None:
            return session_scope(self._session_id)
        return PLATFORM if self._course_id is None else course_scope(self._course_id)

    def _scope_of(self, kind: ScopeKind) -> Scope:
        if kind is ScopeKind.SESSION:
            return session_scope(self._session_id or "")
        return course_scope(self._course_id or "") if kind is ScopeKind.COURSE else PLATFORM
