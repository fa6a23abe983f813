"""What a policy must pass before it is stored: each fault, broken invariant and failed test is told."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import pytest

from authz.domain.drafts import Authorship
from authz.domain.errors import ErrorReason, UnavailableError
from authz.domain.files import MAX_FILES_BYTES, files_text
from authz.engine.publish import publication
from authz.v1 import common_pb2 as pb
from authz.v1 import policy_pb2 as ppb
from tests.api.test_api import COURSE, MATERIAL, STUDENT, question, written
from tests.api.test_policies import active, applied, messages, refused
from tests.policies import CLOSED, SAYS, SHIPPED, with_rows
from tests.service import Service, in_process, reason_of, violations_of
from tests.store.directory import open_with, write


async def test_a_policy_with_faults_is_refused_with_each_place_and_remedy(sqlite_service: Service) -> None:
    faulty = with_rows("p, studnt, *, notebook, read, own, allow", "p, student, *, notebook, read, own, alow")
    lines = len(SHIPPED["default.csv"].splitlines())
    error = await refused(applied(sqlite_service, faulty))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "POLICY_INVALID")
    first, second = violations_of(error)
    assert first.field.startswith(f"default.csv:{lines + 1}:")
    assert "did you mean `student`?" in first.description
    assert second.field.startswith(f"default.csv:{lines + 2}:")
    listed = await sqlite_service.policy.ValidatePolicy(ppb.ValidatePolicyRequest(files=messages(faulty)))
    assert [(fault.file, fault.line) for fault in listed.faults] == [
        ("default.csv", lines + 1),
        ("default.csv", lines + 2),
    ]
    assert (await active(sqlite_service)).active_number == 1
    fine = await sqlite_service.policy.ValidatePolicy(ppb.ValidatePolicyRequest(files=messages(SHIPPED)))
    assert not fine.faults


async def test_more_faults_than_an_error_can_hold_are_counted_and_listed_by_validation(
    sqlite_service: Service,
) -> None:
    faulty = with_rows(*(f"p, nobody_{number}, *, notebook, read, own, allow" for number in range(500)))
    error = await refused(applied(sqlite_service, faulty))
    assert "500 faults" in str(error.details())
    assert 1 <= len(violations_of(error)) < 500
    listed = await sqlite_service.policy.ValidatePolicy(ppb.ValidatePolicyRequest(files=messages(faulty)))
    assert len(listed.faults) == 500


async def test_a_policy_that_breaks_an_invariant_is_refused_with_who_could_do_what(
    sqlite_service: Service,
) -> None:
    leak = with_rows("p, student, *, material, read, , allow")
    error = await refused(applied(sqlite_service, leak))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "POLICY_INVALID")
    (violation, *_) = violations_of(error)
    assert violation.field == f"default.csv:{len(leak['default.csv'].splitlines())}:1"
    assert "it allows read on material to student when" in violation.description
    without = {name: text for name, text in SHIPPED.items() if name != "invariants.toml"}
    error = await refused(applied(sqlite_service, without))
    assert "invariants.toml:1:1: is missing" in str(error.details())
    assert (await active(sqlite_service)).active_number == 1


async def test_a_policy_that_fails_its_own_tests_is_refused_with_each_case(sqlite_service: Service) -> None:
    service = sqlite_service
    fails = SHIPPED | {"tests/mine.toml": SAYS % "true"}
    error = await refused(applied(service, fails))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "POLICY_INVALID")
    (violation,) = violations_of(error)
    assert violation.field == "tests/mine.toml:9:1"
    assert "the test `a student changes it` fails: is denied (NO_RULE), not allowed" in violation.description
    listed = await service.policy.ValidatePolicy(ppb.ValidatePolicyRequest(files=messages(fails)))
    assert [(fault.file, fault.line) for fault in listed.faults] == [("tests/mine.toml", 9)]
    assert (await active(service)).active_number == 1


async def test_a_test_file_that_cannot_be_read_is_refused_with_its_name(sqlite_service: Service) -> None:
    files = SHIPPED | {"tests/mine.toml": "now = ", "tests/other.toml": SAYS % "maybe"}
    error = await refused(applied(sqlite_service, files))
    assert [each.field for each in violations_of(error)] == ["tests/mine.toml:1:1", "tests/other.toml:9:78"]


async def test_the_faults_of_the_invariants_and_of_the_tests_are_told_together(
    sqlite_service: Service,
) -> None:
    files = SHIPPED | {
        "invariants.toml": SHIPPED["invariants.toml"] + '[never.mine]\nsays = "x"\ntypes = ["materal"]\n',
        "tests/mine.toml": (SAYS % "false").replace(" update ", " updte "),
    }
    error = await refused(applied(sqlite_service, files))
    assert {each.field.partition(":")[0] for each in violations_of(error)} == {
        "invariants.toml",
        "tests/mine.toml",
    }


async def test_a_publish_says_how_many_tests_passed_and_what_none_touches(sqlite_service: Service) -> None:
    service = sqlite_service
    published = await applied(service, with_rows("# as shipped") | {"tests/mine.toml": SAYS % "false"})
    tests = published.tests
    assert (published.active.number, tests.passed) == (2, 2)
    assert tests.untouched_rules == tests.rules - 1
    assert tests.untouched_rule_examples[0].source.startswith("default.csv:")
    untouched = [(cell.role, cell.type, cell.action) for cell in tests.untouched_cell_examples]
    assert ("student", "course", "read") not in untouched
    assert ("teacher", "course", "read") in untouched
    back = await service.policy.RollBackPolicy(ppb.RollBackPolicyRequest(number=1))
    assert back.tests.passed > 2


async def test_a_rollback_to_a_version_that_fails_its_tests_is_refused(
    sqlite_service: Service, sqlite_url: str
) -> None:
    """As one is that an earlier release published."""
    store = open_with(sqlite_url)
    files = files_text(with_rows("# old") | {"tests/mine.toml": SAYS % "true"})
    for number, text in ((2, files), (3, files_text(SHIPPED))):
        write(store, *publication(number, text, Authorship(), 0, 0 if number == 1 else 1).mutations)
    store.close()
    error = await refused(sqlite_service.policy.RollBackPolicy(ppb.RollBackPolicyRequest(number=2)))
    assert reason_of(error) == "POLICY_INVALID"
    assert "`a student changes it` fails" in str(error.details())
    assert (await active(sqlite_service)).active_number == 3


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "files has 0 files"),
        ({"../default.csv": ""}, "has a file named `../default.csv`"),
        (SHIPPED | {"notes.txt": "a\0b"}, "`notes.txt`, which is not text"),
        (SHIPPED | {"notes.txt": "x" * MAX_FILES_BYTES}, f"at most {MAX_FILES_BYTES} are kept"),
    ],
    ids=["none", "name", "no text", "size"],
)
async def test_files_that_cannot_be_kept_are_refused(
    sqlite_service: Service, files: dict[str, str], says: str
) -> None:
    error = await refused(applied(sqlite_service, files))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert says in str(error.details())


async def test_a_folder_without_its_model_is_refused(sqlite_service: Service) -> None:
    error = await refused(applied(sqlite_service, {"default.csv": SHIPPED["default.csv"]}))
    assert reason_of(error) == "POLICY_INVALID"
    assert "model.conf" in str(error.details())


async def test_validating_only_stores_nothing(sqlite_service: Service) -> None:
    tried = await applied(sqlite_service, CLOSED, validate_only=True)
    assert (tried.changed, tried.active.number) == (True, 1)
    assert (await active(sqlite_service)).active_number == 1


@in_process
@pytest.mark.parametrize(
    ("slow", "call", "request_"),
    [
        ("publish.prove_and_test", "ValidatePolicy", ppb.ValidatePolicyRequest(files=messages(CLOSED))),
        ("publish.prove_files", "ReadPolicyVersion", ppb.ReadPolicyVersionRequest(include_certificate=True)),
        ("compare.diff_files", "DiffPolicyVersions", ppb.DiffPolicyVersionsRequest()),
    ],
)
async def test_however_many_policies_are_proved_and_compared_the_database_is_read_at_once(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch, slow: str, call: str, request_: Any
) -> None:
    service, begun, may_end = sqlite_service, threading.Event(), threading.Event()
    module, _, name = slow.partition(".")

    def wait(*_: object) -> Any:
        begun.set()
        assert may_end.wait(60)
        raise UnavailableError(ErrorReason.STORE_UNAVAILABLE, "the end of the test")

    await written(service, COURSE, STUDENT, MATERIAL)
    monkeypatch.setattr(f"authz.engine.{module}.{name}", wait)
    calls = [asyncio.ensure_future(getattr(service.policy, call)(request_)) for _ in range(8)]
    try:
        assert await asyncio.to_thread(begun.wait, 30)
        newest = pb.Consistency(fully_consistent=True)
        for _ in range(10):  # by then every call has read its version, and computes or waits to
            answer = await service.authorization.Check(question(consistency=newest), timeout=30)
            assert answer.allowed
    finally:
        may_end.set()
        await asyncio.gather(*calls, return_exceptions=True)
