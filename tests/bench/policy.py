"""What it takes to load, prove and compare policies: the default one, and one of a large platform."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from authz.domain.ids import ScopeKind
from authz.policy.certificate import check_certificate
from authz.policy.compile import CompiledPolicy
from authz.policy.copy_role import copy_role
from authz.policy.diff import diff
from authz.policy.invariants import read_invariants
from authz.policy.load import MODEL_FILE, POLICY_FILE, load_policy, policy_directory
from authz.policy.prove import prove
from tests.bench.measure import show
from tests.policies import SHIPPED

ROLES, COURSES, ROWS_A_COURSE = 200, 360, 100
CELLS = [
    (type_name, action)
    for type_name in ("notebook", "message", "session_note")
    for action in ("read", "update", "delete")
]
CONDITIONS = [
    ("own & published", "allow"),
    ("own & locked & shared_view", "allow"),
    ("own & within_edit_window", "allow"),
    ("locked & !shared_view", "deny"),
    ("!own & !shared_view & !published", "deny"),
]


def large_policy(folder: Path) -> CompiledPolicy:
    """200 roles, copied from those of the default policy, and 36,000 rows that override it in 360 courses."""
    default, rng = load_policy(policy_directory()), random.Random(11)
    # The invariants let nobody else have what these have.
    unique = ("owner", "platform_admin", "privacy_officer", "policy_editor", "operator")
    copied = [role for role in default.vocabulary.roles if role not in unique]
    names = {f"{copied[n % len(copied)]}_{n}": copied[n % len(copied)] for n in range(ROLES - 12)}
    text = [(policy_directory() / POLICY_FILE).read_text()]
    text += [copy_role(default, original, name) for name, original in names.items()]
    kinds = default.vocabulary.roles
    roles = [name for name, original in names.items() if kinds[original].scope_kind is ScopeKind.COURSE]
    options = [(role, *cell, *condition) for role in roles for cell in CELLS for condition in CONDITIONS]
    for course in range(COURSES):
        for role, type_name, action, condition, effect in rng.sample(options, ROWS_A_COURSE):
            text.append(f"p, {role}, course:c{course}, {type_name}, {action}, {condition}, {effect}\n")
    (folder / MODEL_FILE).write_bytes((policy_directory() / MODEL_FILE).read_bytes())
    (folder / POLICY_FILE).write_text("".join(text))
    return load_policy(folder)


def bench_proof(label: str, policy: CompiledPolicy, goal_s: float) -> None:
    """Rows of proving the shipped invariants, and of checking the certificate."""
    invariants = read_invariants(SHIPPED, policy.vocabulary)
    begun = time.perf_counter()
    proof = prove(policy, invariants)
    took_s = time.perf_counter() - begun
    assert proof.certificate is not None, proof.breaches[:1]
    show(f"proving {label}", f"{took_s:.2f} s", f"goal {goal_s:g} s")
    begun = time.perf_counter()
    check_certificate(proof.certificate, policy, invariants)
    show(
        f"checking its certificate over {proof.certificate.obligations:,} obligations",
        f"{time.perf_counter() - begun:.2f} s",
    )


def with_one_row_more(folder: Path) -> CompiledPolicy:
    """The policy in the folder with one row more for all courses."""
    with (folder / POLICY_FILE).open("a") as file:
        file.write("p, teaching_assistant, *, material, publish, , allow\n")
    return load_policy(folder)


def bench_diff(label: str, before: CompiledPolicy, after: CompiledPolicy) -> None:
    """A row of comparing two policies."""
    begun = time.perf_counter()
    found = diff(before, after)
    show(f"diff {label}: {len(found.cells):,} cells", f"{time.perf_counter() - begun:.2f} s")


def main() -> None:
    """All of it."""
    bench_proof("the default policy", load_policy(policy_directory()), 1)
    with tempfile.TemporaryDirectory() as name:
        begun = time.perf_counter()
        large = large_policy(Path(name))
        show("loading 200 roles and 36,000 override rows", f"{time.perf_counter() - begun:.1f} s")
        bench_proof("200 roles and 36,000 override rows", large, 30)
        bench_diff("to it from the default policy", load_policy(policy_directory()), large)
        bench_diff("between two that differ in one row", large, with_one_row_more(Path(name)))


if __name__ == "__main__":
    main()
