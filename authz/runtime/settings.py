"""Settings of the server, from flags and `AUTHZ_*` variables: validated once, frozen."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from authz.domain.errors import invalid
from authz.domain.vocabulary import suggest

PREFIX = "AUTHZ_"
_LAST_PORT = 65_535
_SERVICE_LINK = re.compile(
    r"AUTHZ_(\w+?_)??(SERVICE_HOST|SERVICE_PORT(_\w+)?|(?P<url>PORT(_\d+_(TCP|UDP|SCTP))?)"
    r"|PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR))"
)
MAX_SOCKET_PATH_BYTES = 107
_MAX_NAME_LENGTH = 4096
"""As `ForgetReplica` accepts."""
Positive = Annotated[int, Meta(ge=1)]
Bound = Annotated[int, Meta(ge=1, le=2**31 - 1)]
"""The transports count in 31 bits."""
Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]
"""At most a year: clocks take no infinite timeout."""


STDOUT, TABLE, OTLP, FILE_PREFIX, HTTPS_PREFIX = "stdout", "table", "otlp", "file:", "https://"
"""Destinations of the decision log and of checkpoints; the last two begin with these."""

_NAMED = re.compile(r"`(\w+)`")
_EXPECTED = re.compile(r"Expected `(\w+)`(?:, got `\w+`)?")
_VALUES = {"int": "a whole number", "float": "a number", "bool": "`true` or `false`"}
"""What to give for each type that msgspec expects."""
_CLIENT_VARIABLES = ("token_file",)
"""Variables of commands that call a server."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting with its description and default. The variable is `AUTHZ_` and the name in capitals."""

    address: Annotated[str, "Where to listen: host:port (port 0: any free port) or unix:/path."] = (
        "127.0.0.1:50051"
    )
    transport: Annotated[
        Literal["auto", "envoy", "grpc"],
        "What serves gRPC: `envoy`, `grpc` (grpc.aio), or `auto`: Envoy where it is installed and can run.",
    ] = "auto"
    database_url: Annotated[
        str, "sqlite:///relative.db, sqlite:////absolute.db or postgresql://user@host/name."
    ] = "sqlite:///authz.db"
    database_password_file: Annotated[
        str,
        "File with the password for PostgreSQL, read for each connection. Empty: use the URL or libpq.",
    ] = ""
    migrate_on_start: Annotated[bool, "Whether to migrate the database schema at start."] = True
    inline_types: Annotated[
        str, "Types that a request may describe instead of registering, separated by commas."
    ] = ""
    workers: Annotated[int, Meta(ge=1, le=256), "Number of serving processes."] = 1
    follow: Annotated[
        bool, "Whether this process keeps the replica up to date; if not, run `authz follow`."
    ] = True
    replica_dir: Annotated[
        str,
        "Folder of this machine's replica. Empty: next to a SQLite file, else authz-<database>-<…>.replica.",
    ] = ""
    replica_name: Annotated[
        str,
        "Name of this machine's replica in erasure certificates. Empty: host name and folder."
        " `-`: not listed, for a replica that is deleted together with its server.",
    ] = ""
    replica_max_bytes: Annotated[
        int, Meta(ge=1 << 20), "Maximum size of the replica. Reserves address space, not memory or disk."
    ] = 64 << 30
    schedule_as_batch: Annotated[bool, "Whether to run under Linux's SCHED_BATCH."] = False
    max_staleness_s: Annotated[
        Seconds, "Seconds without news from the database after which the server refuses checks."
    ] = 30.0
    freshness_timeout_s: Annotated[
        Seconds,
        "Maximum seconds that a call waits for the state that its `consistency` requires.",
    ] = 5.0
    replication_timeout_s: Annotated[
        Seconds,
        "Seconds that a write waits for this machine's replica. Then the server answers it, and this machine"
        " refuses checks until the replica has the write.",
    ] = 2.0
    erasure_grace_s: Annotated[
        float,
        Meta(ge=0, le=86_400),
        "Seconds between the deletions of an erasure and its rewrite of the change log. Replicas and watches"
        " that are further behind must read everything again.",
    ] = 2.0
    metrics_address: Annotated[
        str, "host:port of plain HTTP with /livez, /readyz and /metrics. Empty: none."
    ] = ""
    tls_certificate_file: Annotated[str, "PEM chain of the server. Empty: no TLS."] = ""
    tls_key_file: Annotated[str, "PEM key of the server."] = ""
    tls_client_ca_file: Annotated[
        str, "PEM of the authority that must have signed client certificates. Empty: require none."
    ] = ""
    callers_file: Annotated[
        str,
        "TOML file that maps names in client certificates to callers. Empty: certificates name no caller.",
    ] = ""
    jwt_issuer: Annotated[str, "Required `iss` of JWTs. Empty: accept no JWTs."] = ""
    jwt_audience: Annotated[str, "Required `aud` of JWTs: the name of this service."] = ""
    jwt_algorithms: Annotated[
        str, "Accepted algorithms of JWTs, separated by commas; only asymmetric ones."
    ] = "RS256,ES256,EdDSA"
    jwt_types: Annotated[str, "Accepted `typ` of JWTs, separated by commas."] = "at+jwt,JWT"
    jwt_keys_file: Annotated[
        str, "PEM or JWKS file with the public keys of the issuer, reloaded when it changes."
    ] = ""
    jwt_jwks_url: Annotated[str, "https URL of the issuer's JWKS, instead of a file."] = ""
    access_tokens: Annotated[bool, "Whether to accept the tokens of `authz token create`."] = False
    allow_unauthenticated: Annotated[
        bool, "Whether other machines may do everything without proving who calls."
    ] = False
    max_checks: Annotated[
        Positive,
        "Concurrency limit of checks: more are shed. One client gets at most half of each such limit.",
    ] = 1024
    max_batches: Annotated[Positive, "Concurrency limit of batches of questions."] = 64
    max_lists: Annotated[Positive, "Concurrency limit of lists, plans and previews."] = 64
    max_reads: Annotated[Positive, "Concurrency limit of reads and exports."] = 64
    max_writes: Annotated[Positive, "Concurrency limit of writes."] = 256
    max_imports: Annotated[Positive, "Concurrency limit of imports."] = 16
    max_watches: Annotated[Positive, "Concurrency limit of watches."] = 64
    max_policy_calls: Annotated[Positive, "Concurrency limit of edits, proofs and tests of the policy."] = 32
    limits_file: Annotated[
        str,
        "TOML file with the rate limits of callers, reloaded when it changes. Empty: no limits.",
    ] = ""
    import_idle_timeout_s: Annotated[
        Seconds, "Seconds without a message from its client after which an import is ended."
    ] = 30.0
    max_import_s: Annotated[Seconds, "Maximum duration of an import, in seconds."] = 3600.0
    max_watch_s: Annotated[
        Seconds, "Maximum duration of a watch, in seconds; its client resumes where it ended."
    ] = 3600.0
    watch_write_timeout_s: Annotated[
        Seconds, "Seconds that a watch, an export or a preview waits for its client to read."
    ] = 10.0
    min_ping_interval_s: Annotated[
        Seconds,
        "Minimum seconds between a client's keepalive pings; grpc.aio closes connections that ping more.",
    ] = 4.0
    keepalive_interval_s: Annotated[
        Seconds, "Seconds of silence after which the server sends a keepalive ping."
    ] = 30.0
    keepalive_timeout_s: Annotated[Seconds, "Seconds that a client has to answer a keepalive ping."] = 10.0
    max_connections: Annotated[
        Bound, "Maximum connections of a process; fewer if its limit on open files is lower."
    ] = 10_000
    max_connection_age_s: Annotated[
        Seconds,
        "Seconds after which a client must reconnect, to find new servers. Calls in flight continue.",
    ] = 3600.0
    max_streams: Annotated[
        Bound, "Maximum calls in flight on one connection; the client queues the others."
    ] = 1024
    max_header_bytes: Annotated[int, Meta(ge=1024, le=8 << 20), "Maximum size of the metadata of a call."] = (
        16 * 1024
    )
    max_message_bytes: Annotated[Bound, "Maximum size of a request or an answer."] = 4 * 1024 * 1024
    read_threads: Annotated[Positive, "Threads that read the database; checks need none."] = 4
    stop_grace_s: Annotated[
        float, Meta(ge=0, le=31_536_000), "Seconds for calls in flight to finish after SIGTERM."
    ] = 10.0
    traces: Annotated[
        bool,
        "Whether to export OpenTelemetry traces (see the OTEL_ variables). Needs `qalamchat-authz[otel]`.",
    ] = False
    decision_log: Annotated[
        str,
        "Where to log decisions, separated by commas: `stdout`, `file:<path>`, `table`, `otlp` (see the OTEL_"
        " variables; needs `qalamchat-authz[otel]`). Empty: nowhere.",
    ] = ""
    decision_log_sample_rate: Annotated[
        float,
        Meta(ge=0, le=1),
        "Sampling rate of allowed decisions. Denials, AI decisions, privileged and refused calls are always"
        " logged.",
    ] = 1.0
    decision_log_max_bytes: Annotated[
        int, Meta(ge=1 << 16), "Size at which the file of decisions is rotated."
    ] = 100 << 20
    decision_log_files: Annotated[
        int, Meta(ge=1, le=1000), "Number of rotated files of decisions to keep."
    ] = 9
    checkpoint_key_file: Annotated[
        str,
        "File with the key of `authz audit keygen` that signs checkpoints of the change log. Empty: none.",
    ] = ""
    checkpoint_publish: Annotated[
        str,
        "Where to publish signed checkpoints, separated by commas: `stdout`, `file:<path>`, an https address."
        " Empty: only AuditService.ReadCheckpoint has the newest.",
    ] = ""
    checkpoint_interval_s: Annotated[
        Seconds, "Seconds between two checkpoints, if there are changes to sign."
    ] = 60.0
    log_level: Annotated[Literal["debug", "info", "warning", "error"], "debug, info, warning or error."] = (
        "info"
    )

    @property
    def inline_type_names(self) -> frozenset[str]:
        """`inline_types` as a set."""
        return frozenset(split_names(self.inline_types))

    @property
    def decision_sinks(self) -> tuple[str, ...]:
        """`decision_log` as names."""
        return split_names(self.decision_log)

    @property
    def checkpoint_destinations(self) -> tuple[str, ...]:
        """`checkpoint_publish` as names."""
        return split_names(self.checkpoint_publish)


def split_names(text: str) -> tuple[str, ...]:
    """The names in a setting that are separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def load_settings(
    overrides: Mapping[str, str | bool | None] | None = None, *, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Settings from `overrides` first, then from the environment, then from the defaults.

    Raises `InvalidArgumentError` that names the variable, also for an `AUTHZ_` variable that is no setting: a
    misspelt name must not silently mean the default.
    """
    known = set(Settings.__struct_fields__)
    given: dict[str, str | bool] = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in _CLIENT_VARIABLES or (name not in known and _is_service_link(variable, value)):
            continue
        if name not in known:
            # Without the prefix, by which all names are alike.
            meant = _NAMED.sub(lambda found: f"`{PREFIX}{found[1].upper()}`", suggest(name, known))
            problem = f"`{variable}` is not a setting; {meant}"
            raise invalid(variable, f"{problem} (`authz serve --help` lists all)")
        given[name] = value
    given |= {name: value for name, value in (overrides or {}).items() if value is not None}
    try:
        settings = msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).rpartition(" - at `$.")
        name = place.rstrip("`")
        variable, choices = PREFIX + name.upper(), _choices_of(name)
        problem = _EXPECTED.sub(lambda found: f"give {_VALUES.get(found[1], found[1])}", problem)
        if choices:
            problem = f"give one of {', '.join(choices)}"
        raise invalid(variable, f"{variable} is `{given[name]}`; {problem}") from None
    _validate(settings)
    return settings


def _choices_of(name: str) -> tuple[str, ...]:
    """The values that a setting may have; none if it may have others."""
    (hint,) = (field.type for field in msgspec.structs.fields(Settings) if field.name == name)
    choices: tuple[str, ...] = get_args(get_args(hint)[0])
    return choices


def _is_service_link(variable: str, value: str) -> bool:
    """Whether Kubernetes or Docker made a variable, for another service named `authz`.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    """
    made = _SERVICE_LINK.fullmatch(variable)
    return made is not None and (made["url"] is None or "://" in value)


def _validate(settings: Settings) -> None:
    if not settings.address.startswith("unix:"):
        _require_address("address", settings.address)
    elif not settings.address.removeprefix("unix:").removeprefix("//"):
        message = f"AUTHZ_ADDRESS is `{settings.address}`; write it like `unix:/run/authz/s`"
        raise invalid("AUTHZ_ADDRESS", message)
    elif len(os.fsencode(settings.address.removeprefix("unix:"))) > MAX_SOCKET_PATH_BYTES:
        raise invalid(
            "AUTHZ_ADDRESS",
            f"AUTHZ_ADDRESS is `{settings.address}`, and the path of a Unix socket has at most"
            f" {MAX_SOCKET_PATH_BYTES} bytes; choose a shorter one",
        )
    if settings.address.startswith("unix:") and settings.workers > 1:
        raise invalid(
            "AUTHZ_WORKERS",
            f"AUTHZ_WORKERS is `{settings.workers}`, and processes cannot share the Unix socket of"
            " AUTHZ_ADDRESS; set AUTHZ_WORKERS=1, or AUTHZ_ADDRESS to host:port",
        )
    if settings.metrics_address:
        _require_address("metrics_address", settings.metrics_address)
    if bool(settings.tls_certificate_file) is not bool(settings.tls_key_file):
        raise invalid(
            "AUTHZ_TLS_KEY_FILE", "AUTHZ_TLS_CERTIFICATE_FILE and AUTHZ_TLS_KEY_FILE go together; set both"
        )
    if settings.tls_client_ca_file and not settings.tls_key_file:
        raise invalid("AUTHZ_TLS_CLIENT_CA_FILE", "AUTHZ_TLS_CLIENT_CA_FILE needs a certificate and a key")
    name = settings.replica_name
    if not name.isprintable() or len(name) > _MAX_NAME_LENGTH:
        problem = (
            f"AUTHZ_REPLICA_NAME is {name[:100]!r}; give at most {_MAX_NAME_LENGTH} printable characters"
        )
        raise invalid("AUTHZ_REPLICA_NAME", problem)
    _validate_decision_log(settings)
    _validate_checkpoints(settings)


def _validate_decision_log(settings: Settings) -> None:
    variable, sinks = "AUTHZ_DECISION_LOG", settings.decision_sinks
    kinds = [sink.partition(":")[0] for sink in sinks]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise invalid(variable, f"{variable} names `{kind}` twice; name each place once")
    files = [sink for sink in sinks if sink not in (STDOUT, TABLE, OTLP)]
    _require_files(variable, files, known="`stdout`, `table`, `otlp` and `file:<path>`")


def _validate_checkpoints(settings: Settings) -> None:
    variable, destinations = "AUTHZ_CHECKPOINT_PUBLISH", settings.checkpoint_destinations
    if destinations and not settings.checkpoint_key_file:
        raise invalid(
            variable, f"{variable} needs AUTHZ_CHECKPOINT_KEY_FILE; make a key with `authz audit keygen`"
        )
    files = [each for each in destinations if each != STDOUT and not each.startswith(HTTPS_PREFIX)]
    _require_files(variable, files, known="`stdout`, `file:<path>` and https addresses")


def _require_files(variable: str, destinations: list[str], *, known: str) -> None:
    """Raise `InvalidArgumentError` unless each destination is `file:<path>`, in a folder to write to."""
    for name in destinations:
        path = Path(name.removeprefix(FILE_PREFIX))
        if not name.startswith(FILE_PREFIX):
            raise invalid(variable, f"{variable} names `{name}`; known are {known}")
        folder = path.absolute().parent
        if not os.access(folder, os.W_OK | os.X_OK) or not path.name or path.is_dir():
            raise invalid(
                variable,
                f"{variable} names the file `{path}`; name a file in a folder that exists and that the"
                " server's user may write to",
            )


def _require_address(name: str, text: str) -> None:
    host, _, port = text.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port) <= _LAST_PORT):
        variable = PREFIX + name.upper()
        raise invalid(variable, f"{variable} is `{text}`; write it like `127.0.0.1:50051`")
