"""Asks at the end whether all that is left says the same."""

from __future__ import annotations

from tests.faults.history import History, Outcome
from tests.faults.load import Load
from tests.faults.processes import Node
from tests.replica.conftest import generation_of, rows_of
from tests.replica.test_agreement import expected
from tests.store.directory import dumped, open_with
from tests.waiting import until


def require_right(load: Load, url: str, *nodes: Node) -> History:
    """Nothing in the history breaks a rule, and each replica comes to hold what the database holds."""
    store = open_with(url)
    try:
        history = load.history(store)
        found = [f"{violation.rule}: {violation.text}" for violation in history.violations()]
        assert not found, f"{len(found)} violations, such as\n" + "\n".join(found[:5])
        assert any(write.outcome is Outcome.OK for write in history.writes)
        with store.directory.dump() as dump:
            rows = expected(dumped(dump))
        for node in nodes:
            until(
                lambda node=node: generation_of(node.replica) != 0 and set(rows_of(node.replica)) == rows,  # type: ignore[misc]  # bound now
                f"the replica of {node.name} does not agree",
            )
        return history
    finally:
        store.close()
