# Generated from authz/client/aio/directory.py; see `make client`.
"""The records of a client: writes, imports and reads of the directory."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar
from uuid import uuid4

import grpc
from google.protobuf.message import Message

from authz.client.access_tokens import make_access_token
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
from authz.client.sync.calls import Calls
from authz.client.sync.transport import Method, answer_to
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


class Directory:
    """The methods of a client that write and read records. Every call raises `CallError` if it fails, and
    `InvalidArgumentError` for an argument that cannot be sent."""

    _calls: Calls
    _directory: directory_pb2_grpc.DirectoryServiceStub

    def write(
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
        response = self._written(self._directory.Write, request)
        return WriteToken(
            response.written_at.token, revision=response.revision, replicated=response.replicated
        )

    def update(self, key: Key, *, reason: str = "", **values: Any) -> WriteToken:
        """Change fields of a record that exists: `client.update(CourseKey("algebra-1"), ai_enabled=True)`.

        The other fields stay as they are. Several in one write: `write([update(key, …), …])`. Returns as
        `write`. Raises `InvalidArgumentError` for a name that is no field, or a field that never changes.
        """
        return self.write([update(as_record(key), **values)], reason=reason)

    def remove_member(self, subject: str | Subject, scope: str | Scope, *, reason: str = "") -> WriteToken:
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
        response = self._written(self._directory.RemoveMember, request)
        return WriteToken(response.written_at.token, replicated=response.replicated)

    def create_access_token(
        self, caller: str | Subject, *, ends_at: dt.datetime | Instant, reason: str = ""
    ) -> str:
        """Create a token with which a service authenticates until `ends_at`, and return it. It is not stored.

        A token gives its holder every right of the service. To end it sooner: `revoke_access_token`.
        """
        text, record = make_access_token(
            as_caller(caller, field="caller"), ends_at=as_instant(ends_at, field="ends_at")
        )
        self.write([Mutation(Operation.CREATE, record)], reason=reason)
        return text

    def revoke_access_token(self, token_id: str, *, reason: str = "") -> WriteToken:
        """End a token, which begins with `authz_<token_id>_`. Returns as `write`.

        Raises `CallError` (PRECONDITION_FAILED) if there is none.
        """
        key = AccessTokenKey(as_text(token_id, field="token_id"))
        there = Precondition(key, Expectation.EXISTS)
        return self.write([Mutation(Operation.DELETE, key)], preconditions=[there], reason=reason)

    def import_mutations(
        self, mutations: Iterable[Mutation], *, reason: str = "", progress: Progress = lambda _: None
    ) -> ImportOutcome:
        """Import any number of mutations. Calls `progress` with the number sent so far.

        Raises what `mutations` raises: what was sent before may be written.
        """
        messages = import_messages(as_iterable(mutations, field="mutations"), reason, progress)
        metadata = self._calls.metadata()
        try:
            response = answer_to(self._directory.Import, messages, metadata)
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

    def current_token(self) -> str:
        """The token of the last committed state.

        Get it, read the directory, then watch from it: the watch misses no change.
        """
        return str((self._one_page()).read_at.token)

    def server_time(self) -> dt.datetime:
        """The time by which the server decides, for what depends on it, such as whether an end is over."""
        page = self._one_page()
        if not page.HasField("server_time"):  # of an earlier release
            return dt.datetime.now(dt.UTC)
        return to_datetime(page.server_time.ToMicroseconds())

    def _one_page(self) -> directory_pb2.ReadCoursesResponse:
        return self._calls.call(
            self._directory.ReadCourses, message_of(directory_pb2.ReadCoursesRequest, page_size=1)
        )

    def read(self, wanted: Filter[EntityT]) -> Iterator[Versioned[EntityT]]:
        """The records that match a filter, in order of their key. Fetches pages as needed.

        for found in client.read(MembershipFilter(scope=course_scope("algebra-1"), role="student"))
        """
        wanted = as_filter(wanted)
        read = READ_CALLS[type(wanted)]
        request = read.format(wanted, Page(_PAGE_SIZE))
        for page in self._calls.pages(getattr(self._directory, read.name), request):
            records: Iterable[Versioned[EntityT]] = read.records(page)
            for record in records:
                yield record

    def read_courses(self, **wanted: Any) -> Iterator[Versioned[Course]]:
        """`read` with the fields of a `CourseFilter`."""
        return self.read(CourseFilter(**wanted))

    def read_sessions(self, **wanted: Any) -> Iterator[Versioned[Session]]:
        """`read` with the fields of a `SessionFilter`."""
        return self.read(SessionFilter(**wanted))

    def read_memberships(self, **wanted: Any) -> Iterator[Versioned[Membership]]:
        """`read` with the fields of a `MembershipFilter`."""
        return self.read(MembershipFilter(**wanted))

    def read_resources(self, **wanted: Any) -> Iterator[Versioned[Resource]]:
        """`read` with the fields of a `ResourceFilter`."""
        return self.read(ResourceFilter(**wanted))

    def read_shares(self, **wanted: Any) -> Iterator[Versioned[Share]]:
        """`read` with the fields of a `ShareFilter`."""
        return self.read(ShareFilter(**wanted))

    def read_accounts(self, **wanted: Any) -> Iterator[Versioned[Account]]:
        """`read` with the fields of an `AccountFilter`."""
        return self.read(AccountFilter(**wanted))

    def read_access_tokens(self, **wanted: Any) -> Iterator[Versioned[AccessToken]]:
        """`read` with the fields of an `AccessTokenFilter`."""
        return self.read(AccessTokenFilter(**wanted))

    def _written(self, method: Method[Any], request: Message) -> Any:
        response = self._calls.call(method, request)
        warn_unless_replicated(response.replicated)
        return response
