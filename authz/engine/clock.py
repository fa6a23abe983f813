"""The time of decisions: that of the machine, as long as the machine's clock is not behind what is known."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from authz.domain.errors import UnavailableError
from authz.domain.instants import US_PER_S, Instant
from authz.domain.ports import View

log = structlog.get_logger()

TOLERANCE_US = US_PER_S
"""Clocks of machines that are kept in time differ by less."""


class DecisionClock:
    """Never runs backward, nor behind the commit of the state that is decided on. For one thread.

    A clock that is stepped back, or that is behind the machine that wrote last, would give a role back that
    has ended: until it has caught up, time stands still.
    """

    def __init__(self, machine: Callable[[], Instant]) -> None:
        self._machine = machine
        self._latest: Instant = 0
        self._is_reported = False
        self.behind_us = 0
        """By how much the machine's clock was behind when it was read last."""
        self.times_behind = 0
        """How often `observe` has found it behind by more than a second."""

    def at(self, committed_at: Instant) -> Instant:
        """The time of a decision on a state that was committed at a time."""
        now = self._machine()
        latest = max(now, self._latest, committed_at)
        self._latest, self.behind_us = latest, latest - now
        return latest

    def observe(self, view: View) -> None:
        """Compare the machine's clock with the newest state, if any; count and log that it is behind."""
        try:
            self.at(view.snapshot().state.committed_at)
        except UnavailableError:
            return
        is_behind = self.behind_us > TOLERANCE_US
        self.times_behind += is_behind
        if is_behind and not self._is_reported:
            log.warning(
                "the machine's clock is behind the change log, or was set back; decisions use the later time",
                behind_s=round(self.behind_us / US_PER_S, 3),
            )
        elif self._is_reported and not is_behind:
            log.warning("the machine's clock has caught up")
        self._is_reported = is_behind
