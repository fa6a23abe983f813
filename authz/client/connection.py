"""How a client reaches its server, and what it shows of itself there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import grpc
import msgspec

from authz.client.arguments import as_flag, as_path, as_subject, contents_of
from authz.domain.addresses import is_local
from authz.domain.errors import malformed
from authz.domain.ids import Subject, SubjectType
from authz.v1 import audit_pb2, authorization_pb2, directory_pb2, policy_pb2, privacy_pb2

READING = (
    *("Authorize", "BatchCheck", "BatchList", "Check", "Diff", "Explain", "List", "Plan"),
    *("Read", "Validate"),
)
"""How the names of the methods begin that change nothing. If they are no streams, gRPC repeats them.
The requests are named after them."""
_RETRIED = [
    {"service": service.full_name, "method": method.name}
    for file in (audit_pb2, authorization_pb2, directory_pb2, policy_pb2, privacy_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.name.startswith(READING) and not method.server_streaming
]
_SERVICE_CONFIG = json.dumps(
    {
        # A retry goes to the next server. By default it would go to the one that refused.
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": _RETRIED,
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)
"""Source: https://grpc.io/docs/guides/retry, https://grpc.io/docs/guides/custom-load-balancing"""
_RECONNECT_BACKOFF_MS = 100
"""Between attempts to connect, while every call fails. Less than the retries of a check last, so that the
first check after an outage is answered. gRPC's default grows to two minutes."""
_MIN_RESOLUTION_INTERVAL_MS = 1_000
"""By gRPC's default of 30 s, a client whose servers were all replaced would find the new ones that late."""
_PING_INTERVAL_MS = 10_000
_PING_TIMEOUT_MS = 4_000
"""How long a server has to answer a ping, and its host to confirm what was sent. Less than the default
timeout of a call, so that a check is still retried whose host vanished. Without pings, a connection stays
open for a quarter of an hour, and each call that takes it waits for its timeout."""
_PORT = re.compile(r"^(?!unix|vsock).*[^:]:([0-9]+)$")
_SCHEME = re.compile(r"[a-z][a-z0-9-]*:(?!:|$)")
"""Of a name for one of gRPC's resolvers, like `unix:/run/authz.sock`.
Source: https://github.com/grpc/grpc/blob/master/doc/naming.md"""
_SCHEMES_OF_ADDRESSES = ("dns", "ipv4", "ipv6")
_MAX_PORT = 65_535
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""Source: RFC 6750, 2.1."""


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of a client that are about its channel; see `Client`."""

    target: str
    use_proxy: bool = False
    tls_ca_file: str | None = None
    tls_certificate_file: str | None = None
    tls_key_file: str | None = None

    def __post_init__(self) -> None:
        """Raise `InvalidArgumentError` for a target that is none, or an option of another type."""
        as_flag(self.use_proxy, field="use_proxy")
        if not isinstance(self.target, str) or not self.target:
            raise malformed("target", f"is `{self.target}`; give text like `127.0.0.1:50051`")
        if self.target.startswith(("http://", "https://", "grpc://")):
            raise malformed("target", f"is the URL `{self.target}`; give host:port, like `127.0.0.1:50051`")
        port = _PORT.search(self.target)
        if port is None and not _SCHEME.match(self.target):  # gRPC would try the port of HTTPS
            raise malformed(
                "target", f"is `{self.target}`, without a port; give host:port, like `authz.internal:50051`"
            )
        if port is not None and int(port[1]) > _MAX_PORT:  # gRPC would connect to another port
            raise malformed("target", f"is `{self.target}`; a port is at most {_MAX_PORT}")

    def options(self, *, is_separate: bool = False) -> list[tuple[str, str | int]]:
        """Arguments of a gRPC channel. One that is separate shares its connections with no other."""
        return [
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.initial_reconnect_backoff_ms", _RECONNECT_BACKOFF_MS),
            ("grpc.max_reconnect_backoff_ms", _RECONNECT_BACKOFF_MS),
            ("grpc.dns_min_time_between_resolutions_ms", _MIN_RESOLUTION_INTERVAL_MS),
            ("grpc.keepalive_time_ms", _PING_INTERVAL_MS),
            ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
            # Of the pings by which gRPC measures a connection: else they, too, are waited for, for a minute.
            ("grpc.http2.ping_timeout_ms", _PING_TIMEOUT_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.enable_http_proxy", int(self.use_proxy)),
            ("grpc.use_local_subchannel_pool", int(is_separate)),
        ]

    def credentials(self) -> grpc.ChannelCredentials | None:
        """The files of TLS, read; None without TLS.

        Raises `InvalidArgumentError` for files that do not go together, or that cannot be read.
        """
        pair = (self.tls_certificate_file, self.tls_key_file)
        if pair != (None, None) and None in (*pair, self.tls_ca_file):
            raise malformed(
                "tls_certificate_file", "and tls_key_file go together, and with tls_ca_file; give all three"
            )
        if self.tls_ca_file is None:
            return None
        authority, certificate, key = (
            None if file is None else contents_of(file, field=name)
            for name in ("tls_ca_file", "tls_certificate_file", "tls_key_file")
            for file in [getattr(self, name)]
        )
        return grpc.ssl_channel_credentials(authority, key, certificate)


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What a client shows of itself with each call, besides a certificate."""

    acting_for: str
    credential: Callable[[], str] | None
    """What gives the header that shows the token."""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of the next call.

        Raises `InvalidArgumentError` if there is no token.
        """
        person = (("authz-acting-for", self.acting_for),) if self.acting_for else ()
        return (*person, ("authorization", self.credential())) if self.credential else person


def person_of(acting_for: str | Subject | None) -> str:
    """The person that calls are made for, as text; empty for None.

    Raises `InvalidArgumentError` for what is no user, also for an empty text: such a call would have all
    rights of its caller.
    """
    if acting_for is None:
        return ""
    person = as_subject(acting_for, field="acting_for")
    if person.type is not SubjectType.USER:
        raise malformed("acting_for", f"is `{person}`, which is no person; name `user:<id>`")
    return str(person)


def identity_of(
    connection: Connection,
    acting_for: str | Subject | None,
    token: str | Callable[[], str] | None,
    token_file: str | None,
    *,
    allow_plaintext_token: bool,
) -> Identity:
    """What the arguments of `Client` say. Raises `InvalidArgumentError` for a token that all could read."""
    credential = _credential(token, token_file)
    if credential is not None:
        is_encrypted = connection.tls_ca_file is not None or allow_plaintext_token
        _require_private(connection.target, is_encrypted=is_encrypted)
    return Identity(acting_for=person_of(acting_for), credential=credential)


def _bearer(token: str, *, field: str = "token") -> str:
    """The header that shows a token. Raises `InvalidArgumentError` for text that cannot be one."""
    if not isinstance(token, str):
        raise malformed(field, f"is a {type(token).__name__}; give text, or a function that returns it")
    if not _TOKEN.fullmatch(token):
        raise malformed(
            field, "is empty, or is more than a token or a JWT; give exactly what its issuer printed"
        )
    return f"Bearer {token}"


def _credential(token: str | Callable[[], str] | None, token_file: str | None) -> Callable[[], str] | None:
    """What gives the header for a call, or raises `InvalidArgumentError`; None without a token.

    A file is read for each call, so that one that is renewed counts from the next call on. Raises
    `InvalidArgumentError` for a file and a token, and for a token that is none, such as an empty one.
    """
    if token_file is not None:
        if token is not None:
            raise malformed("token", "is given twice; give a token or a file")
        file = as_path(token_file, field="token_file")
        return lambda: _bearer(_text_in(file), field="token_file")
    if callable(token):
        return lambda: _bearer(_returned_by(token))
    if token is None:
        return None
    header = _bearer(token)
    return lambda: header


def _text_in(file: Path) -> str:
    return contents_of(file, field="token_file").decode(errors="replace").strip()


def _returned_by(token: Callable[[], str]) -> str:
    try:
        return token()
    except Exception as error:
        raise malformed("token", f"is a function that raised {type(error).__name__}") from error


def _addresses_of(target: str) -> list[str]:
    """The addresses in a target of gRPC, without its scheme: those of a list, such as
    `ipv4:10.0.0.7:50051,10.0.0.8:50051`, or that of `dns:///localhost:50051`.

    In `dns://10.0.0.1/localhost`, the name has what this other server says, so it stays whole.
    """
    scheme, _, addresses = target.partition(":")
    return addresses.removeprefix("///").split(",") if scheme in _SCHEMES_OF_ADDRESSES else [target]


def _require_private(target: str, *, is_encrypted: bool) -> None:
    """Raise `InvalidArgumentError` if a token would cross a network for everybody to read."""
    if not is_encrypted and not all(map(is_local, _addresses_of(target))):
        raise malformed(
            "token",
            f"would be sent unencrypted to `{target}`; set `tls_ca_file`,"
            " or `allow_plaintext_token` if the network is encrypted",
        )
