"""One LMDB environment of the replica: its databases, and the checks before it is served."""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lmdb
import msgspec

from authz.domain.errors import ErrorReason, UnavailableError
from authz.domain.instants import Instant
from authz.domain.tokens import ConsistencyToken
from authz.replica.folder import FILE_MODE, make_private_folder
from authz.replica.kinds import DATABASES, TOMBSTONES
from authz.replica.layout import FORMAT
from authz.replica.shared_state import identity_of

_HEADER = struct.Struct("<QQqQQQQQ")
_FORMAT = FORMAT.to_bytes(8, "little")
"""How the header of every format begins; the rest may differ."""
_REVISION_KEY = b"revision"
_DATABASE_KEY = b"database"
_TOKEN_KEY_KEY = b"token key"
_DATA_FILE = "data.mdb"
_MAX_READERS = 65_536
"""Snapshots that the processes of a machine may hold at once, each of 64 bytes in a sparse file.

A batch, a list or a write for a person holds one while it takes turns with others: some hundreds in each
of up to 256 workers. Without a free place, no process could answer any check."""


class ReplicaHeader(msgspec.Struct, frozen=True):
    """The revision that a replica holds, when it was committed, and its nonce.

    Then the last revisions of some changes: `scopes` of a course, a session or the active policy of a course,
    `policy` of the platform's active policy (both tell what a cache must drop), `erased` of the end of an
    erasure. In the file, nothing is left of what was erased up to the revision `cleared`.
    """

    revision: int
    committed_at: Instant
    nonce: int
    scopes: int
    policy: int
    erased: int = 0
    cleared: int = 0

    def state(self, database_id: str) -> ConsistencyToken:
        """This state, of the database with this id."""
        return ConsistencyToken(database_id, self.revision, self.committed_at, self.nonce)


class UnusableError(Exception):
    """The replica must not be served: damaged, incomplete, or of another format."""


DAMAGE = (
    UnusableError,
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.BadValsizeError,
    lmdb.BadTxnError,
    struct.error,
    IndexError,
    ValueError,
)
"""Errors that mean that the replica is not what it should be."""

_NO_SPACE = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)))


def room_for(error: Exception) -> str:
    """How to make room, if an error means that the replica has none; empty for any other error."""
    if isinstance(error, lmdb.MapFullError):
        return "raise AUTHZ_REPLICA_MAX_BYTES"
    # LMDB's errors have the text of an errno, not its number. EIO is a disk that fails or, where LMDB could
    # write only a part, one that is full.
    if any(text in str(error) for text in _NO_SPACE):
        return "the disk of AUTHZ_REPLICA_DIR is full, at a limit or failing; free space on it"
    return ""


class Environment:
    """The databases by name, in one memory map: one writer, and any number of readers without locks.

    `members` subject, scope to memberships · `courses` id to course · `sessions` id to session · `resources`
    type, id to resource · `shares` resource, subject to level · `members_in` scope, subject · `resources_in`
    scope, type, id to resource · `sessions_in` course, session · `resources_of` owner, resource ·
    `shares_with` subject, resource · `tombstones` type, id of a resource that was deleted to when ·
    `tombstones_by_age` when, type, id. Of those that are indexes in the other direction, all but
    `resources_in` have empty values.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder = folder
        self.references = 0
        self.data_file = folder / _DATA_FILE
        try:
            make_private_folder(folder)
            self.lmdb = lmdb.open(
                str(folder),
                map_size=max_bytes,
                mode=FILE_MODE,
                max_dbs=len(DATABASES) + 1,
                max_readers=_MAX_READERS,
                max_spare_txns=4,
                # A crash of the machine may undo the last commit, which the follower then repeats, but never
                # leaves half of one. Reads are random: read-ahead would fill memory with unused pages.
                metasync=False,
                readahead=False,
            )
            self._require_whole()
            self._identity = identity_of(self.data_file)
            self.meta = self.lmdb.open_db(b"meta")
            self.databases = {name: self.lmdb.open_db(name.encode()) for name in DATABASES}
            """All databases of records."""
            self.members = self.databases["memberships"]
            self.resources = self.databases["resources"]
            self.tombstones = self.databases[TOMBSTONES]
            self.shares = self.databases["shares"]
            self.members_in = self.databases["memberships_by_scope"]
            self.resources_in = self.databases["resources_by_scope"]
            self.sessions_in = self.databases["sessions_by_course_id"]
            self.resources_of = self.databases["resources_by_owner"]
            self.shares_with = self.databases["shares_by_subject"]
        except (lmdb.Error, FileNotFoundError, FileExistsError, NotADirectoryError) as error:
            # The folder may be deleted during the open.
            raise UnusableError(f"cannot open {folder}: {error}") from error

    def require_there(self) -> None:
        """Raise `UnusableError` if the file was deleted: only processes that have it open still see it."""
        if identity_of(self.data_file) != self._identity:
            raise UnusableError(f"{self.folder} was deleted")

    def is_outgrown(self) -> bool:
        """Whether the file has outgrown its map here: another process opened it with a larger `max_bytes`."""
        with suppress(FileNotFoundError):
            return self.size_bytes() > self.lmdb.info()["map_size"]
        return False

    def require_usable(self) -> None:
        """Raise `UnusableError` for a replica whose build never finished, or of another format."""
        with self.lmdb.begin() as transaction:
            raw = transaction.get(_REVISION_KEY, db=self.meta)
            if raw is None or transaction.get(_DATABASE_KEY, db=self.meta) is None:
                raise UnusableError(f"{self.folder} was not finished")
            if not bytes(raw).startswith(_FORMAT):
                raise UnusableError(f"{self.folder} has another format")

    def _require_whole(self) -> None:
        """Raise `UnusableError` if the file is truncated: reading a page past its end kills the process."""
        try:
            size_bytes = self.size_bytes()
        except FileNotFoundError:
            self.lmdb.close()
            raise
        if (self.lmdb.info()["last_pgno"] + 1) * self.lmdb.stat()["psize"] > size_bytes:
            self.lmdb.close()
            raise UnusableError(f"{self.folder} is cut off")

    @staticmethod
    def read(transaction: lmdb.Transaction, key: bytes, database: lmdb._Database) -> bytes:
        """The value of a key; empty if there is none."""
        return bytes(transaction.get(key, b"", database))

    def state(self) -> ConsistencyToken:
        """The state that this replica holds, of which database."""
        with self.lmdb.begin() as transaction:
            header = self.header(transaction)
            database_id = self.read(transaction, _DATABASE_KEY, self.meta).decode()
        return header.state(database_id)

    def header(self, transaction: lmdb.Transaction) -> ReplicaHeader:
        """The header in the snapshot of a transaction."""
        return ReplicaHeader(*_HEADER.unpack(self.read(transaction, _REVISION_KEY, self.meta))[1:])

    def has_erased(self) -> bool:
        """Whether the file may have something left of subjects that were erased."""
        with self.lmdb.begin() as transaction:
            header = self.header(transaction)
        return header.erased > header.cleared

    def cleared(self) -> int:
        """The revision up to which nothing is left in the file of what was erased."""
        with self.lmdb.begin() as transaction:
            return self.header(transaction).cleared

    def set_cleared(self, revision: int) -> None:
        """Record that nothing is left of what was erased up to a revision."""
        with self.lmdb.begin(write=True) as transaction:
            header = msgspec.structs.replace(self.header(transaction), cleared=revision)
            self.set_header(transaction, header)

    def set_header(self, transaction: lmdb.Transaction, header: ReplicaHeader) -> None:
        """Store the header, in the transaction that applies the revision."""
        packed = _HEADER.pack(FORMAT, *msgspec.structs.astuple(header))
        transaction.put(_REVISION_KEY, packed, db=self.meta)

    def token_key(self) -> bytes:
        with self.lmdb.begin() as transaction:
            return self.read(transaction, _TOKEN_KEY_KEY, self.meta)

    def set_identity(self, transaction: lmdb.Transaction, database_id: str, token_key: bytes) -> None:
        """Store the id of the database and the key of its tokens: the last step of a build."""
        transaction.put(_TOKEN_KEY_KEY, token_key, db=self.meta)
        transaction.put(_DATABASE_KEY, database_id.encode(), db=self.meta)

    def size_bytes(self) -> int:
        return self.data_file.stat().st_size


# Reentrant: a garbage collection inside the lock may free a snapshot, which releases its environment.
_lock = threading.RLock()
_open: dict[Path, Environment] = {}


def acquire_environment(folder: Path, *, max_bytes: int) -> Environment:
    """The environment of a folder, shared and reference-counted: LMDB allows one in each process."""
    folder = folder.resolve()
    with _lock:
        environment = _open.get(folder)
        if environment is None:
            environment = _open[folder] = Environment(folder, max_bytes=max_bytes)
        environment.references += 1
        return environment


def held_environment(folder: Path) -> Environment | None:
    """The environment of a folder, if somebody in this process has it open."""
    with _lock:
        return _open.get(folder.resolve())


def hold_environment(environment: Environment) -> None:
    """Acquire an environment that is open once more."""
    with _lock:
        environment.references += 1


def release_environment(environment: Environment) -> None:
    """Release one reference; the last one closes the environment."""
    with _lock:
        environment.references -= 1
        if environment.references == 0:
            del _open[environment.folder]
            environment.lmdb.close()


@contextmanager
def released_on_error(environment: Environment) -> Iterator[None]:
    """Release one reference if the block raises."""
    try:
        yield
    except BaseException:
        release_environment(environment)
        raise


def not_ready(why: str = "the replica is being built; try again in a moment") -> UnavailableError:
    """The error while there is no replica to read."""
    return UnavailableError(ErrorReason.REPLICA_NOT_READY, why)
