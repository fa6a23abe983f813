"""The records of a client: writes, imports and reads of the directory."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeVar
from uuid import uuid4

import grpc
from google.protobuf.message import Message

from authz.client.access_tokens import make_access_token
from authz.client.aio.calls import Calls
from authz.client.aio.transport import Method, answer_to
from authz.client.arguments import (
    as_caller,
    as_filter,
    as_instant,
    as_iterable,
    as_list,
    as_mutation,
    as_precondition,
    as_record,
    as_text,
    message_of,
    sent_scope,
    sent_subject,
)
from authz.client.errors import error_of
from authz.client.imports import Progress, import_messages
from authz.client.questions import ImportOutcome, WriteToken, warn_unless_replicated
from authz.client.touches import warn_of_bare_touches
from authz.domain.entities import (
    AccessToken,
    AccessTokenFilter,
    AccessTokenKey,
    Account,
    AccountFilter,
    Course,
    CourseFilter,
    Entity,
    Filter,
    Key,
    Membership,
    MembershipFilter,
    Resource,
    ResourceFilter,
    Session,
    SessionFilter,
    Share,
    ShareFilter,
    Versioned,
)
from authz.domain.ids import Scope, Subject
from authz.domain.instants import Instant, to_datetime
from authz.domain.mutations import Expectation, ImportFault, Mutation, Operation, Precondition, update
from authz.domain.ports import Page
from authz.v1 import directory_pb2, directory_pb2_grpc
from authz.wire.entities import mutation_message, precondition_message
from authz.wire.filters import READ_CALLS

EntityT = TypeVar("EntityT", bound=Entity)

_PAGE_SIZE = 1000


class AsyncDirectory:
    """The methods of a client that write and read records. Every call raises `CallError` if it fails, and
    `InvalidArgumentError` for an argument that cannot be sent."""

    _calls: Calls
    _directory: directory_pb2_grpc.DirectoryServiceAsyncStub

    async def write(
        self,
        mutations: Iterable[Mutation],
        *,
        preconditions: Iterable[Precondition] = (),
        idempotency_key: str = "",
        reason: str = "",
    ) -> WriteToken:
        """Apply up to 1,000 mutations atomically, if all preconditions hold for the state before the write.

        Returns the token of the state after the write, for questions of other clients; its `revision` is that
        of the records that the write changed. Warns of a TOUCH that gives only the identifying fields
        (`BareTouchWarning`). Retries within `timeout_s` while the server is `UNAVAILABLE`, and while a record
        with the same key is still being removed. The write is applied once: without an `idempotency_key`, the
        client makes one for this call. Logs a warning if the write is committed and the replica of the
        server's machine has not followed (`replicated` of the token is false): checks there are refused until
        it has.
        """
        given = [as_mutation(each) for each in as_list(mutations, field="mutations")]
        warn_of_bare_touches(given)
        request = message_of(
            directory_pb2.WriteRequest,
            mutations=[mutation_message(mutation) for mutation in given],
            preconditions=[
                precondition_message(as_precondition(each))
                for each in as_list(preconditions, field="preconditions")
            ],
            idempotency_key=idempotency_key or uuid4().hex,
            reason=reason,
        )
        response = await self._written(self._directory.Write, request)
        return WriteToken(
            response.written_at.token, revision=response.revision, replicated=response.replicated
        )

    async def update(self, key: Key, *, reason: str = "", **values: Any) -> WriteToken:
        """Change fields of a record that exists: `client.update(CourseKey("algebra-1"), ai_enabled=True)`.

        The other fields stay as they are. Several in one write: `write([update(key, …), …])`. Returns as
        `write`. Raises `InvalidArgumentError` for a name that is no field, or a field that never changes.
        """
        return await self.write([update(as_record(key), **values)], reason=reason)

    async def remove_member(
        self, subject: str | Subject, scope: str | Scope, *, reason: str = ""
    ) -> WriteToken:
        """Remove a subject from a course and all of its sessions, or from a session: its memberships there,
        and what is shared with it there.

        Returns the token of the state in which the subject is removed, and warns as `write`.
        """
        request = message_of(
            directory_pb2.RemoveMemberRequest,
            subject=sent_subject(subject),
            scope=sent_scope(scope),
            reason=reason,
        )
        response = await self._written(self._directory.RemoveMember, request)
        return WriteToken(response.written_at.token, replicated=response.replicated)

    async def create_access_token(
        self, caller: str | Subject, *, ends_at: dt.datetime | Instant, reason: str = ""
    ) -> str:
        """Create a token with which a service authenticates until `ends_at`, and return it. It is not stored.

        A token gives its holder every right of the service. To end it sooner: `revoke_access_token`.
        """
        text, record = make_access_token(
            as_caller(caller, field="caller"), ends_at=as_instant(ends_at, field="ends_at")
        )
        await self.write([Mutation(Operation.CREATE, record)], reason=reason)
        return text

    async def revoke_access_token(self, token_id: str, *, reason: str = "") -> WriteToken:
        """End a token, which begins with `authz_<token_id>_`. Returns as `write`.

        Raises `CallError` (PRECONDITION_FAILED) if there is none.
        """
        key = AccessTokenKey(as_text(token_id, field="token_id"))
        there = Precondition(key, Expectation.EXISTS)
        return await self.write([Mutation(Operation.DELETE, key)], preconditions=[there], reason=reason)

    async def import_mutations(
        self, mutations: Iterable[Mutation], *, reason: str = "", progress: Progress = lambda _: None
    ) -> ImportOutcome:
        """Import any number of mutations. Calls `progress` with the number sent so far.

        Raises what `mutations` raises: what was sent before may be written.
        """
        messages = import_messages(as_iterable(mutations, field="mutations"), reason, progress)
        metadata = self._calls.metadata()
        try:
            response = await answer_to(self._directory.Import, messages, metadata)
        except grpc.RpcError as failure:
            raise error_of(failure) from None
        if response.written_at.token:
            self._calls.last_write.note(response.written_at.token)
        faults = tuple(ImportFault(e.position, e.reason, e.message) for e in response.errors)
        return ImportOutcome(
            written=response.written,
            unchanged=response.unchanged,
            failed=response.failed,
            faults=faults,
            faults_truncated=response.errors_truncated,
            written_at=response.written_at.token,
            replicated=response.replicated,
        )

    async def current_token(self) -> str:
        """The token of the last committed state.

        Get it, read the directory, then watch from it: the watch misses no change.
        """
        return str((await self._one_page()).read_at.token)

    async def server_time(self) -> dt.datetime:
        """The time by which the server decides, for what depends on it, such as whether an end is over."""
        page = await self._one_page()
        if not page.HasField("server_time"):  # of an earlier release
            return dt.datetime.now(dt.UTC)
        return to_datetime(page.server_time.ToMicroseconds())

    async def _one_page(self) -> directory_pb2.ReadCoursesResponse:
        return await self._calls.call(
            self._directory.ReadCourses, message_of(directory_pb2.ReadCoursesRequest, page_size=1)
        )

    async def read(self, wanted: Filter[EntityT]) -> AsyncIterator[Versioned[EntityT]]:
        """The records that match a filter, in order of their key. Fetches pages as needed.

        async for found in client.read(MembershipFilter(scope=course_scope("algebra-1"), role="student"))
        """
        wanted = as_filter(wanted)
        read = READ_CALLS[type(wanted)]
        request = read.format(wanted, Page(_PAGE_SIZE))
        async for page in self._calls.pages(getattr(self._directory, read.name), request):
            records: Iterable[Versioned[EntityT]] = read.records(page)
            for record in records:
                yield record

    def read_courses(self, **wanted: Any) -> AsyncIterator[Versioned[Course]]:
        """`read` with the fields of a `CourseFilter`."""
        return self.read(CourseFilter(**wanted))

    def read_sessions(self, **wanted: Any) -> AsyncIterator[Versioned[Session]]:
        """`read` with the fields of a `SessionFilter`."""
        return self.read(SessionFilter(**wanted))

    def read_memberships(self, **wanted: Any) -> AsyncIterator[Versioned[Membership]]:
        """`read` with the fields of a `MembershipFilter`."""
        return self.read(MembershipFilter(**wanted))

    def read_resources(self, **wanted: Any) -> AsyncIterator[Versioned[Resource]]:
        """`read` with the fields of a `ResourceFilter`."""
        return self.read(ResourceFilter(**wanted))

    def read_shares(self, **wanted: Any) -> AsyncIterator[Versioned[Share]]:
        """`read` with the fields of a `ShareFilter`."""
        return self.read(ShareFilter(**wanted))

    def read_accounts(self, **wanted: Any) -> AsyncIterator[Versioned[Account]]:
        """`read` with the fields of an `AccountFilter`."""
        return self.read(AccountFilter(**wanted))

    def read_access_tokens(self, **wanted: Any) -> AsyncIterator[Versioned[AccessToken]]:
        """`read` with the fields of an `AccessTokenFilter`."""
        return self.read(AccessTokenFilter(**wanted))

    async def _written(self, method: Method[Any], request: Message) -> Any:
        response = await self._calls.call(method, request)
        warn_unless_replicated(response.replicated)
        return response
