# Generated from authz/client/aio/live.py; see `make client`.
"""Whom to eject from live sessions, and whose rights there have changed, as changes happen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import closing

from authz.client.arguments import as_subject
from authz.client.cache import DECIDING_KINDS
from authz.client.combined import SessionAccess
from authz.client.sync.client import Client
from authz.domain.entities import (
    AccountKey,
    CourseKey,
    Key,
    MembershipKey,
    RestrictionKey,
    SessionKey,
    ShareKey,
)
from authz.domain.ids import ResourceRef, ScopeKind, Subject

Present = Mapping[str, Collection[str | Subject]]
"""Who (`user:maya`) is in which session (its id) now."""


def access_changes(
    client: Client, present: Callable[[], Present], *, after: str = ""
) -> Generator[SessionAccess, None]:
    """Yield, for each change that may concern somebody who is present, what they may do from then on.

    A falsy one must be ejected; the others get the rights that it says. `present` is asked at each change:
    from the webhooks of the video service, or its presence call. Goes on without end, like `watch`, from the
    token `after` or from now on. What time alone ends, the end of a meeting token ends; if an access that is
    yielded has an earlier `valid_until` or `ends_at` than the token, eject then.

    Raises `CallError` like `watch`, if the caller may not read a kind of record that decides, and if the
    server does not say what somebody may do. A change may then be lost: begin again, and call
    `authorize_session` for everybody who is present. Raises `InvalidArgumentError` for somebody present
    without a type, such as the `user_id` of a meeting token.
    """
    keys: list[Key] = []
    courses: dict[str, str] = {}
    """By session, as far as it is known: else each change of any course would ask about everybody."""
    with closing(client.watch(after=after, kinds=DECIDING_KINDS)) as changes:
        for change in changes:
            keys += [mutation.key for mutation in change.mutations]
            if not change.is_last:
                continue
            now = present()
            courses = {session_id: courses[session_id] for session_id in now if session_id in courses}
            for session_id, subject in _concerned(now, keys, courses):
                access = client.authorize_session(subject, session_id, at_least_as_fresh=change.token)
                if access:
                    courses[session_id] = access.course_id
                yield access
            keys = []


def _concerned(
    present: Present, keys: Collection[Key], courses: Mapping[str, str]
) -> list[tuple[str, Subject]]:
    return [
        (session_id, subject)
        for session_id, subjects in present.items()
        for subject in [as_subject(each, field="present") for each in subjects]
        if any(_may_concern(key, session_id, subject, courses.get(session_id)) for key in keys)
    ]


def _may_concern(key: Key, session_id: str, subject: Subject, course_id: str | None) -> bool:
    match key:
        case SessionKey(id=id_):
            return id_ == session_id
        case CourseKey(id=id_):
            return course_id is None or course_id == id_
        case MembershipKey(subject=whose, scope=scope):
            return whose == subject and (scope.kind is not ScopeKind.SESSION or scope.id == session_id)
        case AccountKey(subject=whose) | RestrictionKey(subject=whose):
            return whose == subject
        case ResourceRef() | ShareKey():
            return False
        case _:  # a policy
            return True
