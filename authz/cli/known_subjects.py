"""Tells when a command names a subject, a course or a session that no record has: the id may be mistyped."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from authz.client import CallError, Client
from authz.domain.decisions import Reason
from authz.domain.entities import (
    AccountFilter,
    CourseFilter,
    Filter,
    MembershipFilter,
    ResourceFilter,
    SessionFilter,
    ShareFilter,
)
from authz.domain.ids import PLATFORM, Scope, ScopeKind, Subject, course_scope, session_scope


def note_if_unknown(client: Client, who: Subject) -> None:
    """Say so on standard error. The command goes on: somebody may be held or suspended before any record,
    and an answer is right without the note, as when the database is away, or the caller may not read it."""
    filters: tuple[Filter[Any], ...] = (
        MembershipFilter(subject=who),
        AccountFilter(subject=who),
        ResourceFilter(owner=who),
        ShareFilter(subject=who),
    )
    _note_unless_found(client, filters, f"no record names {who}")


def note_of_denial(
    client: Client, reason: Reason | str, who: Subject, stated: Mapping[str, str | None]
) -> None:
    """As `note_if_unknown`, of what a question names and has `stated`, where that may be the reason of its
    denial."""
    if reason == Reason.NOT_A_MEMBER:
        note_if_unknown(client, who)
    elif reason in (Reason.RESOURCE_UNKNOWN, Reason.SCOPE_MISMATCH):
        for field, scope_of in (("course_id", course_scope), ("session_id", session_scope)):
            if id_ := stated[field]:
                note_unknown(client, None, scope_of(id_))


def note_unknown(client: Client, subject: Subject | None, scope: Scope | None) -> None:
    """As `note_if_unknown`, of the subject and of the course or the session that a list names."""
    if subject is not None:
        note_if_unknown(client, subject)
    if scope is None or scope == PLATFORM:
        return
    ids = (scope.id,)
    wanted: Filter[Any] = CourseFilter(ids=ids) if scope.kind is ScopeKind.COURSE else SessionFilter(ids=ids)
    _note_unless_found(client, [wanted], f"there is no {scope}")


def _note_unless_found(client: Client, filters: Iterable[Filter[Any]], what: str) -> None:
    try:
        is_known = any(next(client.read(each), None) is not None for each in filters)
    except CallError:
        return
    if not is_known:
        print(f"note: {what}; compare the id", file=sys.stderr)
