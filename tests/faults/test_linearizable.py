"""What many clients see at once is what one register that takes writes in order would have shown them."""

from __future__ import annotations

from pathlib import Path

from tests.faults.agreement import require_right
from tests.faults.load import Load
from tests.faults.postgresql import Clusters
from tests.faults.processes import Node, running
from tests.serving import both_transports, over_grpc
from tests.waiting import until

pytestmark = over_grpc


def test_servers_that_are_killed_and_come_back_to_their_replicas(clusters: Clusters, tmp_path: Path) -> None:
    database = clusters.migrated()
    nodes = [Node(name, database.url, tmp_path) for name in ("one", "two")]
    with running(*nodes):
        with Load(nodes) as load:
            load.go_on(writes=30, checks=50)
            nodes[0].kill()
            load.go_on_at(nodes[1], writes=10, checks=10)
            nodes[1].kill()
            for node in nodes:
                node.launch()
            load.go_on(writes=30, checks=50)
        require_right(load, database.url, *nodes)


@both_transports
def test_a_server_on_sqlite_that_is_killed_and_comes_back(sqlite_url: str, tmp_path: Path) -> None:
    node = Node("one", sqlite_url, tmp_path)
    with running(node):
        with Load([node]) as load:
            load.go_on(writes=50, checks=50)
            node.kill()
            node.start()
            load.go_on(writes=50, checks=50)
        require_right(load, sqlite_url, node)


def test_workers_and_the_follower_that_are_killed_one_by_one(clusters: Clusters, tmp_path: Path) -> None:
    database = clusters.migrated()
    node = Node("one", database.url, tmp_path, AUTHZ_WORKERS="2")
    with running(node):
        family = node.workers()
        assert len(family) == 3
        with Load([node]) as load:
            for victim in family:
                load.go_on(writes=10, checks=10)
                victim.kill()
                until(
                    lambda gone=victim: gone not in node.workers() and len(node.workers()) == 3,  # type: ignore[misc]  # bound now
                    "the process was not replaced",
                )
            load.go_on(writes=10, checks=10)
        require_right(load, database.url, node)


def test_a_postgresql_that_crashes_and_comes_back(clusters: Clusters, tmp_path: Path) -> None:
    database = clusters.migrated()
    nodes = [Node(name, database.url, tmp_path) for name in ("one", "two")]
    with running(*nodes):
        with Load(nodes) as load:
            load.go_on(writes=30, checks=30)
            database.stop("immediate")
            load.go_on(checks=30, refused=1)
            database.start()
            load.go_on(writes=30, checks=30)
        require_right(load, database.url, *nodes)
