"""A primary that dies and a standby that takes over: nothing acknowledged is lost, and all find the way."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text

from authz.domain.entities import Course
from authz.domain.errors import ErrorReason, UnavailableError
from authz.runtime.compose import system_clock
from authz.runtime.doctor import findings
from authz.runtime.findings import Level
from authz.runtime.settings import Settings
from authz.store import Store, open_store
from authz.store.database import connections
from authz.store.database.engine import opened as engine_for
from authz.store.database.engine import read_transaction
from authz.store.log.reader import read_head
from tests.faults.agreement import require_right
from tests.faults.history import Check, Consistency, Event, Outcome
from tests.faults.load import Load
from tests.faults.postgresql import Cluster, Clusters
from tests.faults.processes import AUTHORIZATION, Node, running
from tests.replica.conftest import following, once_served, viewing
from tests.replica.test_histories import members
from tests.serving import over_grpc
from tests.store.directory import VOCABULARY, Clock, create, open_with, remove, student, touch, write
from tests.waiting import until

pytestmark = over_grpc
LATE = ("DEADLINE_EXCEEDED ",)
"""What a call says that a busy machine has not answered in time."""


def url_of(*clusters: Cluster) -> str:
    """One URL of many hosts, of which the one that takes writes is used."""
    hosts = "&".join(f"host={cluster.host}" for cluster in clusters)
    return f"postgresql://postgres@/postgres?{hosts}"


def test_a_standby_takes_over(clusters: Clusters, tmp_path: Path) -> None:
    primary, standby = clusters.with_standby()
    url = url_of(primary, standby)
    nodes = [Node(name, url, tmp_path) for name in ("one", "two")]
    with running(*nodes):
        with Load(nodes) as load:
            load.go_on(writes=20, checks=20)
            primary.stop("immediate")
            # Nobody takes writes: checks of what is at hand go on at both, whatever needs a primary fails.
            load.go_on(checks=20, refused=2)
            assert all(node.health(AUTHORIZATION) == 1 for node in nodes)
            standby.promote()
            load.go_on(writes=20, checks=20)
        history = require_right(load, url, *nodes)
    events: list[Event] = [*history.writes, *history.checks]
    for event in events:
        if event.outcome is not Outcome.OK and event.error not in LATE:
            assert not isinstance(event, Check) or event.consistency is not Consistency.MINIMIZE_LATENCY
    refused = {event.error for event in events if event.outcome is Outcome.UNKNOWN}
    # One server may know of a revision that the other can no longer be told of.
    assert "UNAVAILABLE STORE_UNAVAILABLE" in refused
    asked = {check.error for check in history.checks if check.error}
    assert asked <= {"UNAVAILABLE STORE_UNAVAILABLE", "UNAVAILABLE NOT_FRESH_ENOUGH", *LATE}


def test_a_standby_is_never_read_for_the_database(clusters: Clusters) -> None:
    primary, standby = clusters.with_standby()
    store = open_with(primary.url)
    both, alone = (
        open_store(url, vocabularies=lambda *_: VOCABULARY, clock=Clock())
        for url in (url_of(standby, primary), standby.url)
    )
    try:
        write(store, create(Course(id="c")))
        with standby.connect() as connection:
            connection.execute("SELECT pg_wal_replay_pause()")
        write(store, create(Course(id="d")))
        assert both.directory.head().revision == 2
        assert write(both, create(Course(id="e"))) == 3
        for call in (alone.directory.head, partial(write, alone, create(Course(id="f")))):
            with pytest.raises(UnavailableError) as caught:
                call()
            assert caught.value.reason is ErrorReason.STORE_READ_ONLY
        primary.stop("immediate")
        with standby.connect() as connection:
            connection.execute("SELECT pg_wal_replay_resume()")
        standby.promote()
        assert both.directory.head().revision == alone.directory.head().revision == 3
        assert write(alone, create(Course(id="f"))) == 4
    finally:
        for each in (store, both, alone):
            each.close()


def test_a_standby_that_was_behind_takes_the_replica_out_of_the_history_that_it_left(
    clusters: Clusters, tmp_path: Path
) -> None:
    primary, standby = clusters.with_standby()
    primary.configure("synchronous_standby_names", "")
    folder = tmp_path / "r"
    store = opened(url_of(primary, standby))
    with following(store, folder), viewing(folder) as view:
        write(store, create(Course(id="c")), create(student("maya", "c")))
        until(lambda: standby.revision() == 1, "the standby does not follow")
        with standby.connect() as connection:
            connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
            connection.execute("SELECT pg_reload_conf()")
        until(lambda: not primary.is_followed(), "the standby still follows")
        write(store, create(student("eve", "c")))
        until(lambda: members(view, "maya", "eve") == ["maya", "eve"], "eve is not a member")
        # The follower waits for an answer that never comes, and finds itself at the other one.
        with primary.frozen():
            time.sleep(1.5)
            standby.promote()
            after = opened(standby.url)
            write(after, remove(student("maya", "c").key))
            write(after, create(Course(id="d")))
            primary.kill()
        until(lambda: once_served(lambda: members(view, "maya", "eve") == []), "they are still members")
        assert view.revision() == after.directory.head().revision == 3
        after.close()
    store.close()


def test_an_old_primary_that_comes_back_is_not_used(clusters: Clusters, tmp_path: Path) -> None:
    old, new = clusters.with_standby()
    url, folder = url_of(old, new), tmp_path / "r"
    store = opened(url)
    with following(store, folder), viewing(folder) as view:
        write(store, create(Course(id="c")), create(student("maya", "c")))
        old.stop("immediate")
        new.promote()
        until(lambda: once_served(lambda: write(store, remove(student("maya", "c").key)) == 2), "no primary")
        until(lambda: view.revision() == 2, "the follower does not find the primary")
        old.start()
        old.configure("synchronous_standby_names", "")
        new.stop("immediate")
        with pytest.raises(UnavailableError, match="only an old primary takes writes"):
            store.directory.head()
        assert members(view, "maya") == []
        new.start()
        # Not even by those that begin now, although the URL names it first.
        restarted = opened(url)
        assert restarted.directory.head().revision == 2
        assert write(restarted, create(Course(id="d"))) == 3
        until(lambda: once_served(lambda: view.revision() == 3), "the follower does not come back")
        with engine_for(url) as engine, read_transaction(engine) as connection:
            assert read_head(connection).revision == 3
        new.configure("synchronous_standby_names", "standby")
        wrong = [each.text for each in findings(Settings(database_url=url)) if each.level is Level.WRONG]
        assert any(f"`{old.host}` on timeline 1, `{new.host}` on timeline 2" in text for text in wrong)
        waits = [text for text in wrong if "each write waits for a standby" in text]
        assert [f"`{new.host}`" in text for text in waits] == [True]
        new.stop("immediate")
        old.stop("immediate")
        replacement = clusters.create()
        replacement.initialize()
        replacement.port = new.port
        replacement.start()
        # Another cluster, whose timelines begin again: it is empty, and not old.
        with pytest.raises(UnavailableError, match="lacks the tables"):
            restarted.directory.head()
        restarted.close()
    store.close()


def test_a_primary_that_goes_on_after_its_standby_was_promoted_is_left(
    clusters: Clusters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_SEARCH_INTERVAL_S", 0.2)
    old, new = clusters.with_standby()
    store = opened(url_of(old, new))
    with following(store, tmp_path / "r"), viewing(tmp_path / "r") as view:
        write(store, create(Course(id="c")), create(student("maya", "c")))
        old.configure("synchronous_standby_names", "")
        new.promote()
        after = opened(new.url)
        write(after, remove(student("maya", "c").key))
        after.close()
        until(lambda: once_served(lambda: members(view, "maya") == []), "the follower stays with the old one")
        until(lambda: once_served(lambda: write(store, touch(Course(id="d"))) > 2), "there is no primary")
        assert old.revision() == 1
    store.close()


def opened(url: str) -> Store:
    """A store as a server opens it."""
    return open_store(url, vocabularies=lambda *_: VOCABULARY, clock=system_clock)


def test_a_database_notices_soon_that_a_host_vanished(clusters: Clusters) -> None:
    database = clusters.migrated()
    store = open_store(database.url, vocabularies=lambda *_: VOCABULARY, clock=Clock())
    asked = text("SELECT name, setting FROM pg_settings WHERE name LIKE 'tcp_%'")
    with (
        store.directory.transaction() as of_server,
        engine_for(database.url) as engine,
        read_transaction(engine) as of_command,
    ):
        for connection in (of_server.connection, of_command):
            assert {name: setting for name, setting in connection.execute(asked)} == {  # noqa: C416
                "tcp_keepalives_idle": "4",
                "tcp_keepalives_interval": "2",
                "tcp_keepalives_count": "3",
                "tcp_user_timeout": "10000",
            }
    store.close()
