"""The client: its connections, and all of its calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from copy import copy
from functools import partial
from typing import Any, Self

import msgspec

from authz.client.aio.audit import AsyncAuditClient
from authz.client.aio.calls import Calls
from authz.client.aio.directory import AsyncDirectory
from authz.client.aio.feed import CacheFeed
from authz.client.aio.policies import AsyncPolicyClient
from authz.client.aio.privacy import AsyncPrivacyClient
from authz.client.aio.questions import AsyncQuestions
from authz.client.aio.transport import Channel, Hedge, current_loop, open_channel
from authz.client.aio.watch import ResumingWatch
from authz.client.arguments import as_kinds, as_list, as_seconds, message_of, sent_scope
from authz.client.cache import DecisionCache
from authz.client.connection import Connection, identity_of, person_of
from authz.client.last_write import LastWrite
from authz.client.watch import WatchedChange
from authz.domain.entities import EntityKind
from authz.domain.errors import malformed
from authz.domain.ids import Scope, Subject
from authz.v1 import (
    audit_pb2_grpc,
    authorization_pb2_grpc,
    directory_pb2_grpc,
    policy_pb2_grpc,
    privacy_pb2_grpc,
    watch_pb2,
    watch_pb2_grpc,
)
from authz.v1.common_pb2 import ConsistencyToken
from authz.wire.changes import ENTITY_KINDS


class AsyncClient(AsyncQuestions, AsyncDirectory):
    """Calls the servers of one target. A context manager; one is enough for a process to share.

        async with AsyncClient("127.0.0.1:50051") as client:
            if await client.check("user:maya", "read", "material:m-1"):
                ...

    The client connects to every address of its target, and calls them in turn. It reads its own writes.

    Ids are text or parsed, times datetimes with a time zone or `Instant`s. Every call raises `CallError` if
    it fails or is not answered within `timeout_s`, and `InvalidArgumentError` for an argument that cannot be
    sent; `import_mutations` and `watch` have no time limit. `acting_for`, such as `user:ada`, is the person
    that calls are made for: what they write is held to this person's rights and rank. With `use_proxy` the
    connection goes through the proxy that the variable `http_proxy` names, else never.
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
        acting_for: str | Subject | None = None,
        use_proxy: bool = False,
        tls_ca_file: str | None = None,
        tls_certificate_file: str | None = None,
        tls_key_file: str | None = None,
        token: str | Callable[[], str] | None = None,
        token_file: str | None = None,
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
        loop, last_write = current_loop(), LastWrite()
        self._feed = None
        if cache is not None:
            if not isinstance(cache, DecisionCache):
                raise malformed("cache", f"is `{cache}`; give a `DecisionCache()`")
            cache.claim()
            last_write = LastWrite(when_written=cache.clear)
            self._feed = CacheFeed(cache, self._open_watch)
        self._hedge = None
        if hedge_after_s:
            self._hedge = Hedge(connection, as_seconds(hedge_after_s, field="hedge_after_s"))
        channel = open_channel(connection)
        self._use(channel, Calls(timeout_s, identity, last_write, loop))

    def with_options(
        self,
        *,
        timeout_s: float | None = None,
        acting_for: str | Subject | None = None,
        request_id: str | None = None,
    ) -> Self:
        """This client over the same connection, with another time limit, for another person, or with the id
        that its calls have in the logs of the server.

        await client.with_options(timeout_s=0.2).check("user:maya", "read", "material:m-1")

        What is closed with one of them is closed for both.
        """
        calls, other = self._calls, copy(self)
        identity = calls.identity
        if acting_for is not None:
            identity = msgspec.structs.replace(identity, acting_for=person_of(acting_for))
        limit_s = calls.timeout_s if timeout_s is None else timeout_s
        logged_as = calls.request_id if request_id is None else request_id
        other._use(self._channel, Calls(limit_s, identity, calls.last_write, calls.loop, logged_as))
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
        self.policies = AsyncPolicyClient(policy_pb2_grpc.PolicyServiceStub(channel), calls)
        """Publishes and reads the versions of the policy."""
        self.privacy = AsyncPrivacyClient(privacy_pb2_grpc.PrivacyServiceStub(channel), calls)
        """Exports, renames, holds and erases subjects."""
        self.audit = AsyncAuditClient(audit_pb2_grpc.AuditServiceStub(channel), calls)
        """Reads the change log and the decision log."""

    async def __aenter__(self) -> Self:
        """Return the client, which connects at the first call."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        await self.close()

    async def close(self) -> None:
        """Close the connection. A context manager does this by itself."""
        if self._feed is not None:
            self._feed.end()
        await self._channel.close()
        if self._hedge is not None:
            await self._hedge.close()
        if self._feed is not None:
            await self._feed.stop()

    def watch(
        self,
        *,
        after: str = "",
        scopes: Iterable[str | Scope] = (),
        kinds: Iterable[str | EntityKind] = (),
        resume_for_s: float = 60.0,
        on_checkpoint: Callable[[str], None] = lambda _: None,
    ) -> AsyncGenerator[WatchedChange, None]:
        """Yield every change after a token, or from now on, without end. Blocks until there is one.

        Resumes by itself if the server stops or goes silent, or if this reader was too slow, and yields no
        mutation twice. Raises `CallError` if it cannot resume within `resume_for_s`, if the first connection
        fails, and for errors that a retry cannot fix, such as TOKEN_EXPIRED. Calls `on_checkpoint` with each
        token to resume from, the first time before any change.

        Without `kinds`, leaves out the kinds that the caller may not read. To be refused instead
        (PERMISSION_DENIED), name the kinds that you need.

        A change with a `PolicyActivation` may change every answer: a client that caches answers empties its
        cache. Filters of scopes let it through; filters of kinds do not, so name its kind in them.
        """
        request = message_of(
            watch_pb2.WatchRequest,
            scopes=[sent_scope(each, field="scopes") for each in as_list(scopes, field="scopes")],
            kinds=map(ENTITY_KINDS.number, as_kinds(kinds)),
            after=message_of(ConsistencyToken, token=after) if after else None,
        )
        following = ResumingWatch(
            self._open_watch,
            request,
            resume_for_s=resume_for_s,
            on_checkpoint=lambda checkpoint: on_checkpoint(checkpoint.read_up_to.token),
        )
        return following.changes()

    def _open_watch(self, request: watch_pb2.WatchRequest) -> Any:
        return self._calls.open_stream(self._watch.Watch, request)
