"""Print what a check costs while a candidate decides beside the active policy, against without."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from authz.client import Client, check_request
from authz.domain.drafts import SetCell
from tests.bench.campus import Campus
from tests.bench.measure import show
from tests.bench.serving import ROUNDS, drive, running
from tests.serving import AUTHZ

SHARES = (1e-12, 0.01, 1.0)
"""None in practice, that of the goal, and all, as far as the budget lets."""
_START_S = 3.0
"""After which every server has found what was started."""


def bench(folder: Path, size: int) -> None:
    """A server for each share, and one without a shadow, asked in turns; each over a database of its own."""
    campus = Campus(size)
    checks = [check_request(*ids).SerializeToString() for ids in campus.questions(10_000)]
    check = itertools.cycle(checks).__next__
    with ExitStack() as stack:
        servers = []
        for number, share in enumerate((None, *SHARES)):
            url = campus.fill_sqlite(folder / f"bench{number}.db")
            pid, address, _ = stack.enter_context(running([str(AUTHZ), "serve"], AUTHZ_DATABASE_URL=url))
            servers.append((address, pid))
            if share is not None:
                client = stack.enter_context(Client(address))
                draft = client.policies.drafts.create("bench")
                client.policies.drafts.edit(
                    draft, [SetCell("student", "notebook", "update", ("shared_edit",))]
                )
                client.policies.shadow.start("bench", share=share)
        time.sleep(_START_S)
        rows = [[asyncio.run(drive(*each, "Check", check)) for each in servers] for _ in range(ROUNDS)]
        time.sleep(2 * _START_S)
        for share, (address, _) in zip(SHARES, servers[1:], strict=True):
            report = stack.enter_context(Client(address)).policies.shadow.read()
            assert report is not None
            tally = report.tally
            label = f"share {share:.2g}: compared, different, over the budget"
            show(label, f"{tally.compared:,} {tally.differing:,} {tally.skipped:,}")
            if tally.compared:
                show("  the cost of one comparison", f"{tally.elapsed_us / tally.compared:.0f} us")
    for place, share in enumerate(SHARES, 1):
        ratio = statistics.median(row[place][1] / row[0][1] for row in rows)
        show(
            f"Check beside a shadow of {share:.0%} of the checks, against without, by processor",
            f"{ratio:.3f}x",
            "goal 1.05x" if share < 1 else "",
        )


def main(size: int = 10_000) -> None:
    """Over SQLite databases of one campus."""
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder:
        bench(Path(folder), size)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 10_000)
