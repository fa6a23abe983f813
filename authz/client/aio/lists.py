"""The lists of a client: what may somebody act upon, and who may act upon this; whole, or by pages."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable

from authz.client.aio.fresh_calls import FreshCalls
from authz.client.lists import (
    ListPage,
    naming_cursor,
    resources_in,
    resources_request,
    resume,
    subjects_in,
    subjects_request,
)
from authz.client.questions import AccessibleResource, AskedResource, PermittedSubject
from authz.domain.decisions import Reason
from authz.domain.ids import Scope, Subject
from authz.domain.instants import Instant
from authz.v1 import authorization_pb2_grpc

_PAGE_SIZE = 1000


class AsyncLists(FreshCalls):
    """The methods of a client that list. Every call raises `CallError` if it fails, and
    `InvalidArgumentError` for an argument that cannot be sent."""

    _authorization: authorization_pb2_grpc.AuthorizationServiceAsyncStub

    async def list_resources(
        self,
        subject: str | Subject,
        action: str,
        *types: str,
        scope: str | Scope | None = None,
        purpose: str = "",
        on_unlisted: Callable[[Reason | str], None] = lambda _: None,
        at_least_as_fresh: str = "",
        fully_consistent: bool = False,
    ) -> AsyncIterator[AccessibleResource]:
        """What `user:maya` may `read`: all resources that `check` allows. Fetches pages as needed.

            async for found in client.list_resources("user:maya", "read", "notebook"):
                ...

        Without types, all that know the action. `scope`, as `course:algebra-1`, is a course with its
        sessions, or a session. Each page is exact for its own state (`found.checked_at`), which is never
        older than that of the page before. Nothing is yielded for a scope that does not exist: `on_unlisted`
        is then called with the reason, if the caller may learn reasons.
        """
        request = resources_request(
            subject, action, types, scope=scope, purpose=purpose, page_size=_PAGE_SIZE
        )
        async for message in self._pages(
            self._authorization.ListResources, request, at_least_as_fresh, fully_consistent
        ):
            page = resources_in(message)
            if page.reason:
                on_unlisted(page.reason)
            for each in page.items:
                yield each

    async def list_resources_page(
        self,
        subject: str | Subject,
        action: str,
        *types: str,
        scope: str | Scope | None = None,
        purpose: str = "",
        page_size: int = 100,
        cursor: str = "",
        at_least_as_fresh: str = "",
        fully_consistent: bool = False,
    ) -> ListPage[AccessibleResource]:
        """One page of `list_resources`, of up to 1,000 items, for a program that shows pages itself.

            page = await client.list_resources_page("user:maya", "read", "notebook", cursor=cursor)
            show(page.items, next_page=page.cursor)  # empty on the last page

        A page continues behind the one whose `cursor` it is given, on a state that is not older, also on
        another server. It may have few items, or none, and a cursor. The other arguments but `page_size` must
        be the same.
        """
        request = resources_request(subject, action, types, scope=scope, purpose=purpose, page_size=page_size)
        least = resume(
            request, cursor, at_least_as_fresh=at_least_as_fresh, fully_consistent=fully_consistent
        )
        with naming_cursor(at_least_as_fresh=at_least_as_fresh):
            page = await self._ask(self._authorization.ListResources, request, least, fully_consistent)
        return resources_in(page)

    async def list_subjects(
        self,
        action: str,
        resource: AskedResource,
        *,
        course_id: str | None = None,
        session_id: str | None = None,
        purpose: str = "",
        as_of: dt.datetime | Instant | None = None,
        on_unlisted: Callable[[Reason | str], None] = lambda _: None,
        at_least_as_fresh: str = "",
        fully_consistent: bool = False,
    ) -> AsyncIterator[PermittedSubject]:
        """Who may `read` `notebook:nb-7`: all subjects whom `check` allows, and by which membership and rule.

        Fetches pages as `list_resources` does. `as_of` as in `explain`. Nobody is yielded for a resource that
        is not registered, or is not in the stated course or session: `on_unlisted` is then called with the
        reason, if the caller may learn reasons.
        """
        request = subjects_request(
            action,
            resource,
            course_id=course_id,
            session_id=session_id,
            purpose=purpose,
            as_of=as_of,
            page_size=_PAGE_SIZE,
        )
        async for message in self._pages(
            self._authorization.ListSubjects, request, at_least_as_fresh, fully_consistent
        ):
            page = subjects_in(message)
            if page.reason:
                on_unlisted(page.reason)
            for each in page.items:
                yield each

    async def list_subjects_page(
        self,
        action: str,
        resource: AskedResource,
        *,
        course_id: str | None = None,
        session_id: str | None = None,
        purpose: str = "",
        as_of: dt.datetime | Instant | None = None,
        page_size: int = 100,
        cursor: str = "",
        at_least_as_fresh: str = "",
        fully_consistent: bool = False,
    ) -> ListPage[PermittedSubject]:
        """One page of `list_subjects`, as `list_resources_page`."""
        request = subjects_request(
            action,
            resource,
            course_id=course_id,
            session_id=session_id,
            purpose=purpose,
            as_of=as_of,
            page_size=page_size,
        )
        least = resume(
            request, cursor, at_least_as_fresh=at_least_as_fresh, fully_consistent=fully_consistent
        )
        with naming_cursor(at_least_as_fresh=at_least_as_fresh):
            page = await self._ask(self._authorization.ListSubjects, request, least, fully_consistent)
        return subjects_in(page)
