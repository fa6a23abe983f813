"""The databases that benches fill past the service, which the schema of the day must take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from authz.client import check_request
from tests.bench import course_policies
from tests.bench.campus import Campus
from tests.service import serve


def _plain(_: Path) -> Campus:
    return Campus(8, members_a_course=2)


def _policies(_: Path) -> Campus:
    return course_policies.CampusWithPolicies()


def _rows(folder: Path) -> Campus:
    return course_policies.CampusWithRows(course_policies.folder_with_rows(folder))


@pytest.mark.parametrize(("make", "course_policy"), [(_plain, ""), (_policies, "1"), (_rows, "")])
async def test_a_server_serves_what_a_bench_filled(
    make: Callable[[Path], Campus], course_policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course_policies, "COURSES", 2)
    campus = make(tmp_path)
    async with serve(campus.fill_sqlite(tmp_path / "bench.db")) as service:
        check, notebook = service.authorization.Check, "notebook:n00000000"
        own, others = [
            await check(check_request(f"user:u{user:08d}", "read", notebook))
            for user in (0, campus.courses)  # both members of the first course
        ]
    assert own.allowed
    assert own.course_policy_version == course_policy
    assert others.allowed is (make is _plain)  # rows about the course deny it
