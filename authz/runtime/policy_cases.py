"""Composes the tests of a policy: its folder, the engine, and a temporary replica."""

from __future__ import annotations

from pathlib import Path

from authz.engine.policy_cases import Report, run_case_files
from authz.policy.cases import load_case_files
from authz.policy.load import load_policy
from authz.replica.temporary import temporary_snapshot

__all__ = ["Report", "run_policy_tests"]


def run_policy_tests(directory: Path) -> Report:
    """Run every test file of a policy folder. Raises `PolicyError`, and `InvalidArgumentError` for a file."""
    policy = load_policy(directory)
    return run_case_files(policy, load_case_files(directory, policy.vocabulary), temporary_snapshot)
