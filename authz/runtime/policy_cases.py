"""Composes the tests of a policy: its files, the engine, and a temporary replica."""

from __future__ import annotations

from collections.abc import Mapping

from authz.engine.policy_cases import Report, run_case_files
from authz.policy.cases import read_tests
from authz.policy.load import compile_files
from authz.replica.temporary import temporary_snapshot

__all__ = ["Report", "run_policy_tests"]


def run_policy_tests(files: Mapping[str, str]) -> Report:
    """Run every test file among the files of a policy. Raises `PolicyError`."""
    policy = compile_files(files)
    return run_case_files(policy, read_tests(files, policy.vocabulary), temporary_snapshot)
