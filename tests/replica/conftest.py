"""A store on each database with a replica that a follower keeps, both driven by the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import create_engine, text

from authz.domain.errors import ErrorReason, UnavailableError
from authz.domain.tokens import TokenKeys
from authz.engine.consistency import ConsistencyGate
from authz.replica.environment import acquire_environment, release_environment
from authz.replica.follower import Follower
from authz.replica.shared_state import SharedState
from authz.replica.view import ReplicaView
from authz.store import Store
from tests.replica.rows import Row, all_rows
from tests.store.directory import open_with

MAX_BYTES = 1 << 28


@contextmanager
def gate_of(
    view: ReplicaView,
    store: Store,
    *,
    keys: TokenKeys | None = None,
    wait_s: float = 0.05,
    computing_s: float = 60,
) -> Iterator[ConsistencyGate]:
    """The read side of a process whose writes wait this long for the replica, and that computes this long."""
    keys = TokenKeys() if keys is None else keys
    with ThreadPoolExecutor(2) as pool:
        yield ConsistencyGate(
            view,
            store.directory,
            keys=keys,
            pool=pool,
            computing_pool=pool,
            freshness_timeout_s=30,
            replication_timeout_s=wait_s,
            max_computing_s=computing_s,
        )


def reason_of(view: ReplicaView) -> ErrorReason:
    """Why a view refuses."""
    with pytest.raises(UnavailableError) as caught:
        view.snapshot()
    return caught.value.reason


@contextmanager
def away(store: Store, *, followed: bool = True) -> Iterator[None]:
    """The database does not answer inside the block. `followed` says whether a follower runs already."""
    follow, refused = store.directory.follow, threading.Event()

    def nobody(after: int, limit: int) -> NoReturn:
        refused.set()
        raise UnavailableError(ErrorReason.STORE_UNAVAILABLE, "away")

    store.directory.follow = nobody  # type: ignore[method-assign]
    try:
        if followed:  # a read that had begun would still see what the block writes
            assert refused.wait(30)
        yield
    finally:
        store.directory.follow = follow  # type: ignore[method-assign]


@contextmanager
def following(
    store: Store,
    folder: Path,
    source: str = "test",
    max_bytes: int = MAX_BYTES,
) -> Iterator[Follower]:
    """A follower that runs, and has confirmed the replica when the block begins."""
    follower = Follower(store.directory, folder, source=source, max_bytes=max_bytes)
    thread = threading.Thread(target=follower.run)
    thread.start()
    try:
        assert follower.initialized.wait(30)
        yield follower
    finally:
        follower.stop()
        thread.join(30)
        assert not thread.is_alive()


@contextmanager
def viewing(
    folder: Path, max_staleness_s: float = 30, source: str = "test", max_bytes: int = MAX_BYTES
) -> Iterator[ReplicaView]:
    """A view that is closed again."""
    view = ReplicaView(folder, source=source, max_bytes=max_bytes, max_staleness_s=max_staleness_s)
    try:
        yield view
    finally:
        view.close()


def served(view: ReplicaView) -> bool:
    """Whether it answers."""
    try:
        view.snapshot()
    except UnavailableError:
        return False
    return True


def once_served(holds: Callable[[], bool]) -> bool:
    """What `holds` finds; false while the view does not answer, which may begin between any two reads."""
    with suppress(UnavailableError):
        return holds()
    return False


def rebuilt(folder: Path, view: ReplicaView, first: int) -> bool:
    """Whether it answers from a replica that was built after `first`."""
    return generation_of(folder) not in (0, first) and served(view)


def generation_of(folder: Path) -> int:
    """The generation that is served."""
    state = SharedState(folder)
    try:
        return state.generation
    finally:
        state.close()


def rows_of(folder: Path) -> list[Row]:
    """All that the current generation holds."""
    environment = acquire_environment(folder / str(generation_of(folder)), max_bytes=MAX_BYTES)
    try:
        return list(all_rows(environment))
    finally:
        release_environment(environment)


def execute(url: str, *statements: str) -> None:
    """Change the database behind the back of every process."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(autouse=True)
def frequent_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The follower asks the database often, so that no test waits for it."""
    monkeypatch.setattr("authz.replica.follower._HEARTBEAT_S", 0.05)
    monkeypatch.setattr("authz.replica.follower._RETRY_S", 0.02)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """An empty store on each database."""
    opened = open_with(store_url)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_store(sqlite_url: str) -> Iterator[Store]:
    """For what does not depend on the database."""
    opened = open_with(sqlite_url)
    yield opened
    opened.close()
