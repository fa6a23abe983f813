"""Tests beside a policy: what fails, what is touched, and which files are refused."""

from __future__ import annotations

import pytest

from authz.domain.errors import PolicyError
from authz.engine.policy_cases import Report, run_case_files
from authz.policy.cases import CaseFile, fault_of_case, read_case_file, read_tests
from authz.policy.compile import CompiledPolicy
from authz.policy.load import POLICY_FILE, policy_directory
from authz.policy.rows import MAX_FAULTS
from authz.replica.temporary import temporary_snapshot
from tests.policies import POLICY, SHIPPED
from tests.policy.leaks import LEAKS, Leak, leaking

TEXT = (policy_directory() / POLICY_FILE).read_text()
FILE = """\
now = "2026-03-01T12:00:00Z"

[directory]
courses = [{ id = "algebra", state = "ACTIVE" }]
memberships = [{ subject = "user:stu", scope = "course:algebra", role = "student" }]
resources = [
  { type = "material", id = "book", scope = "course:algebra", published = true },
  { type = "material", id = "soon", scope = "course:algebra", published = true, available_from = 2026-03-02 },
]

[cases]
"""
READS = '"reads" = { ask = "user:stu read material:book", '


def case_file(*cases: str) -> CaseFile:
    return read_case_file("some.toml", FILE + "\n".join(cases) + "\n", POLICY.vocabulary)


def report_of(*cases: str, policy: CompiledPolicy = POLICY) -> Report:
    return run_case_files(policy, [case_file(*cases)], temporary_snapshot)


@pytest.mark.parametrize(
    "case",
    [
        READS + "allowed = true }",
        READS + 'allowed = true, reason = "ROLE_GRANT", rule = "student" }',
        READS + 'allowed = false, purpose = "ai_response", reason = "EXPLICIT_DENY", rule = "*" }',
        READS + 'allowed = false, course = "poetry", reason = "SCOPE_MISMATCH" }',
        '"later" = { ask = "user:stu read material:soon", allowed = false }',
        '"then" = { ask = "user:stu read material:soon", allowed = true, now = "2026-03-02T00:00:00Z" }',
        '"none" = { ask = "user:stu read material:none", allowed = false, reason = "RESOURCE_UNKNOWN" }',
        '"makes" = { ask = "user:stu create notebook", course = "algebra", allowed = true }',
        '"who" = { ask = "user:nobody read material:book", allowed = false, reason = "NOT_A_MEMBER" }',
    ],
)
def test_a_case_passes_when_the_answer_is_the_one_it_expects(case: str) -> None:
    assert report_of(case).failed == ()


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        (READS + "allowed = false }", "is allowed (ROLE_GRANT by default.csv:"),
        (READS + 'allowed = true, rule = "teacher" }', "not by a row of `teacher`"),
        (
            READS + 'allowed = false, purpose = "ai_response", reason = "NOT_A_MEMBER" }',
            ", not for NOT_A_MEMBER",
        ),
        (
            READS + 'allowed = true, purpose = "training", reason = "PURPOSE_NOT_PERMITTED" }',
            "is denied (PURPOSE_NOT_PERMITTED), not allowed",
        ),
    ],
)
def test_a_case_fails_with_what_came_instead(case: str, problem: str) -> None:
    (outcome,) = report_of(case).failed
    assert (outcome.file, outcome.case) == ("some.toml", "reads")
    assert problem in outcome.problem


def test_a_report_names_the_rules_that_no_case_matched_and_the_cells_that_none_asked_about() -> None:
    report = report_of(READS + "allowed = true }")
    rows = [(rule.role, rule.type, rule.action, rule.condition) for rule in report.untouched_rules]
    assert ("student", "material", "read", "published") not in rows
    assert ("auditor", "material", "read", "published") in rows
    assert len(rows) == report.rules - 1 == len(POLICY.rules) - 1
    assert ("student", "material", "read") not in report.untouched_cells
    assert ("owner", "material", "read") in report.untouched_cells
    assert ("guest", "material", "delete") not in report.untouched_cells
    assert len(report.untouched_cells) == report.cells - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("stu read", "stu raed"), "`reads`: unknown action `raed` on material; did you mean `read`?"),
        (("material:book\"", "material:bok\""), "`reads`: `material:bok` is not in the directory; add it"),
        (("role = \"student\"", "role = \"studnet\""), "membership 1: unknown role `studnet`; did you mean"),
        (("ACTIVE", "ACTVE"), "course 1: unknown state `ACTVE`; did you mean `ACTIVE`?"),
        (("published = true }", "publishd = true }"), "resource 1: has no field `publishd`; did you mean"),
        (("published = true }", "published = 1 }"), "resource 1: published is `1`; write true or false"),
        (("published = true }", "available_from = 9 }"), "resource 1: available_from is `9`; write a time"),
        (("{ id = \"algebra\"", "{ id = 7"), "course 1: id is `7`; write text in quotes"),
        (("id = \"soon\"", "id = \"book\""), "material:book is in the directory twice; leave one out"),
        (("courses =", "curses ="), "unknown table `curses`; did you mean `courses`?"),
        (('scope = "course:algebra", published', "published"), "resource 1: needs `scope`"),
        (("{ id = \"algebra\"", "{ id = \"poetry\""), "which is not in the directory; add it"),
        (("allowed", "purpose = \"ai_reply\", allowed"), "`reads`: unknown purpose `ai_reply`; write"),
        (("allowed", "course = \"algbra\", allowed"), "`reads`: `course:algbra` is not in the dir"),
        (("allowed", "session = \"live\", allowed"), "`reads`: `session:live` is not in the dir"),
        (("allowed = true", "alowed = true"), "`reads`: unknown key `alowed`; did you mean `allowed`?"),
        (("allowed = true", "allowed = 1"), "`reads`: `allowed`: expected `bool`, got `int`"),
        ((", allowed = true", ""), "`reads`: needs `allowed`"),
        (("[cases]", "[casse]"), "needs `cases`"),
        (("[cases]", "[cases"), "is no TOML: expected ']' at the end of a table declaration"),
        (("now", "\ufeffnow"), "starts with a byte order mark; save it as UTF-8 without one"),
        (("now = \"2026-03-01T12", "now = \"2026-13-01T12"), "is not a time"),
    ],
)  # fmt: skip
def test_a_file_with_a_mistake_is_refused_with_its_place(change: tuple[str, str], message: str) -> None:
    text = FILE + READS + "allowed = true }\n"
    assert change[0] in text
    with pytest.raises(PolicyError) as caught:
        read_case_file("some.toml", text.replace(*change), POLICY.vocabulary)
    fault = caught.value.faults[0]
    assert fault.file == "some.toml"
    assert message in fault.text


def test_each_case_with_a_mistake_is_refused_at_its_line() -> None:
    with pytest.raises(PolicyError) as caught:
        case_file(
            '"raeds" = { ask = "user:stu raed material:book", allowed = true }',
            READS + "allowed = true }",
            '"lost" = { ask = "user:stu read material:lost", allowed = true }',
        )
    first = FILE.count("\n") + 1
    found = [(fault.line, fault.text.partition(":")[0]) for fault in caught.value.faults]
    assert found == [(first, "`raeds`"), (first + 2, "`lost`")]


@pytest.mark.parametrize("reason", ["", ', reason = "NO_RULE"'])
def test_the_denial_of_somebody_whom_no_record_names_is_refused(reason: str) -> None:
    with pytest.raises(
        PolicyError, match="`user:sut` is in no record of the directory; add a membership, or"
    ):
        case_file(f'"stu does not" = {{ ask = "user:sut read material:soon", allowed = false{reason} }}')


def test_each_of_many_cases_with_a_mistake_is_refused_at_its_line() -> None:
    spelled = ["bare-{}", "'in quotes {}'", '"{} = \\"x\\""', '"\\u00e9 {}"']
    names = [spelled[number % 4].format(number) for number in range(MAX_FAULTS)]
    first = FILE.count("\n") + 1
    with pytest.raises(PolicyError) as caught:
        case_file(*(f"{name} = 1" for name in names))
    lines = [fault.line for fault in caught.value.faults]
    # A name that TOML spells with an escape of its own choice is not looked for.
    assert [line for line in lines if line != 1] == [first + at for at in range(MAX_FAULTS) if at % 4 != 3]


def test_each_record_with_a_mistake_is_named_beside_each_case_with_one() -> None:
    text = FILE.replace("ACTIVE", "ACTVE").replace('"student"', '"studnet"').replace("published", "publishd")
    with pytest.raises(PolicyError) as caught:
        read_case_file("some.toml", f'{text}{READS}allowed = true, reason = "NO" }}\n', POLICY.vocabulary)
    named = [fault.text.partition(":")[0] for fault in caught.value.faults]
    assert named == ["course 1", "membership 1", "resource 1", "resource 2", "`reads`"]


def test_the_shipped_tests_pass_and_ask_for_every_role_that_has_rules() -> None:
    files = read_tests(SHIPPED, POLICY.vocabulary)
    report = run_case_files(POLICY, files, temporary_snapshot)
    assert len(report.outcomes) > 50
    assert report.failed == ()
    untouched = {role for role, _, _ in report.untouched_cells}
    touched = {cell for cell in POLICY.platform.allows if cell not in report.untouched_cells}
    assert {role for role, _, _ in touched} >= untouched


@pytest.mark.parametrize(
    "name", ["a role wildcard", "a missing `published`", "a message that a teacher corrects"]
)
def test_the_shipped_tests_find_a_leak(name: str) -> None:
    found = leaking(LEAKS[name])
    files = read_tests(SHIPPED, found.vocabulary)
    assert run_case_files(found, files, temporary_snapshot).failed


def test_the_shipped_tests_find_an_access_that_is_lost() -> None:
    row = "p, student, *, notebook, create, , allow"
    lost = leaking(Leak("", (), (row, "# gone")))
    files = read_tests(SHIPPED, lost.vocabulary)
    assert [outcome.case for outcome in run_case_files(lost, files, temporary_snapshot).failed] == [
        "a student creates a notebook"
    ]


def test_tests_that_take_too_long_are_refused() -> None:
    with pytest.raises(PolicyError, match=r"tests/some\.toml:1:1: the tests take too long"):
        run_case_files(POLICY, [case_file(READS + "allowed = true }")], temporary_snapshot, end_at=0.0)


@pytest.mark.parametrize("quoted", ['"it is"', "'it is'", '  "it is"  '])
def test_a_case_that_fails_is_found_in_its_file(quoted: str) -> None:
    text = f'now = "x"\n[cases]\n# it is\n{quoted} = {{ }}\n'
    fault = fault_of_case({"tests/a.toml": text}, "a.toml", "it is", "is denied, not allowed")
    assert (fault.file, fault.line) == ("tests/a.toml", 4)
    assert fault.text.startswith("the test `it is` fails: is denied, not allowed; ")
