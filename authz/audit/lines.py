"""Sinks of the decision log that write a line of JSON for each entry: a file, and standard output."""

from __future__ import annotations

import fcntl
import os
import re
import select
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec

from authz.audit.decision_log import DecisionSink
from authz.audit.erased_names import ErasedNames
from authz.domain.decision_log import DecisionEntry
from authz.domain.erasures import Pseudonyms
from authz.domain.ids import Subject
from authz.domain.instants import to_datetime
from authz.domain.mentions import subjects_in_texts, without_mentions
from authz.telemetry.background import pieces_of

_MODE = 0o600
_GATHER_S = 0.05
_REQUEST_ID = re.compile(r'"request_id":"(?:[^"\\]|\\.)*"')
_encoder = msgspec.json.Encoder()


class LinesFile(DecisionSink):
    """A file that any number of processes append to, each batch as a whole.

    Before it exceeds `max_bytes`, it is rotated to `<path>.1`, that to `<path>.2`, and so on, up to `kept`
    rotated files. Each batch goes to the current file at the path, so another program may rotate it, too.
    """

    name = "file"
    gather_s = _GATHER_S

    def __init__(self, path: Path, *, max_bytes: int, kept: int, erased: ErasedNames | None = None) -> None:
        """With `erased`, entries name nobody who was erased."""
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept
        self._erased = erased
        self._descriptor: int | None = None

    def write(self, entries: Sequence[DecisionEntry]) -> None:
        """Raises `OSError`, and as `ErasedNames.replaced`, and has then written nothing."""
        while True:
            with self._locked() as descriptor:
                # Under the lock, so that no other process clears the files between this look and the write.
                lines = _lines(entries if self._erased is None else self._erased.replaced(entries))
                size_bytes = os.fstat(descriptor).st_size
                if not size_bytes or size_bytes + len(lines) <= self._max_bytes:
                    _append(descriptor, lines, size_bytes)
                    return
                self._rotate()

    def erase(self, pseudonyms: Pseudonyms) -> int:
        """As `replace`, of every erased subject that the files name. Reads the rotated files while others
        write and rotate, and only what it has not read then without them."""
        with _Reader(pseudonyms) as reader:
            for file in self._files()[1:]:
                reader.erased_in(file)
            with self._locked():
                return sum(_replaced(file, reader.erased_in(file)) for file in self._oldest_first())

    def replace(self, subject: Subject, pseudonym: Subject) -> int:
        """Replace a subject by a pseudonym in the file and its rotated files, and remove the request ids of
        these lines. Return the number of lines replaced. No process writes to the files meanwhile.

        Raises `OSError`; the remaining files are then unchanged.
        """
        with self._locked():
            return sum(_replaced(file, {subject: pseudonym}) for file in self._oldest_first())

    def _oldest_first(self) -> Iterable[Path]:
        # The locked file last: once another one is at its path, others write to it and rotate it.
        return reversed(self._files())

    def _files(self) -> list[Path]:
        """The file and its rotated files, the newest first. Another program may have taken some away."""
        rotated = re.compile(rf"{re.escape(self._path.name)}\.([1-9][0-9]*)", re.ASCII)
        found = ((rotated.fullmatch(each.name), each) for each in self._path.parent.iterdir())
        numbered = {int(name[1]): each for name, each in found if name is not None}
        return [self._path, *(numbered[number] for number in sorted(numbered))]

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file at the path, locked so that no other process writes to it or rotates it."""
        while True:
            if self._descriptor is None:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, _MODE)
            descriptor = self._descriptor
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(self._path, descriptor):
                break
            self._descriptor = None
            os.close(descriptor)  # and with it the lock
        try:
            yield descriptor
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _rotate(self) -> None:
        for number in reversed(range(self._kept)):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


class StandardOutput(DecisionSink):
    """Standard output. Writes are short enough not to interleave with other processes in a pipe."""

    name = "stdout"
    gather_s = _GATHER_S

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor

    def write(self, entries: Sequence[DecisionEntry]) -> None:
        """Raises `OSError` when nobody reads any more."""
        for piece in pieces_of(_lines(entries).splitlines(keepends=True)):
            rest = memoryview(piece)
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except BlockingIOError:
                    select.select((), (self._descriptor,), ())


def _lines(entries: Iterable[DecisionEntry]) -> bytes:
    return _encoder.encode_lines([msgspec.structs.replace(each, at=to_datetime(each.at)) for each in entries])


def _append(descriptor: int, content: bytes, size_bytes: int) -> None:
    """Append everything or nothing to a locked file of this size."""
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size_bytes)
        raise


def _replaced(path: Path, erased: Mapping[Subject, Subject]) -> int:
    """As `LinesFile.replace`, of one file, by the pseudonyms of any number of subjects. A reader sees the old
    file or the new one, each as a whole."""
    if not erased:
        return 0
    by_name = {str(subject): (subject, str(pseudonym)) for subject, pseudonym in erased.items()}
    lines, fresh = 0, path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)  # of a call that was killed
    status = path.stat()
    text = partial(open, encoding="utf-8", errors="surrogateescape", newline="")
    try:
        with text(path) as old, text(fresh, "x") as new:
            os.fchmod(new.fileno(), status.st_mode)
            os.fchown(new.fileno(), status.st_uid, status.st_gid)
            for line in old:
                renamed = line
                for name in [each for each in by_name if each in line]:
                    renamed = without_mentions(renamed, *by_name[name])
                if renamed != line:
                    renamed = _REQUEST_ID.sub('"request_id":""', renamed)
                    lines += 1
                new.write(renamed)
            new.flush()
            os.fsync(new.fileno())
        if lines:
            fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return lines


class _Reader(ExitStack):
    """Reads each file once unless it has grown, also if it is renamed meanwhile. Keeps them open, so that no
    new file gets the inode of one that was deleted."""

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        super().__init__()
        self._pseudonyms = pseudonyms
        self._found: dict[tuple[int, int, int], Mapping[Subject, Subject]] = {}

    def erased_in(self, path: Path) -> Mapping[Subject, Subject]:
        """The erased subjects that the lines of a file name, with their pseudonyms; none if the file is not
        there."""
        try:
            file = self.enter_context(path.open(encoding="utf-8", errors="surrogateescape"))
        except FileNotFoundError:
            return {}
        status = os.fstat(file.fileno())
        identity = status.st_dev, status.st_ino, status.st_size
        if identity not in self._found:
            named = subjects_in_texts(file)
            self._found[identity] = {
                each: pseudonym for each in named if (pseudonym := self._pseudonyms.of(each))
            }
        return self._found[identity]


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
