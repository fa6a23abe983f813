"""One LMDB environment of the read model: its databases, and whether it may be trusted."""

from __future__ import annotations

import struct
import threading
from contextlib import suppress
from pathlib import Path

import lmdb
import msgspec

from authz.domain.errors import ErrorReason, UnavailableError
from authz.domain.instants import Instant
from authz.domain.tokens import ConsistencyToken
from authz.replica.kinds import DATABASES
from authz.replica.layout import FORMAT
from authz.replica.shared_state import identity_of

_HEADER = struct.Struct("<QQqQQQ")
_REVISION_KEY = b"revision"
_DATABASE_KEY = b"database"
_DATA_FILE = "data.mdb"
_MAX_READERS = 1024


class Versions(msgspec.Struct, frozen=True):
    """The revision that a replica holds, when it was committed, and its nonce; and which revisions last
    changed a role on the platform, and a course or session, so that what is made from those can be kept."""

    revision: int
    committed_at: Instant
    nonce: int
    platform: int
    scopes: int

    def state(self, database_id: str) -> ConsistencyToken:
        """The state of a database that this is."""
        return ConsistencyToken(database_id, self.revision, self.committed_at, self.nonce)


class UnusableError(Exception):
    """A file that must not be served: damaged, half-made, or of another format."""


class Environment:
    """The databases by name, in one memory map. One writer, any number of readers, no locks between.

    `members` subject, scope to grants · `scopes` scope to course or session · `resources` type, id to
    resource · `shares` resource, subject to level · `members_in` scope, subject · `resources_in` scope,
    resource · `sessions_in` course, session · `resources_of` owner, resource · `shares_with` subject,
    resource. The last five have empty values: they are for looking up the other way.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder = folder
        self.data_file = folder / _DATA_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.lmdb = lmdb.open(
                str(folder),
                map_size=max_bytes,
                max_dbs=len(DATABASES) + 1,
                max_readers=_MAX_READERS,
                max_spare_txns=4,
                # A crash of the machine may undo the last commit, which the follower then repeats; it
                # cannot leave a half of one. Reading ahead would fill memory with what nobody asked for.
                metasync=False,
                readahead=False,
            )
            self._require_whole()
            self._identity = identity_of(self.data_file)
            self.meta = self.lmdb.open_db(b"meta")
            self.databases = {name: self.lmdb.open_db(name.encode()) for name in DATABASES}
            """All databases of records."""
            self.members = self.databases["members"]
            self.scopes = self.databases["scopes"]
            self.resources = self.databases["resources"]
            self.shares = self.databases["shares"]
            self.members_in = self.databases["members_in"]
            self.resources_in = self.databases["resources_in"]
            self.sessions_in = self.databases["sessions_in"]
            self.resources_of = self.databases["resources_of"]
            self.shares_with = self.databases["shares_with"]
        except (lmdb.Error, FileNotFoundError, FileExistsError, NotADirectoryError) as error:
            # It may be deleted while it is opened.
            raise UnusableError(f"cannot open {folder}: {error}") from error

    def require_there(self) -> None:
        """Raise `UnusableError` when the file was deleted: it is whole, but only for who has it open."""
        if identity_of(self.data_file) != self._identity:
            raise UnusableError(f"{self.folder} was deleted")

    def is_outgrown(self) -> bool:
        """Whether the file is larger than what is mapped here: another process is allowed more of it."""
        with suppress(FileNotFoundError):
            return self.size_bytes() > self.lmdb.info()["map_size"]
        return False

    def require_usable(self) -> None:
        """Raise `UnusableError` for a file that was never finished, or of another format."""
        with self.lmdb.begin() as transaction:
            raw = transaction.get(_REVISION_KEY, db=self.meta)
            if raw is None or transaction.get(_DATABASE_KEY, db=self.meta) is None:
                raise UnusableError(f"{self.folder} was not finished")
            if _HEADER.unpack(raw)[0] != FORMAT:
                raise UnusableError(f"{self.folder} has another format")

    def _require_whole(self) -> None:
        """Raise `UnusableError` for a file that is cut off: a page behind its end kills whoever reads it."""
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
        """What is stored under a key, empty for nothing."""
        return bytes(transaction.get(key, b"", database))

    def state(self) -> ConsistencyToken:
        """Which state of which database this holds."""
        with self.lmdb.begin() as transaction:
            versions = self.versions(transaction)
            database_id = self.read(transaction, _DATABASE_KEY, self.meta).decode()
        return versions.state(database_id)

    def versions(self, transaction: lmdb.Transaction) -> Versions:
        """What the state that a transaction sees holds."""
        return Versions(*_HEADER.unpack(self.read(transaction, _REVISION_KEY, self.meta))[1:])

    def set_versions(self, transaction: lmdb.Transaction, versions: Versions) -> None:
        """Record what the state holds, in the transaction that makes it so."""
        header = _HEADER.pack(FORMAT, *msgspec.structs.astuple(versions))
        transaction.put(_REVISION_KEY, header, db=self.meta)

    def set_database_id(self, transaction: lmdb.Transaction, database_id: str) -> None:
        """Record of which database this is a replica: the last step of making one."""
        transaction.put(_DATABASE_KEY, database_id.encode(), db=self.meta)

    def size_bytes(self) -> int:
        """What the file takes."""
        return self.data_file.stat().st_size


_lock = threading.Lock()
_open: dict[Path, tuple[Environment, int]] = {}


def acquire_environment(folder: Path, *, max_bytes: int) -> Environment:
    """The environment of a folder. LMDB allows one in a process, so that it is shared and counted."""
    folder = folder.resolve()
    with _lock:
        known = _open.get(folder)
        environment = Environment(folder, max_bytes=max_bytes) if known is None else known[0]
        _open[folder] = (environment, 1 if known is None else known[1] + 1)
        return environment


def release_environment(environment: Environment) -> None:
    """Give one back; the last one closes it."""
    folder = environment.folder
    with _lock:
        _, count = _open[folder]
        if count > 1:
            _open[folder] = (environment, count - 1)
            return
        del _open[folder]
        environment.lmdb.close()


def not_ready(why: str = "the replica is being built; try again in a moment") -> UnavailableError:
    """The error before there is a replica to answer from."""
    return UnavailableError(ErrorReason.REPLICA_NOT_READY, why)
