"""Time for decisions never runs backward, nor behind the last commit."""

from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from authz.domain.entities import Course
from authz.domain.instants import US_PER_S
from authz.engine.clock import DecisionClock
from tests.replica.conftest import following, viewing
from tests.store.directory import Clock, create, open_with, write
from tests.waiting import until


def test_it_stands_still_while_the_machine_s_clock_is_behind() -> None:
    machine = Clock()
    clock, start = DecisionClock(machine), machine.now
    assert clock.at(0) == start
    machine.now = start - 3600 * US_PER_S
    assert clock.at(0) == start
    assert clock.at(start + 5) == start + 5
    assert clock.at(0) == start + 5
    machine.now = start + 6
    assert clock.at(start + 5) == start + 6


def test_a_clock_behind_the_change_log_is_told_once_and_counted(sqlite_url: str, tmp_path: Path) -> None:
    ahead, machine = Clock(), Clock()
    ahead.now += 90 * US_PER_S
    store = open_with(sqlite_url, ahead)
    clock = DecisionClock(machine)
    folder = tmp_path / "replica"
    with following(store, folder), viewing(folder) as view, capture_logs() as lines:
        until(lambda: view.staleness_s() < 30)
        clock.observe(view)
        assert (clock.times_behind, lines) == (0, [])
        write(store, create(Course(id="c")))
        until(lambda: view.revision() == 1)
        for _ in range(3):
            clock.observe(view)
        assert clock.times_behind == 3
        assert clock.behind_us == 90 * US_PER_S
        machine.now = ahead.now
        clock.observe(view)
        mine = [line["event"] for line in lines if "clock" in line["event"]]
        assert [("is behind" in event, "caught up" in event) for event in mine] == [
            (True, False),
            (False, True),
        ]
    store.close()
