"""A long call goes on while its caller may make it, and a short time while nothing tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from authz.api import recheck
from authz.api.recheck import Recheck
from authz.domain.errors import AuthzError, ErrorReason, PermissionDeniedError, UnavailableError

UNKNOWN = UnavailableError(ErrorReason.CREDENTIALS_UNVERIFIABLE, "the file is broken")
DENIED = PermissionDeniedError("no longer", permission="watch")


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check whenever there is time to."""
    monkeypatch.setattr(recheck, "INTERVAL_S", 0)


class Telling:
    """Raises the errors in turn, then lets the caller go on; `told` is set then."""

    def __init__(self, *errors: AuthzError) -> None:
        self.errors = list(errors)
        self.told = asyncio.Event()

    async def require(self) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.told.set()


async def test_a_call_goes_on_over_a_moment_in_which_nothing_tells() -> None:
    telling = Telling(UNKNOWN, UNKNOWN)
    assert await Recheck(telling.require).result_of(telling.told.wait())


async def test_the_time_in_which_nothing_tells_begins_with_the_last_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(recheck, "time", SimpleNamespace(monotonic=lambda: now))
    telling = Telling()
    lasting = Recheck(telling.require)
    now = 60.0
    await lasting.require()
    telling.errors += [UNKNOWN, UNKNOWN]
    now += recheck.MAX_UNKNOWN_S
    await lasting.require()
    now += 0.1
    with pytest.raises(UnavailableError):
        await lasting.require()


@pytest.mark.parametrize("error", [UNKNOWN, DENIED])
async def test_a_call_is_cancelled_when_it_is_not_known_that_it_may_go_on(
    error: AuthzError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recheck, "MAX_UNKNOWN_S", -1)
    cancelled = asyncio.Event()

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(type(error)) as caught:
        await Recheck(Telling(error).require).result_of(run())
    assert caught.value is error
    await asyncio.wait_for(cancelled.wait(), 20)


async def test_requests_come_in_order_until_the_caller_may_send_no_more() -> None:
    errors: list[AuthzError] = []

    async def require() -> None:
        if errors:
            raise errors[0]

    async def requests() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    assert [each async for each in Recheck(require).each(requests())] == [0, 1, 2]
    taken: list[int] = []
    with pytest.raises(PermissionDeniedError):
        async for each in Recheck(require).each(requests()):
            taken.append(each)
            errors.append(DENIED)
    assert taken == [0]
