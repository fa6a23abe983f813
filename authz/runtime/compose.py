"""Opens what a process needs by its settings: the database, the replica, the follower, traces."""

from __future__ import annotations

import mmap
import os
import shlex
import stat
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType

import structlog

from authz.domain.decisions import STRUCTURAL_TYPES
from authz.domain.errors import ErrorReason, InvalidArgumentError, UnavailableError, invalid, malformed
from authz.domain.files import files_text
from authz.domain.instants import Instant
from authz.domain.tokens import TokenKeys
from authz.domain.vocabulary import Vocabulary
from authz.engine.publish import first_version
from authz.policy.load import policy_directory, read_folder
from authz.replica.folder import make_private_folder
from authz.replica.follower import Follower
from authz.replica.shared_state import STATE_FILE, SharedState
from authz.replica.view import ReplicaView
from authz.runtime.settings import Settings
from authz.store import FirstWrite, companion_path, database_name, prepare_store, sqlite_file
from authz.store.directory import SqlDirectory

log = structlog.get_logger()

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def system_clock() -> Instant:
    """The time now, from the machine."""
    return time.time_ns() // 1000


def require_inline_types(settings: Settings, vocabulary: Vocabulary) -> None:
    """Raise `InvalidArgumentError` for a name in AUTHZ_INLINE_TYPES that no request may describe."""
    for name in sorted(settings.inline_type_names):
        try:
            vocabulary.require_type(name, refused=STRUCTURAL_TYPES)
        except InvalidArgumentError as error:
            error.locate("AUTHZ_INLINE_TYPES")
            raise
        if name in STRUCTURAL_TYPES:
            raise malformed("AUTHZ_INLINE_TYPES", f"names `{name}`, which must be registered; leave it out")


def first_write(clock: Callable[[], Instant]) -> FirstWrite:
    """The write of the shipped policy, which a new database begins with."""
    files = files_text(read_folder(policy_directory()))
    return FirstWrite(first_version(files, clock()), clock)


def replica_folder(settings: Settings) -> Path:
    """The folder of this machine's replica."""
    if settings.replica_dir:
        return Path(settings.replica_dir)
    return companion_path(settings.database_url, ".replica")


def open_view(settings: Settings, keys: TokenKeys | None = None) -> ReplicaView:
    """Open this machine's replica for reading. `keys`, if given, learn the key of its tokens.

    Raises `InvalidArgumentError` if this process may not map as much as the replica may hold, or write into
    its folder, which this makes.
    """
    _require_address_space(settings.replica_max_bytes)
    _require_folder(replica_folder(settings))
    return ReplicaView(
        replica_folder(settings),
        source=database_name(settings.database_url),
        max_bytes=settings.replica_max_bytes,
        max_staleness_s=settings.max_staleness_s,
        keys=keys,
    )


def require_replica(settings: Settings) -> None:
    """Raise `InvalidArgumentError` as `open_view` does, and make no folder."""
    _require_address_space(settings.replica_max_bytes)
    folder = replica_folder(settings).absolute()
    nearest = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not nearest.is_dir():
        raise _unusable_folder(folder, f"`{nearest}` is not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise _unusable_folder(folder, "permission denied")


def _require_address_space(size_bytes: int) -> None:
    try:
        mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ).close()
    except (OSError, OverflowError) as error:
        raise invalid(
            "AUTHZ_REPLICA_MAX_BYTES",
            f"cannot map {size_bytes} bytes, the maximum size of the replica ({error});"
            " lower AUTHZ_REPLICA_MAX_BYTES, or raise the limit on address space (`ulimit -v`)",
        ) from None


def _require_folder(folder: Path) -> None:
    """Make the folder of the replica. Servers that do not follow write to it, too: LMDB's lock is there."""
    try:
        make_private_folder(folder)
        problem = "" if os.access(folder, os.W_OK) else "permission denied"
        if not problem:
            SharedState(folder).close()  # fails on a full disk
    except OSError as error:
        problem = str(error.strerror)
    if problem:
        raise _unusable_folder(folder, problem)


def _unusable_folder(folder: Path, problem: str) -> InvalidArgumentError:
    return invalid(
        "AUTHZ_REPLICA_DIR",
        f"the folder of the replica, `{folder}`, cannot be used: {problem};"
        " set AUTHZ_REPLICA_DIR to a folder that the server's user may write to, on a disk with space",
    )


def open_follower(settings: Settings, directory: SqlDirectory, *, prepared: bool) -> Follower:
    """The follower of this machine's replica. Unless `prepared`, it first brings the schema up to date."""
    return Follower(
        directory,
        replica_folder(settings),
        source=database_name(settings.database_url),
        max_bytes=settings.replica_max_bytes,
        prepare=None if prepared else _preparation(settings),
    )


def prepare_database(settings: Settings, clock: Callable[[], Instant] = system_clock) -> bool:
    """Bring the schema up to date, or require that it is, by `migrate_on_start`.

    With `migrate_on_start`, a database without a policy gets the shipped one. Returns False when the database
    is away and this machine has a replica of it to start with. Raises
    `UnavailableError` when it has none, or when the database refuses the settings, which does not pass by
    itself; `FailedPreconditionError` for a schema of another version.

    Warns of files that other users may read.
    """
    _warn_of_readers(settings)
    try:
        _preparation(settings, clock)()
    except UnavailableError as error:
        if error.reason is ErrorReason.STORE_MISCONFIGURED or not has_replica(settings):
            if error.reason is ErrorReason.STORE_UNAVAILABLE:
                error.add_note("if the database is elsewhere, correct AUTHZ_DATABASE_URL")
            raise
        log.warning("starting without the database", error=error.message, notes=error.notes)
        return False
    return True


def _warn_of_readers(settings: Settings) -> None:
    for path in (sqlite_file(settings.database_url), replica_folder(settings)):
        if path is not None and path.exists() and path.stat().st_mode & _OTHERS:
            remedy = f"run `chmod go= {shlex.quote(str(path))}`"
            log.warning("other users may read who may do what", path=str(path), remedy=remedy)


def has_replica(settings: Settings) -> bool:
    """Whether this machine has a replica of the database, however stale. Makes no folder for one."""
    folder = replica_folder(settings)
    if not (folder / STATE_FILE).exists():
        return False
    with closing(SharedState(folder)) as state:
        return state.follows(database_name(settings.database_url))


def _preparation(settings: Settings, clock: Callable[[], Instant] = system_clock) -> Callable[[], None]:
    migrate = settings.migrate_on_start
    first = first_write(clock) if migrate else None

    def prepare() -> None:
        file = sqlite_file(settings.database_url)
        is_new = migrate and file is not None and not file.exists()
        prepare_store(
            settings.database_url,
            password_file=settings.database_password_file,
            migrate=migrate,
            # A machine with a replica had a database. An empty one would take every right away, silently.
            create=not has_replica(settings),
            first=first,
        )
        if is_new:  # perhaps because the server was started in the wrong folder
            log.info("database created", file=str(file))

    return prepare


def tracing_module() -> ModuleType:
    """The module `tracing`. Raises `InvalidArgumentError` without OpenTelemetry, or if it cannot be used."""
    try:
        from authz.runtime import tracing
    except ModuleNotFoundError:
        raise invalid(
            "AUTHZ_TRACES",
            "AUTHZ_TRACES is set, and OpenTelemetry is not installed; run"
            " `pip install 'qalamchat-authz[otel]'`, or unset it",
        ) from None
    except ValueError as error:  # OpenTelemetry reads the variable when it is imported
        problem = (
            f"OTEL_PROPAGATORS cannot be used; name installed ones, such as tracecontext,baggage ({error})"
        )
        raise invalid("OTEL_PROPAGATORS", problem) from None
    return tracing
