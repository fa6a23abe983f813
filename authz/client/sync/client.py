# Generated from authz/client/aio/client.py; see `make client`.
"""The client: a connection to one server, and all of its calls."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from copy import copy
from functools import partial
from itertools import islice
from typing import Any, Self, TypeVar

import grpc
import msgspec

from authz.client.access_tokens import make_access_token
from authz.client.cache import DecisionCache
from authz.client.connection import Connection, identity_of, person_of
from authz.client.errors import closed, error_of
from authz.client.given import (
    as_filter,
    as_instant,
    as_iterable,
    as_kinds,
    as_list,
    as_mutation,
    as_precondition,
    as_record,
    as_scope,
    as_seconds,
    as_subject,
    message_of,
)
from authz.client.last_write import LastWrite
from authz.client.questions import NOT_REPLICATED, ImportOutcome
from authz.client.sync.asking import Asking
from authz.client.sync.audit import AuditClient
from authz.client.sync.calls import Calls
from authz.client.sync.feed import CacheFeed
from authz.client.sync.policies import PolicyClient
from authz.client.sync.privacy import PrivacyClient
from authz.client.sync.transport import CLOSED, Channel, Hedge, Method, answer_to, open_channel
from authz.client.sync.watch import ResumingWatch
from authz.client.touches import warn_of_bare_touches
from authz.client.watch import WatchedChange
from authz.domain.entities import (
    AccessToken,
    AccessTokenFilter,
    AccessTokenKey,
    Account,
    AccountFilter,
    Course,
    CourseFilter,
    Entity,
    EntityKind,
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
from authz.domain.instants import Instant
from authz.domain.mutations import (
    MAX_MUTATIONS_PER_WRITE,
    Expectation,
    ImportFault,
    Mutation,
    Operation,
    Precondition,
    update,
)
from authz.domain.ports import Page
from authz.v1 import (
    audit_pb2_grpc,
    authorization_pb2_grpc,
    directory_pb2,
    directory_pb2_grpc,
    policy_pb2_grpc,
    privacy_pb2_grpc,
    watch_pb2,
    watch_pb2_grpc,
)
from authz.v1.common_pb2 import ConsistencyToken
from authz.wire.changes import kind_number
from authz.wire.entities import mutation_message, precondition_message
from authz.wire.filters import READ_CALLS
from authz.wire.values import scope_message, subject_message

log = logging.getLogger("authz.client")

T = TypeVar("T")
EntityT = TypeVar("EntityT", bound=Entity)
Progress = Callable[[int], None]

_PAGE_SIZE = 1000


class Client(Asking):
    """A connection to one server. A context manager; one is enough for a process, and all of it may share it.

        with Client("127.0.0.1:50051") as client:
            if client.check("user:maya", "read", "material:m-1"):
                ...

    The client reads its own writes.

    Every call raises `CallError` if it fails or is not answered within `timeout_s`; `import_mutations`
    and `watch` have no time limit. `acting_for`, such as `user:ada`, is the person that calls are made
    for: what they write is held to this person's rights and rank. With
    `use_proxy` the connection goes through the proxy that the variable `http_proxy` names, else never.
    `tls_ca_file`, a PEM file of the authority that issued the server's certificate, enables TLS.
    `tls_certificate_file` and `tls_key_file`, set together, are the client certificate. `token`, or what it
    returns for each call, or what `token_file` has, is the token or the JWT that proves who calls. It goes
    to another machine only with TLS, unless `allow_plaintext_token`. `cache` keeps answers of `check`.
    With `hedge_after_s`, a check without an answer after this time is sent again over another connection.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = 5.0,
        acting_for: str | Subject = "",
        use_proxy: bool = False,
        tls_ca_file: str = "",
        tls_certificate_file: str = "",
        tls_key_file: str = "",
        token: str | Callable[[], str] = "",
        token_file: str = "",
        allow_plaintext_token: bool = False,
        cache: DecisionCache | None = None,
        hedge_after_s: float = 0.0,
    ) -> None:
        connection = Connection(
            target=target,
            use_proxy=use_proxy,
            tls_ca_file=tls_ca_file,
            tls_certificate_file=tls_certificate_file,
            tls_key_file=tls_key_file,
        )
        identity = identity_of(
            connection, acting_for, token, token_file, allow_plaintext_token=allow_plaintext_token
        )
        last_write = LastWrite()
        self._feed = None
        if cache is not None:
            cache.claim()
            last_write = LastWrite(when_written=cache.clear)
            self._feed = CacheFeed(cache, self._open_watch)
        self._hedge = None
        if hedge_after_s:
            self._hedge = Hedge(connection, as_seconds(hedge_after_s, field="hedge_after_s"))
        self._use(open_channel(connection), Calls(timeout_s, identity, last_write))

    def with_options(
        self, *, timeout_s: float | None = None, acting_for: str | Subject | None = None
    ) -> Self:
        """This client over the same connection, with another time limit or for another person.

        client.with_options(timeout_s=0.2).check("user:maya", "read", "material:m-1")

        What is closed with one of them is closed for both.
        """
        calls, other = self._calls, copy(self)
        identity = calls.identity
        if acting_for is not None:
            identity = msgspec.structs.replace(identity, acting_for=person_of(acting_for))
        limit_s = calls.timeout_s if timeout_s is None else timeout_s
        other._use(self._channel, Calls(limit_s, identity, calls.last_write))
        return other

    def _use(self, channel: Channel, calls: Calls) -> None:
        self._channel = channel
        self._calls = calls
        self._authorization = authorization_pb2_grpc.AuthorizationServiceStub(channel)
        self._check = self._authorization.Check
        if self._hedge is not None:
            self._check = partial(self._hedge.check, self._authorization.Check)
        self._directory = directory_pb2_grpc.DirectoryServiceStub(channel)
        self._watch = watch_pb2_grpc.WatchServiceStub(channel)
        self.policies = PolicyClient(policy_pb2_grpc.PolicyServiceStub(channel), calls)
        """Publishes and reads the versions of the policy."""
        self.privacy = PrivacyClient(privacy_pb2_grpc.PrivacyServiceStub(channel), calls)
        """Exports, renames, holds and erases subjects."""
        self.audit = AuditClient(audit_pb2_grpc.AuditServiceStub(channel), calls)
        """Reads the change log and the decision log."""

    def __enter__(self) -> Self:
        """Return the client, which connects at the first call."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection, at the end of its use without `with`."""
        if self._feed is not None:
            self._feed.end()
        self._channel.close()
        if self._hedge is not None:
            self._hedge.close()
        if self._feed is not None:
            self._feed.stop()

    def write(
        self,
        mutations: Iterable[Mutation],
        *,
        preconditions: Iterable[Precondition] = (),
        idempotency_key: str = "",
        reason: str = "",
    ) -> str:
        """Apply up to 1,000 mutations atomically, if all preconditions hold for the state before the write.

        Returns the token of the state after the write, for questions of other clients. Warns of a TOUCH that
        gives only the identifying fields (`BareTouchWarning`). Tries again, within `timeout_s`, while a
        record with the same key is still being removed. Logs a warning if the write is committed and the
        replica of the server's machine has not followed: checks there are refused until it has.
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
            idempotency_key=idempotency_key,
            reason=reason,
        )
        return self._written(self._directory.Write, request)

    def update(self, key: Key, *, reason: str = "", **values: Any) -> str:
        """Change fields of a record that exists: `client.update(CourseKey("algebra-1"), ai_enabled=True)`.

        The other fields stay as they are. Several in one write: `write([update(key, …), …])`. Returns as
        `write`. Raises `InvalidArgumentError` for a name that is no field, or a field that never changes.
        """
        return self.write([update(as_record(key), **values)], reason=reason)

    def remove_member(self, subject: str | Subject, scope: str | Scope, *, reason: str = "") -> str:
        """Remove a subject from a course and all of its sessions, or from a session: its memberships there,
        and what is shared with it there.

        Returns as `write`.
        """
        request = message_of(
            directory_pb2.RemoveMemberRequest,
            subject=subject_message(as_subject(subject)),
            scope=scope_message(as_scope(scope)),
            reason=reason,
        )
        return self._written(self._directory.RemoveMember, request)

    def create_access_token(
        self, caller: str | Subject, *, ends_at: dt.datetime | Instant, reason: str = ""
    ) -> str:
        """Let a service prove itself with a new token until a time. Returns the token, which is kept nowhere.

        A token gives its holder every right of the service. To end it sooner: `revoke_access_token`.
        """
        text, record = make_access_token(
            as_subject(caller, field="caller"), ends_at=as_instant(ends_at, field="ends_at")
        )
        self.write([Mutation(Operation.CREATE, record)], reason=reason)
        return text

    def revoke_access_token(self, token_id: str, *, reason: str = "") -> str:
        """End a token, which begins with `authz_<token_id>_`. Returns as `write`.

        Raises `CallError` (PRECONDITION_FAILED) if there is none.
        """
        key = AccessTokenKey(token_id)
        there = Precondition(key, Expectation.EXISTS)
        return self.write([Mutation(Operation.DELETE, key)], preconditions=[there], reason=reason)

    def import_mutations(
        self, mutations: Iterable[Mutation], *, reason: str = "", progress: Progress = lambda _: None
    ) -> ImportOutcome:
        """Import any number of mutations. Calls `progress` with the number sent so far.

        Raises what `mutations` raises: what was sent before may be written.
        """
        try:
            response = answer_to(
                self._directory.Import,
                _import_messages(as_iterable(mutations, field="mutations"), reason, progress),
                self._calls.identity.metadata(),
            )
        except CLOSED:
            raise closed() from None
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
        response = self._calls.call(
            self._directory.ReadCourses, message_of(directory_pb2.ReadCoursesRequest, page_size=1)
        )
        return str(response.read_at.token)

    def read(self, wanted: Filter[EntityT]) -> Iterator[Versioned[EntityT]]:
        """The records that match a filter, in order of their key. Fetches pages as needed.

        for found in client.read(MembershipFilter(scope=course_scope("algebra-1"), role="student"))
        """
        wanted = as_filter(wanted)
        read, token = READ_CALLS[type(wanted)], ""
        while True:
            response = self._calls.call(
                getattr(self._directory, read.name), read.format(wanted, Page(_PAGE_SIZE, token))
            )
            records: Iterable[Versioned[EntityT]] = read.records(response)
            for record in records:
                yield record
            token = response.next_page_token
            if not token:
                return

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
        """`read` with the fields of a `AccountFilter`."""
        return self.read(AccountFilter(**wanted))

    def read_access_tokens(self, **wanted: Any) -> Iterator[Versioned[AccessToken]]:
        """`read` with the fields of an `AccessTokenFilter`."""
        return self.read(AccessTokenFilter(**wanted))

    def watch(
        self,
        *,
        after: str = "",
        scopes: Iterable[str | Scope] = (),
        kinds: Iterable[str | EntityKind] = (),
        resume_for_s: float = 60.0,
        on_checkpoint: Callable[[str], None] = lambda _: None,
    ) -> Generator[WatchedChange, None]:
        """Yield every change after a token, or from now on, without end. Blocks until there is one.

        Resumes by itself if the server stops or goes silent, or if this reader was too slow, and yields no
        mutation twice. Raises `CallError` if it cannot resume within `resume_for_s`, if the first connection
        fails, and for errors that a retry cannot fix, such as TOKEN_EXPIRED. Calls `on_checkpoint` with each
        token to resume from, the first time before any change.

        A change with a `PolicyActivation` may change every answer: a client that caches answers empties its
        cache. Filters of scopes let it through; filters of kinds do not, so name its kind in them.
        """
        request = message_of(
            watch_pb2.WatchRequest,
            scopes=[scope_message(as_scope(each)) for each in as_list(scopes, field="scopes")],
            kinds=[kind_number(kind) for kind in as_kinds(kinds)],
            after=message_of(ConsistencyToken, token=after) if after else None,
        )
        following = ResumingWatch(
            self._open_watch, request, resume_for_s=resume_for_s, on_checkpoint=on_checkpoint
        )
        return following.changes()

    def _open_watch(self, request: watch_pb2.WatchRequest) -> Any:
        return self._calls.open_stream(self._watch.Watch, request)

    def _written(self, method: Method[Any], request: object) -> str:
        response = self._calls.call(method, request)
        if not response.replicated:
            log.warning(NOT_REPLICATED)
        return str(response.written_at.token)


def _import_messages(
    mutations: Iterable[Mutation], reason: str, progress: Progress
) -> Iterator[directory_pb2.ImportRequest]:
    rest, sent = iter(mutations), 0
    while chunk := list(islice(rest, MAX_MUTATIONS_PER_WRITE)):
        yield message_of(
            directory_pb2.ImportRequest,
            mutations=[mutation_message(as_mutation(m)) for m in chunk],
            reason=reason,
        )
        sent += len(chunk)
        progress(sent)
