"""Print how soon a preview finds its first rows, and all of them, and what it does to checks meanwhile."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from authz.domain.impact import Impact, PreviewTotals
from authz.engine.check import Checker
from authz.engine.preview.computation import Preview
from authz.policy.load import compile_files, load_policy, policy_directory
from authz.replica.view import ReplicaView
from authz.runtime.compose import system_clock
from authz.runtime.tuning import tune_interpreter
from tests.bench.campus import Campus
from tests.bench.measure import show
from tests.bench.replica import built
from tests.policies import with_rows

CHANGES = {
    "a role that nobody holds": "p, auditor, *, notebook, export, , allow",
    "what a student may create": "p, student, *, notebook, create, , deny",
    "what all may do with their own notebooks": "p, student, *, notebook, export, own, deny",
    "what all may do with others' notebooks": "p, student, *, notebook, read, !own & !shared_view, deny",
}


def bench_change(label: str, row: str, view: ReplicaView) -> None:
    """Rows of one change of the default policy."""
    before = Checker(load_policy(policy_directory()))
    after = Checker(compile_files(with_rows(row)))
    preview = Preview(view.snapshot(), before, after, system_clock(), max_examples=1, max_largest=20)
    begun, begun_cpu, first_s = time.perf_counter(), time.process_time(), 0.0
    for event in preview.events():
        if isinstance(event, Impact) and not first_s:
            first_s = time.perf_counter() - begun
    took_s, cpu_s = time.perf_counter() - begun, time.process_time() - begun_cpu
    assert isinstance(event, PreviewTotals)
    show(f"preview of {label}: first rows", f"{first_s * 1e3:.0f} ms", "goal 1 s")
    label = f"{'':>10} all {event.rows:,} rows of {event.members:,} memberships"
    show(label, f"{took_s:.1f} s", f"goal 10 s; {cpu_s:.1f} s of a CPU")


def main(size: int) -> None:
    """Over a replica of `size` memberships and resources."""
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as name:
        view = built(Campus(size), Path(name))
        tune_interpreter()  # as a server does
        for label, row in CHANGES.items():
            bench_change(label, row, view)
        view.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
