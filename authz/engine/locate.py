"""Finds what a question is about: a resource in its scope, a course, a session, or where to create."""

from __future__ import annotations

from authz.domain.context import DELETED, SCOPE_MISSING, ResourceContext, resource_context_of
from authz.domain.decisions import (
    COURSE_TYPE,
    CREATE_ACTION,
    SESSION_TYPE,
    STRUCTURAL_TYPES,
    Question,
    Reason,
)
from authz.domain.entities import KINDS, Resource, Session
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.ids import PLATFORM, Scope, Subject, course_scope, session_scope
from authz.domain.ports import Snapshot
from authz.domain.vocabulary import API_TYPE, Vocabulary


def locate(
    snapshot: Snapshot, question: Question, vocabulary: Vocabulary, inline_types: frozenset[str]
) -> ResourceContext | Reason:
    """The resource in its scope, else the reason why the question has none.

    A request may describe a resource of one of `inline_types`. Raises `InvalidArgumentError` for a
    description that could not be registered.
    """
    ref = question.resource
    if question.action == CREATE_ACTION:
        found = _scope_as_resource(snapshot, _scope_to_create_in(question))
    elif ref.type == API_TYPE:
        if question.purpose:
            return Reason.PURPOSE_NOT_PERMITTED  # a call has none
        found = _scope_as_resource(snapshot, PLATFORM)
    elif ref.type == COURSE_TYPE:
        found = _scope_as_resource(snapshot, course_scope(ref.id))
    elif ref.type == SESSION_TYPE:
        found = _scope_as_resource(snapshot, session_scope(ref.id))
    else:
        found = snapshot.resource(ref, question.subject)
        if found is None and question.inline is not None and ref.type in inline_types:
            found = _described(snapshot, question.inline, question.subject, vocabulary)
    if found is None or found is SCOPE_MISSING or found is DELETED:
        return Reason.RESOURCE_UNKNOWN
    scope = found.scope
    if question.stated_course_id is not None and question.stated_course_id != scope.course_id:
        return Reason.SCOPE_MISMATCH
    if question.stated_session_id is not None and question.stated_session_id != scope.session_id:
        return Reason.SCOPE_MISMATCH
    return found


def _scope_to_create_in(question: Question) -> Scope:
    type_name = question.resource.type
    if question.stated_session_id is not None and type_name not in STRUCTURAL_TYPES:
        return session_scope(question.stated_session_id)
    if question.stated_course_id is not None and type_name != COURSE_TYPE:
        return course_scope(question.stated_course_id)
    if type_name in STRUCTURAL_TYPES:
        return PLATFORM
    raise InvalidArgumentError(
        ErrorReason.MISSING_FIELD,
        f"`create` of `{type_name}` needs resource.course_id or resource.session_id: where to create it",
        field="resource.course_id",
    )


def _scope_as_resource(snapshot: Snapshot, scope: Scope) -> ResourceContext | None:
    """A course, a session or the platform as the resource of a question, if it is registered."""
    context = snapshot.scope(scope)
    return None if context is None else ResourceContext(context, context.state.facts)


def _described(
    snapshot: Snapshot, inline: Resource, subject: Subject, vocabulary: Vocabulary
) -> ResourceContext | None:
    """A resource as the caller describes it, in a scope that is registered.

    Raises `InvalidArgumentError` for a description that could not be registered.
    """
    kind = KINDS["resource"]
    kind.validate(inline, vocabulary)
    scope = snapshot.scope(inline.scope)
    if scope is None:
        return None
    if scope.session_id is not None:
        kind.validate_container(inline, Session(id=scope.session_id, course_id=scope.course_id))
    return resource_context_of(inline, scope, subject)
