# Generated from authz/client/aio/feed.py; see `make client`.
"""Reports changes to the cache of a client, for as long as the client lives."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from typing import Any

from authz.client.cache import DECIDING_KINDS, DecisionCache
from authz.client.sync.transport import Background, sleep
from authz.client.sync.watch import ResumingWatch
from authz.domain.errors import AuthzError
from authz.domain.instants import US_PER_S, to_datetime
from authz.v1 import watch_pb2
from authz.wire.changes import ENTITY_KINDS
from authz.wire.values import duration_message

log = logging.getLogger("authz.client")

_RESUME_FOR_S = 60.0
_INITIAL_BACKOFF_S = 1.0
_MAX_BACKOFF_S = 30.0


class CacheFeed:
    """Watches from the first question on. While the watch is down, the cache returns no answers."""

    def __init__(self, cache: DecisionCache, open_stream: Callable[[watch_pb2.WatchRequest], Any]) -> None:
        self.cache = cache
        self._open_stream = open_stream
        self._background = Background(self._run)
        self._is_closed = False
        self._backoff_s = _INITIAL_BACKOFF_S

    def start(self) -> None:
        """Start the watch, unless it runs already."""
        self._background.start()

    def end(self) -> None:
        """Start no further watch, because the channel closes."""
        self._is_closed = True

    def stop(self) -> None:
        """Wait for the end, once the channel is closed."""
        self._background.stop()

    def _run(self) -> None:
        while not self._is_closed:
            try:
                self._follow()
            except AuthzError as error:
                if not self._is_closed:
                    log.warning("the client keeps no answers until its watch works: %s", error)
            finally:
                self.cache.interrupt()
            if not self._is_closed:
                sleep(self._backoff_s)
            self._backoff_s = min(2 * self._backoff_s, _MAX_BACKOFF_S)

    def _follow(self) -> None:
        interval = duration_message(int(self.cache.checkpoint_interval_s * US_PER_S))
        following = ResumingWatch(
            self._open_stream,
            watch_pb2.WatchRequest(
                kinds=map(ENTITY_KINDS.number, sorted(DECIDING_KINDS)), checkpoint_interval=interval
            ),
            resume_for_s=_RESUME_FOR_S,
            on_checkpoint=self._confirm,
        )
        with closing(following.changes()) as changes:
            for change in changes:
                for mutation in change.mutations:
                    self.cache.change(mutation.key, change.token)

    def _confirm(self, checkpoint: watch_pb2.Checkpoint) -> None:
        self._backoff_s = _INITIAL_BACKOFF_S  # the watch works
        # Of a server of an earlier release, long ago.
        now = to_datetime(checkpoint.server_time.ToMicroseconds())
        self.cache.confirm(checkpoint.read_up_to.token, checkpoint.caught_up, now)
