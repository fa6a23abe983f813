"""Print how many checks and writes fail while two servers over one PostgreSQL are restarted in turn.

    python -m tests.bench.restarts [restarts]

Each server has two workers. Eight clients, four of each kind, know both addresses.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from authz.client import CallError, Client
from authz.domain.entities import Course
from authz.domain.mutations import Mutation, Operation
from tests.bench.measure import show
from tests.faults.postgresql import Cluster, Clusters
from tests.faults.processes import Node

CLIENTS = 4
PAUSE_S = 0.01
CALM_S = 2.0
"""Before the first restart, and after each."""
REASON = "a restart"


class Load:
    """Clients that check and write until they are stopped."""

    def __init__(self, nodes: list[Node]) -> None:
        self.outcomes: Counter[str] = Counter()
        self.written: list[str] = []
        self._addresses = [node.address for node in nodes]
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(number, name, call))
            for number in range(CLIENTS)
            for name, call in (("writes", self._write), ("checks", self._check))
        ]

    def __enter__(self) -> Load:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, number: int, name: str, call: Callable[[Client, str], None]) -> None:
        addresses = self._addresses[number % 2 :] + self._addresses[: number % 2]
        turn = 0
        with Client(f"ipv4:{','.join(addresses)}") as client:
            # Paused, or the clients would take the processors from the servers that start.
            while not self._stopped.wait(PAUSE_S):
                turn += 1
                try:
                    call(client, f"c{number}-{turn}")
                except CallError as error:
                    self.outcomes[f"{name} that fail: {error}"] += 1
                else:
                    self.outcomes[name] += 1

    def _write(self, client: Client, name: str) -> None:
        client.write([Mutation(Operation.CREATE, Course(id=name))], reason=REASON)
        self.written.append(name)

    def _check(self, client: Client, _: str) -> None:
        client.check("user:maya", "read", "course:algebra-1")


def revisions_of(cluster: Cluster) -> int:
    """How many writes of the load are in the change log."""
    with cluster.connect() as connection:
        row = connection.execute("SELECT count(*) FROM revisions WHERE reason = %s", (REASON,)).fetchone()
    assert row is not None
    return int(str(row[0]))


def main(restarts: int) -> None:
    """Restart the servers in turn, under load."""
    clusters = Clusters()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authz-bench-")))
        stack.callback(clusters.delete, all_of_them=True)
        cluster = clusters.migrated()
        nodes = [Node(name, cluster.url, folder, AUTHZ_WORKERS="2") for name in ("one", "two")]
        for node in nodes:
            stack.callback(node.kill)
            node.start()
        with Load(nodes) as load:
            time.sleep(CALM_S)
            for number in range(restarts):
                nodes[number % 2].terminate()
                nodes[number % 2].start()
                time.sleep(CALM_S)
        for name, count in sorted(load.outcomes.items()):
            show(name, str(count), "0" if "fail" in name else "")
        lost_or_twice = revisions_of(cluster) - len(load.written)
        show("writes in the change log, less those acknowledged", str(lost_or_twice), "0")


if __name__ == "__main__":
    main(int((*sys.argv[1:], "4")[0]))
