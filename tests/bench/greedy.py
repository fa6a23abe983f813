"""Print what six greedy clients of each kind cost an honest one, on one worker and on two: a minute each.

    python -m tests.bench.greedy [seconds [kind …]]

The figures are ratios within one run. See tests/faults/greedy.py for the kinds; without a name, all of them.
`LIMITS=<file>` in the environment sets AUTHZ_LIMITS_FILE of the server, and `TRANSPORT=envoy` its transport.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.campus import Campus
from tests.faults.greedy import KINDS, kind_name
from tests.faults.honest import calm_and_greedy, show_figures
from tests.serving import drain, serving

SIZE = 200_000


def main(seconds: float, names: Sequence[str] = ()) -> None:
    """Over a SQLite database of a campus, so that a read of everything is costly."""
    limits = os.environ.get("LIMITS", "")
    kinds = [kind for kind in KINDS if not names or kind_name(kind) in names]
    for workers in ("1", "2"):
        with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder:
            url = Campus(SIZE).fill_sqlite(Path(folder) / "bench.db")
            with serving(url, AUTHZ_WORKERS=workers, AUTHZ_LIMITS_FILE=limits) as (process, address):
                drain(process)
                calm, busy, outcomes = calm_and_greedy(address, process.pid, seconds, kinds)
        print(f"workers: {workers}; goals: 3 for checks, 5 for revocations")
        show_figures(calm, busy, outcomes)
        for fault in sorted(set(calm.faults + busy.faults)):
            print(f"  fault of the honest client: {fault}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else 60.0, sys.argv[2:])
