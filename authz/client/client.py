"""A synchronous client with typed questions and answers."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import grpc

from authz.client.asking import Asking
from authz.client.credentials import BearerInterceptor, require_private, token_source
from authz.client.errors import error_of
from authz.client.policies import PolicyClient
from authz.client.questions import NOT_REPLICATED, ImportOutcome
from authz.client.touches import warn_of_bare_touches
from authz.client.watch import ResumingWatch, WatchedChange
from authz.domain.entities import (
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
from authz.domain.errors import ErrorReason
from authz.domain.ids import Scope, Subject
from authz.domain.mutations import MAX_MUTATIONS_PER_WRITE, ImportFault, Mutation, Precondition, update
from authz.domain.ports import Page
from authz.v1 import (
    authorization_pb2_grpc,
    directory_pb2,
    directory_pb2_grpc,
    policy_pb2_grpc,
    watch_pb2,
    watch_pb2_grpc,
)
from authz.wire.changes import kind_number
from authz.wire.entities import mutation_message, precondition_message
from authz.wire.filters import READ_CALLS
from authz.wire.values import scope_message, subject_message

log = logging.getLogger(__name__)

T = TypeVar("T")
EntityT = TypeVar("EntityT", bound=Entity)
Progress = Callable[[int], None]

_PAGE_SIZE = 1000
_INITIAL_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 1.0
_RETRIED = (
    "Check",
    "BatchCheck",
    "ListActions",
    "BatchListActions",
    "Explain",
    "ListResources",
    "ListSubjects",
)
_POLICY_READS = (
    "ReadPolicyVersions",
    "ReadPolicyVersion",
    "ValidatePolicy",
    "DiffPolicyVersions",
    "ReadPolicyDrafts",
    "ReadPolicyDraft",
)
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [
                    *({"service": "authz.v1.AuthorizationService", "method": name} for name in _RETRIED),
                    *(
                        {"service": "authz.v1.DirectoryService", "method": read.name}
                        for read in READ_CALLS.values()
                    ),
                    *({"service": "authz.v1.PolicyService", "method": name} for name in _POLICY_READS),
                ],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)


class Client(Asking):
    """A connection to one server. A context manager; safe to use from many threads.

        with Client("127.0.0.1:50051") as client:
            if client.check("user:maya", "read", "material:m-1"):
                ...

    Every call raises `CallError` if it fails or is not answered within `timeout_s`; `import_mutations`
    and `watch` have no time limit. `acting_for`, such as `user:ada`, is the person that calls are made
    for: what they write of memberships and policies is held to this person's rights and rank. With
    `use_proxy` the connection goes through the proxy that the variable `http_proxy` names, else never.
    `tls_ca_file`, a PEM file of the authority that issued the server's certificate, enables TLS.
    `tls_certificate_file` and `tls_key_file`, set together, are the client certificate. `token`, or what it
    returns for each call, or what `token_file` has, is the token or the JWT that proves who calls. It goes
    to another machine only with TLS, unless `allow_plaintext_token`.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = 5.0,
        acting_for: str = "",
        use_proxy: bool = False,
        tls_ca_file: str = "",
        tls_certificate_file: str = "",
        tls_key_file: str = "",
        token: str | Callable[[], str] = "",
        token_file: str = "",
        allow_plaintext_token: bool = False,
    ) -> None:
        options = [("grpc.service_config", _SERVICE_CONFIG), ("grpc.enable_http_proxy", int(use_proxy))]
        if bool(tls_certificate_file) is not bool(tls_key_file) or (tls_key_file and not tls_ca_file):
            raise ValueError("tls_certificate_file and tls_key_file go together, and with tls_ca_file")
        if not tls_ca_file:
            self._channel = grpc.insecure_channel(target, options)
        else:
            credentials = grpc.ssl_channel_credentials(
                Path(tls_ca_file).read_bytes(),
                Path(tls_key_file).read_bytes() if tls_key_file else None,
                Path(tls_certificate_file).read_bytes() if tls_certificate_file else None,
            )
            self._channel = grpc.secure_channel(target, credentials, options)
        source = token_source(token, token_file)
        if source is not None:
            require_private(target, is_encrypted=bool(tls_ca_file) or allow_plaintext_token)
            self._channel = grpc.intercept_channel(self._channel, BearerInterceptor(source))
        self._timeout_s = timeout_s
        self._metadata = (("authz-acting-for", acting_for),) if acting_for else ()
        self._authorization = authorization_pb2_grpc.AuthorizationServiceStub(self._channel)
        self._directory = directory_pb2_grpc.DirectoryServiceStub(self._channel)
        self._watch = watch_pb2_grpc.WatchServiceStub(self._channel)
        self.policies = PolicyClient(policy_pb2_grpc.PolicyServiceStub(self._channel), self._call)
        """Publishes and reads the versions of the policy."""

    def __enter__(self) -> Client:
        """Return the client, which connects at the first call."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._channel.close()

    def write(
        self,
        mutations: Iterable[Mutation],
        *,
        preconditions: Iterable[Precondition] = (),
        idempotency_key: str = "",
        reason: str = "",
    ) -> str:
        """Apply up to 1,000 mutations atomically, if all preconditions hold for the state before the write.

        Returns the token of the state after the write, for `at_least_as_fresh`. Warns of a TOUCH that gives
        only the identifying fields (`BareTouchWarning`). Tries again, within `timeout_s`, while a record with
        the same key is still being removed. Logs a warning if the write is committed and the
        replica of the server's machine has not followed: checks there are refused until it has.
        """
        given = list(mutations)
        warn_of_bare_touches(given)
        request = directory_pb2.WriteRequest(
            mutations=[mutation_message(mutation) for mutation in given],
            preconditions=[precondition_message(precondition) for precondition in preconditions],
            idempotency_key=idempotency_key,
            reason=reason,
        )
        return self._written(self._directory.Write, request)

    def update(self, key: Key, *, reason: str = "", **values: Any) -> str:
        """Change fields of a record that exists: `client.update(CourseKey("algebra-1"), ai_enabled=True)`.

        The other fields stay as they are. Several in one write: `write([update(key, …), …])`. Returns as
        `write`. Raises `InvalidArgumentError` for a name that is no field, or a field that never changes.
        """
        return self.write([update(key, **values)], reason=reason)

    def remove_member(self, subject: Subject, scope: Scope, *, reason: str = "") -> str:
        """Remove a subject from a course and all of its sessions, or from a session: its memberships there,
        and what is shared with it there.

        Returns the token of the state after that, for `at_least_as_fresh`.
        """
        request = directory_pb2.RemoveMemberRequest(
            subject=subject_message(subject), scope=scope_message(scope), reason=reason
        )
        return self._written(self._directory.RemoveMember, request)

    def import_mutations(
        self, mutations: Iterable[Mutation], *, reason: str = "", progress: Progress = lambda _: None
    ) -> ImportOutcome:
        """Import any number of mutations. Calls `progress` with the number sent so far."""
        try:
            response = self._directory.Import(
                _import_messages(mutations, reason, progress), metadata=self._metadata
            )
        except grpc.RpcError as failure:
            raise error_of(failure) from None
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
        response = self._call(self._directory.ReadCourses, directory_pb2.ReadCoursesRequest(page_size=1))
        return str(response.read_at.token)

    def read(self, wanted: Filter[EntityT]) -> Iterator[Versioned[EntityT]]:
        """The records that match a filter, in order of their key. Fetches pages as needed.

        client.read(MembershipFilter(scope=course_scope("algebra-1"), role="student"))
        """
        read, token = READ_CALLS[type(wanted)], ""
        while True:
            response = self._call(
                getattr(self._directory, read.name), read.format(wanted, Page(_PAGE_SIZE, token))
            )
            yield from read.records(response)
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

    def watch(
        self,
        *,
        after: str = "",
        scopes: Iterable[Scope] = (),
        kinds: Iterable[EntityKind] = (),
        resume_for_s: float = 60.0,
        on_checkpoint: Callable[[str], None] = lambda _: None,
    ) -> Generator[WatchedChange, None, None]:
        """Yield every change after a token, or from now on, without end. Blocks until there is one.

        Resumes by itself if the server stops or goes silent, or if this reader was too slow, and yields no
        mutation twice. Raises `CallError` if it cannot resume within `resume_for_s`, if the first connection
        fails, and for errors that a retry cannot fix, such as TOKEN_EXPIRED. Calls `on_checkpoint` with each
        token to resume from, the first time before any change.

        A change with a `PolicyActivation` may change every answer: a client that caches answers empties its
        cache. Filters of scopes let it through; filters of kinds do not, so name its kind in them.
        """
        request = watch_pb2.WatchRequest(
            scopes=[scope_message(scope) for scope in scopes], kinds=[kind_number(kind) for kind in kinds]
        )
        if after:
            request.after.token = after
        following = ResumingWatch(
            self._watch.Watch, request, resume_for_s=resume_for_s, on_checkpoint=on_checkpoint
        )
        return following.changes()

    def _written(self, method: Callable[..., Any], request: object) -> str:
        response = self._call(method, request)
        if not response.replicated:
            log.warning(NOT_REPLICATED)
        return str(response.written_at.token)

    def _call(self, method: Callable[..., T], request: object) -> T:
        end_at, backoff_s = time.monotonic() + self._timeout_s, _INITIAL_BACKOFF_S
        while True:
            try:
                timeout_s = end_at - time.monotonic()
                return method(request, timeout=timeout_s, metadata=self._metadata)
            except grpc.RpcError as failure:
                error = error_of(failure)
                # Nothing was written, and the server is removing what had this key.
                if error.reason != ErrorReason.BEING_REMOVED or time.monotonic() + backoff_s >= end_at:
                    raise error from None
            time.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)


def _import_messages(
    mutations: Iterable[Mutation], reason: str, progress: Progress
) -> Iterator[directory_pb2.ImportRequest]:
    rest, sent = iter(mutations), 0
    while chunk := list(islice(rest, MAX_MUTATIONS_PER_WRITE)):
        yield directory_pb2.ImportRequest(mutations=[mutation_message(m) for m in chunk], reason=reason)
        sent += len(chunk)
        progress(sent)
