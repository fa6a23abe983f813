"""Lists on the client: what a request asks, and what a page of the answer has."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import msgspec

from authz.client.arguments import as_text, message_of, sent_scope, sent_subject, sent_time
from authz.client.errors import CallError
from authz.client.questions import AccessibleResource, AskedResource, PermittedSubject, query_of, rule_text
from authz.domain.decisions import Reason
from authz.domain.ids import Scope, Subject
from authz.domain.instants import Instant
from authz.domain.tokens import latest
from authz.v1 import authorization_pb2 as pb
from authz.wire.decisions import REASONS
from authz.wire.values import parse_scope_message, time_in
from authz.wire.values import parse_subject as parse_subject_message

ItemT = TypeVar("ItemT")

_SEPARATOR = "."
"""In a cursor, between the token of the page and that of its state. Neither token has one."""


class ListPage(msgspec.Struct, Generic[ItemT], frozen=True, kw_only=True):
    """One page of a list, exact for the state `checked_at`.

    `cursor` is text from which the next page continues, empty on the last page. A page that has one may have
    few items, or none. `reason` says why a list is empty, if the caller may learn reasons. The other fields
    are as in `AccessibleResource`.
    """

    items: tuple[ItemT, ...]
    cursor: str
    reason: Reason | str
    checked_at: str
    policy_version: str
    valid_until: dt.datetime | None


def resources_request(
    subject: str | Subject,
    action: str,
    types: Sequence[str],
    *,
    scope: str | Scope | None,
    purpose: str,
    page_size: int,
) -> pb.ListResourcesRequest:
    """The request for a page of resources."""
    return message_of(
        pb.ListResourcesRequest,
        subject=sent_subject(subject),
        action=action,
        types=types,
        scope=None if scope is None else sent_scope(scope),
        purpose=purpose,
        page_size=page_size,
    )


def subjects_request(
    action: str,
    resource: AskedResource,
    *,
    course_id: str | None,
    session_id: str | None,
    purpose: str,
    as_of: dt.datetime | Instant | None,
    page_size: int,
) -> pb.ListSubjectsRequest:
    """The request for a page of subjects."""
    return message_of(
        pb.ListSubjectsRequest,
        action=action,
        resource=query_of(resource, course_id, session_id),
        purpose=purpose,
        as_of=sent_time(as_of, field="as_of"),
        page_size=page_size,
    )


def resume(request: Any, cursor: str, *, at_least_as_fresh: str, fully_consistent: bool) -> str:
    """Let a request continue behind the page that has a cursor. Returns the state than which the next page
    must not be older."""
    request.page_token, _, checked_at = as_text(cursor, field="cursor").partition(_SEPARATOR)
    if fully_consistent or not checked_at:
        return at_least_as_fresh
    return latest(checked_at, at_least_as_fresh) if at_least_as_fresh else checked_at


@contextmanager
def naming_cursor(*, at_least_as_fresh: str) -> Iterator[None]:
    """Let the error for a token that is in a cursor name the cursor."""
    fields = {"page_token"} if at_least_as_fresh else {"page_token", "consistency.at_least_as_fresh"}
    try:
        yield
    except CallError as error:
        if error.metadata.get("field") in fields:
            error.name_field("cursor")
        raise


def resources_in(page: pb.ListResourcesResponse) -> ListPage[AccessibleResource]:
    """A page of resources."""
    of_page = _page_fields(page)
    found = (
        AccessibleResource(
            resource=f"{each.type}:{each.id}",
            course_id=each.course_id,
            session_id=each.session_id,
            **of_page,
        )
        for each in page.resources
    )
    return ListPage(items=tuple(found), **_position(page), **of_page)


def subjects_in(page: pb.ListSubjectsResponse) -> ListPage[PermittedSubject]:
    """A page of subjects."""
    of_page = _page_fields(page)
    found = (
        PermittedSubject(
            subject=str(parse_subject_message(each, "subject", field="subject")),
            role=each.role,
            scope=str(parse_scope_message(each.scope, field="scope")),
            membership_role=each.membership_role,
            rule=rule_text(each.rule),
            **of_page,
        )
        for each in page.subjects
    )
    return ListPage(items=tuple(found), **_position(page), **of_page)


def _position(page: Any) -> dict[str, Any]:
    token = page.next_page_token
    return {
        "cursor": f"{token}{_SEPARATOR}{page.checked_at.token}" if token else "",
        "reason": REASONS.received(page.reason),
    }


def _page_fields(page: Any) -> dict[str, Any]:
    return {
        "checked_at": page.checked_at.token,
        "policy_version": page.policy_version,
        "valid_until": time_in(page, "valid_until"),
    }
