"""What is wrong or unsafe about the settings of a server, its files, its database and the server that runs.

It only reads: no migration, no replica that is built, no call of the API.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from authz.access.keys import fetch_keys
from authz.api.limits import Limits, parse_limits
from authz.domain.addresses import is_local
from authz.domain.entities import (
    AccessToken,
    AccessTokenFilter,
    Filter,
    Membership,
    MembershipFilter,
    MembershipStatus,
    PolicyActivationFilter,
    PolicyVersionFilter,
)
from authz.domain.errors import AuthzError, InvalidArgumentError
from authz.domain.ids import PLATFORM, Subject, SubjectType
from authz.domain.instants import US_PER_S, Instant
from authz.domain.ports import MAX_PAGE_SIZE, Page
from authz.domain.vocabulary import API_TYPE, Vocabulary
from authz.engine.clock import TOLERANCE_US
from authz.engine.policies import CompiledPolicies
from authz.replica.shared_state import STATE_FILE, SharedState
from authz.runtime.audit import checkpoint_destinations
from authz.runtime.authentication import authenticates
from authz.runtime.compose import replica_folder, require_inline_types, system_clock
from authz.runtime.envoy import why_not_envoy
from authz.runtime.file_findings import of_certificates, of_database_files, of_files
from authz.runtime.findings import SOON_US, Finding, date_of, note, unsafe, wrong
from authz.runtime.preflight import CHECKS, unreadable_files
from authz.runtime.settings import Settings
from authz.store import (
    Store,
    database_name,
    open_store,
    prepare_store,
    primaries,
    require_own_statements,
    sqlite_file,
)
from authz.store.directory import SqlDirectory

_PROBE_TIMEOUT_S = 5
_LATE_US = 300 * US_PER_S
"""After its interval, a checkpoint is overdue."""
_PUBLISHING_S = 1.0
"""How long a working destination may take."""


def findings(settings: Settings) -> Iterator[Finding]:
    """Everything that is found, the settings first. What ends one section does not end the others."""
    now = system_clock()
    told: list[str] = []
    unreadable = tuple(unreadable_files(settings))
    for section in (
        _of_start(settings),
        _of_transport(settings),
        _of_access(settings),
        of_database_files(settings),
        of_files(settings),
        _of_limits(settings),
        of_certificates(settings, now),
        _of_issuer(settings),
        _of_primaries(settings),
        _of_database(settings, now),
        _of_replica(settings),
        _of_server(settings),
    ):
        for found in _until_it_fails(section):
            # A setting with which nothing can be opened, or a file, is met by several sections.
            names = [found.text, *(f"`{path}`" for path in unreadable if f"`{path}`" in found.text)]
            if not any(name in text for text in told for name in names):
                yield found
            told.append(found.text)


def _until_it_fails(section: Iterator[Finding]) -> Iterator[Finding]:
    try:
        yield from section
    except OSError as error:
        yield wrong(f"cannot use `{error.filename}`: {error.strerror}")
    except AuthzError as error:
        yield wrong(error.with_notes())


def _of_start(settings: Settings) -> Iterator[Finding]:
    for unreadable in unreadable_files(settings).values():
        yield wrong(f"{unreadable.message}; the server does not start with it")
    for check in CHECKS:
        try:
            check(settings)
        except AuthzError as error:
            yield wrong(f"{error.message}; the server does not start with it")
        except OSError as error:
            yield wrong(f"cannot use `{error.filename}`: {error.strerror}; the server does not start with it")


def _of_transport(settings: Settings) -> Iterator[Finding]:
    cause = why_not_envoy(settings) if settings.transport != "grpc" else ""
    if cause and settings.transport == "envoy":
        yield wrong(f"AUTHZ_TRANSPORT is `envoy`, but {cause}")
    elif cause:
        yield note(f"grpc.aio serves in place of Envoy: {cause}")
    if settings.workers == 1 and settings.follow and not is_local(settings.address):
        yield note("one process serves, so a caller that floods it delays all others; set AUTHZ_WORKERS")


def _of_access(settings: Settings) -> Iterator[Finding]:
    here = is_local(settings.address)
    if not authenticates(settings):
        found = note if here else unsafe
        yield found(
            f"every caller that reaches {settings.address} may do everything; set AUTHZ_CALLERS_FILE,"
            " AUTHZ_JWT_ISSUER or AUTHZ_ACCESS_TOKENS"
        )
    if not here and not settings.tls_key_file:
        what = "JWTs and access tokens" if settings.jwt_issuer or settings.access_tokens else "questions"
        yield unsafe(
            f"{what} cross the network to {settings.address} for everybody to read; set"
            " AUTHZ_TLS_CERTIFICATE_FILE and AUTHZ_TLS_KEY_FILE, unless a mesh encrypts"
        )
    if settings.metrics_address and not is_local(settings.metrics_address):
        yield note(f"let only your monitoring reach {settings.metrics_address}; it asks for no credential")


def _of_limits(settings: Settings) -> Iterator[Finding]:
    file = settings.limits_file
    if not file:
        if not is_local(settings.address):
            yield note("a caller may make as many calls as the server can answer; set AUTHZ_LIMITS_FILE")
        return
    if settings.workers > 1:
        yield note(
            f"each of the {settings.workers} workers counts for itself what {file} allows, so a caller that"
            f" is connected to all of them may make {settings.workers} times as many calls"
        )


def _limits(settings: Settings) -> Limits:
    return parse_limits(Path(settings.limits_file).read_bytes())


def _of_issuer(settings: Settings) -> Iterator[Finding]:
    if not settings.jwt_jwks_url:
        return
    try:
        fetch_keys(settings.jwt_jwks_url)
    except (ConnectionError, InvalidArgumentError) as error:
        yield wrong(
            f"AUTHZ_JWT_JWKS_URL gives no keys ({error}); a server that has none refuses every JWT, and one"
            " that has some uses them for a day"
        )


def _of_database(settings: Settings, now: Instant) -> Iterator[Finding]:
    file = sqlite_file(settings.database_url)
    if file is not None and not file.exists():
        yield note(f"there is no database {file} yet; the first start makes it")
        return
    try:
        if file is None:
            require_own_statements(settings.database_url, settings.database_password_file)
        prepare_store(settings.database_url, password_file=settings.database_password_file, migrate=False)
        store = open_store(
            settings.database_url,
            vocabularies=CompiledPolicies().vocabulary,
            clock=system_clock,
            password_file=settings.database_password_file,
        )
        with closing(store):
            yield from _of_clock(store.directory)
            yield from _of_callers(settings, store.directory, now)
            yield from _of_checkpoints(settings, store, now)
            yield from _of_retention(store)
    except AuthzError as error:
        yield wrong(error.with_notes())


def _of_primaries(settings: Settings) -> Iterator[Finding]:
    found = primaries(settings.database_url, settings.database_password_file)
    if len(found) > 1:
        each = ", ".join(f"`{primary.host}` on timeline {primary.timeline}" for primary in found)
        yield wrong(
            f"several hosts in AUTHZ_DATABASE_URL take writes: {each}; stop each but that of the highest"
            " timeline, and make standbys of them"
        )
    for primary in found:
        if primary.lacks_standby:
            yield wrong(
                f"each write waits for a standby of `{primary.host}`, and none is connected; start the"
                " standby, or reset `synchronous_standby_names` there"
            )


def _of_clock(directory: SqlDirectory) -> Iterator[Finding]:
    behind_us = directory.head().committed_at - system_clock()
    if behind_us > TOLERANCE_US:
        yield wrong(
            f"the clock of this machine is {behind_us / US_PER_S:.0f} s behind the newest revision of the"
            " change log, so decisions use the time of that revision; correct the clock, or that of the"
            " machine that wrote it"
        )


def _of_callers(settings: Settings, directory: SqlDirectory, now: Instant) -> Iterator[Finding]:
    activations = _all(directory, PolicyActivationFilter(scope=PLATFORM))
    if not activations:
        yield wrong("no version of the policy is active; run `authz migrate`")
        return
    active = activations[0]
    (version,) = _all(directory, PolicyVersionFilter(scope=PLATFORM, number=active.number))
    vocabulary = CompiledPolicies().vocabulary(active, lambda: version)
    try:
        require_inline_types(settings, vocabulary)
    except AuthzError as error:
        yield wrong(f"{error.message}; the server does not start with it")
    held = [
        each
        for each in _all(directory, MembershipFilter(scope=PLATFORM, statuses=(MembershipStatus.ACTIVE,)))
        if each.ends_at is None or each.ends_at > now
    ]
    if not any(each.role in vocabulary.administrators for each in held):
        yield note("nobody may edit the policy; `authz admin grant user:<id> platform_admin`")
    if authenticates(settings):
        yield from _of_authenticated(settings, vocabulary, active.number, held)
    yield from _of_tokens(directory, now)


def _of_authenticated(
    settings: Settings, vocabulary: Vocabulary, version: int, held: Sequence[Membership]
) -> Iterator[Finding]:
    """The reasons why authenticated callers are refused, from the memberships on the platform."""
    callers = [each for each in held if each.subject.type is SubjectType.SERVICE]
    if API_TYPE not in vocabulary.types:
        yield wrong(
            f"version {version} of the policy has no type `{API_TYPE}`, so every call is refused;"
            " add the rows about callers of the shipped policy, and publish it with `authz policy apply`"
        )
    elif not any(each.role in vocabulary.granters for each in callers):
        yield note("no caller may let others in; `authz admin grant service:<id> operator`")
    if settings.limits_file:
        yield from _of_limited(settings, {each.subject for each in callers})


def _of_limited(settings: Settings, callers: Collection[Subject]) -> Iterator[Finding]:
    limited: set[Subject] = set()
    with suppress(AuthzError, OSError):  # said already
        limited = {caller for caller, _ in _limits(settings) if caller is not None}
    for caller in sorted(limited.difference(callers)):
        yield note(f"{settings.limits_file} has limits of `{caller}`, which has no role; check the name")


def _of_tokens(directory: SqlDirectory, now: Instant) -> Iterator[Finding]:
    tokens: list[AccessToken] = _all(directory, AccessTokenFilter())
    for token in tokens:
        if now < token.ends_at < now + SOON_US:
            yield note(
                f"access token {token.id} of {token.subject} ends on {date_of(token.ends_at)}; create the"
                f" next, then `authz token revoke {token.id}`"
            )
    if ended := [token for token in tokens if token.ends_at <= now]:
        last = max(ended, key=lambda token: token.ends_at)
        yield note(
            f"{len(ended)} access tokens have ended, the last one, {last.id} of {last.subject}, on"
            f" {date_of(last.ends_at)}; `authz token list` shows them, and `authz token revoke` removes one"
        )


def _of_checkpoints(settings: Settings, store: Store, now: Instant) -> Iterator[Finding]:
    if not settings.checkpoint_key_file:
        if not is_local(settings.address):
            yield note(
                "nobody can find out whether the change log was rewritten; make a key with `authz audit"
                " keygen`, and set AUTHZ_CHECKPOINT_KEY_FILE"
            )
        return
    if not settings.checkpoint_destinations:
        yield note(
            "signed checkpoints stay in the database, whose owner can replace them; set"
            " AUTHZ_CHECKPOINT_PUBLISH, or have somebody else fetch them"
        )
    newest, revision = store.checkpoints.newest(), store.directory.head().revision
    if newest.size < revision and newest.next_at + _LATE_US < now:
        yield wrong(
            f"the newest checkpoint signs {newest.size} of {revision} revisions; start a server that has"
            " AUTHZ_CHECKPOINT_KEY_FILE, or see in its log why it signs none"
        )
    elif missing := _missing(settings, store):
        names = ", ".join(f"`{name}`" for name in sorted(missing))
        yield wrong(
            f"the checkpoint of {newest.size} revisions is not published to {names}; the line `checkpoint not"
            " published` in the log of the server says why, unless it was started without this destination"
        )


def _missing(settings: Settings, store: Store) -> frozenset[str]:
    """The destinations that do not have the newest checkpoint, nor a moment later."""
    names = [each.name for each in checkpoint_destinations(settings)]
    if store.checkpoints.newest().missing_at(names):
        time.sleep(_PUBLISHING_S)
    return store.checkpoints.newest().missing_at(names)


def _of_retention(store: Store) -> Iterator[Finding]:
    if store.retention.purge_progress() is not None:
        yield note(
            "some data is older than its retention period; a running server purges it in bounded steps, see"
            " `authz privacy retention show`"
        )


def _all(directory: SqlDirectory, wanted: Filter[Any]) -> list[Any]:
    found: list[Any] = []
    token = ""
    while True:
        listing = directory.read(wanted, Page(MAX_PAGE_SIZE, token))
        found += [each.entity for each in listing.items]
        token = listing.next_token
        if not token:
            return found


def _of_replica(settings: Settings) -> Iterator[Finding]:
    folder = replica_folder(settings)
    if not folder.exists():
        yield note(f"there is no replica {folder} yet; `authz serve` or `authz follow` builds it")
        return
    if not (folder / STATE_FILE).exists():
        yield wrong(f"{folder} is there and holds no replica; set AUTHZ_REPLICA_DIR")
        return
    with closing(SharedState(folder)) as state:
        if not state.follows(database_name(settings.database_url)):
            yield wrong(f"the replica {folder} is not of this database; set AUTHZ_REPLICA_DIR")
        elif state.staleness_s() > settings.max_staleness_s:
            yield wrong(f"nothing keeps the replica {folder} current; run `authz follow`")


def _of_server(settings: Settings) -> Iterator[Finding]:
    if not settings.metrics_address:
        yield note("no running server was asked; set AUTHZ_METRICS_ADDRESS to have it probed")
        return
    host, _, port = settings.metrics_address.rpartition(":")
    address = f"127.0.0.1:{port}" if host == "0.0.0.0" else settings.metrics_address  # noqa: S104  of all
    for path in ("/livez", "/readyz"):
        try:
            urllib.request.urlopen(f"http://{address}{path}", timeout=_PROBE_TIMEOUT_S).close()
        except urllib.error.HTTPError as error:
            yield wrong(f"the server at {address} fails {path}: {error.read().decode().strip()}")
        except OSError as error:
            yield wrong(f"no server answers at {address}{path}: {error}")
            return
