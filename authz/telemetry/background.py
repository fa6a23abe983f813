"""Writes in a background thread, from a bounded queue, so that callers never wait."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

_MAX_BATCH = 256


class BackgroundWriter(Generic[T]):
    """Hands items to `write`, in order and many at a time, in a thread of its own. `put` neither waits nor
    raises.

    Items that find `max_items` waiting are lost and counted, as are those for which `write` raises. After an
    item has come, the thread waits `gather_s` for more, so that it does not wake for each. `write` runs in
    that thread, and may wait as long as it likes.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[list[T]], None],
        *,
        max_items: int,
        gather_s: float = 0.0,
        on_loss: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`on_loss` is called, in any thread, with the number of items that were just lost."""
        self._name = name
        self._write = write
        self._max_items = max_items
        self._gather_s = gather_s
        self._on_loss = on_loss
        self._queue: SimpleQueue[T | threading.Event] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._lost = 0
        self._batch: list[T | threading.Event] = []
        self._is_abandoned = False

    def put(self, item: T) -> None:
        """Queue an item; drop it if too many wait."""
        if self._queue.qsize() >= self._max_items:
            self.lose(1)
            return
        self._queue.put(item)
        if self._thread is None:
            self._start()

    @property
    def lost(self) -> int:
        """How many items were lost so far."""
        return self._lost

    def lose(self, items: int) -> None:
        """Count items as lost."""
        with self._lock:
            self._lost += items
        self._on_loss(items)

    def flush(self, timeout_s: float) -> bool:
        """Wait until every item that was put is written or lost; False after the timeout."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._queue.put(done)
        return done.wait(timeout_s)

    def abandon(self) -> None:
        """Count every item that is not written yet as lost. The batch that `write` has may get through."""
        self._is_abandoned = True
        self.lose(len(_items_of([*self._batch, *self._waiting(self._queue.qsize())])))

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                # A daemon, because the process must end even if nobody reads.
                self._thread = threading.Thread(target=self._write_forever, name=self._name, daemon=True)
                self._thread.start()

    def _write_forever(self) -> None:
        while True:
            first = self._queue.get()
            self._batch = [first]
            if self._gather_s and self._queue.qsize() < _MAX_BATCH and not isinstance(first, threading.Event):
                time.sleep(self._gather_s)
            self._batch += self._waiting(_MAX_BATCH)
            self._write_batch(self._batch)
            self._batch = []

    def _waiting(self, most: int) -> list[T | threading.Event]:
        found: list[T | threading.Event] = []
        try:
            while len(found) < most:
                found.append(self._queue.get_nowait())
        except Empty:
            pass
        return found

    def _write_batch(self, batch: list[T | threading.Event]) -> None:
        if items := _items_of(batch):
            try:
                self._write(items)
            except Exception:  # noqa: BLE001  the items are lost, whatever the cause, and the thread goes on
                if not self._is_abandoned:
                    self.lose(len(items))
        for each in batch:
            if isinstance(each, threading.Event):
                each.set()


def _items_of(batch: list[T | threading.Event]) -> list[T]:
    return [each for each in batch if not isinstance(each, threading.Event)]


def pieces_of(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines joined into pieces that a pipe takes as a whole, so that lines of several processes do not mix.

    Source: https://man7.org/linux/man-pages/man7/pipe.7.html, PIPE_BUF.
    """
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) > select.PIPE_BUF:
            yield piece
            piece = b""
        piece += line
    if piece:
        yield piece
