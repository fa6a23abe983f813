"""`authz policy` as an admin and a pipeline use it."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from authz.domain.files import files_digest, files_text
from authz.policy.load import POLICY_FILE, policy_directory, read_folder
from tests.cli.commands import run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped policy, to edit."""
    return shutil.copytree(policy_directory(), tmp_path / "my-policy")


def add(folder: Path, *rows: str) -> int:
    """Append rows; the line of the first."""
    file = folder / POLICY_FILE
    before = file.read_text()
    file.write_text(before + "".join(f"{row}\n" for row in rows))
    return before.count("\n") + 1


def test_validate_tells_faults_and_warnings_by_its_exit_code(folder: Path) -> None:
    assert run("policy", "validate", folder, "--strict").returncode == 0
    line = add(folder, "p, student, *, material, read, published & own, allow")
    found = run("policy", "validate", folder)
    assert found.returncode == 0
    assert found.stdout.startswith(f"warning: default.csv:{line}: changes nothing: default.csv:")
    assert run("policy", "validate", folder, "--strict").returncode == 1
    add(folder, "p, student, *, materiel, read, , allow")
    found = run("policy", "validate", folder)
    assert found.returncode == 2
    assert f"default.csv:{line + 1}:16: unknown type `materiel`; did you mean `material`?" in found.stderr


def test_validate_reads_the_invariants_and_the_tests_too_and_tells_the_digest_of_the_version(
    folder: Path, empty_sqlite_url: str
) -> None:
    valid = run("policy", "validate", folder).stdout
    database = ("--database", empty_sqlite_url)
    run("policy", "apply", folder, *database)
    versions = run("policy", "history", *database).stdout.splitlines()
    assert valid.endswith(f"; digest {versions[1].split()[-1]}\n")
    for name, text in (
        ("invariants.toml", '\n[never.mine]\nsays = "mine"\nwhen = "shwn"\n'),
        ("tests/mine.toml", "now = "),
    ):
        with (folder / name).open("a") as file:
            file.write(text)
    found = run("policy", "validate", folder)
    assert found.returncode == 2
    assert "unknown fact `shwn`" in found.stderr
    assert "tests/mine.toml:1:1: is no TOML" in found.stderr


def test_validate_gives_json_to_a_pipeline(folder: Path) -> None:
    line = add(folder, "p, student, *, material, read, published & own, allow")
    valid = json.loads(run("policy", "validate", folder, "--json").stdout)
    assert (valid["valid"], valid["faults"]) == (True, [])
    assert [warning["where"] for warning in valid["warnings"]] == [f"default.csv:{line}"]
    add(folder, "p, student, *, material, read, !own, allow")
    refused = run("policy", "validate", folder, "--json")
    assert refused.returncode == 2
    invalid = json.loads(refused.stdout)
    assert invalid.keys() == valid.keys()
    assert invalid["digest"] == files_digest(files_text(read_folder(folder))) != valid["digest"]
    (fault,) = invalid["faults"]
    assert (fault["file"], fault["line"], fault["column"]) == (POLICY_FILE, line + 1, 32)


def test_what_is_no_text_has_no_digest(folder: Path) -> None:
    (folder / "notes.txt").write_bytes(b"\xff")
    refused = run("policy", "validate", folder, "--json")
    assert refused.returncode == 2
    invalid = json.loads(refused.stdout)
    assert (invalid["valid"], invalid["digest"], len(invalid["faults"])) == (False, None, 1)


def test_a_file_of_a_spreadsheet_is_formatted_and_then_valid(folder: Path) -> None:
    file = folder / POLICY_FILE
    before = file.read_text()
    file.write_bytes(before.replace(",", ";").encode("utf-8-sig"))
    assert "authz policy format --write" in run("policy", "validate", folder).stderr
    printed = run("policy", "format", file).stdout
    assert run("policy", "format", file, "--write").stdout == ""
    assert file.read_text() == printed
    assert run("policy", "validate", folder).returncode == 0
    file.write_text("")  # as by a shell, for `> default.csv`
    emptied = run("policy", "format", file)
    assert emptied.returncode == 2 and "is empty; if a shell has emptied it" in emptied.stderr


def test_a_copied_role_is_added_to_the_file_and_valid(folder: Path) -> None:
    rows = run("policy", "copy-role", "teaching_assistant", "grader", folder, "--rank", "25").stdout
    add(folder, *rows.splitlines())
    assert run("policy", "validate", folder, "--strict").returncode == 0
    shown = [
        run("policy", "show", folder, "--role", role).stdout for role in ("grader", "teaching_assistant")
    ]
    assert shown[0].count("\n") == shown[1].count("\n") > 20


def test_the_invariants_that_would_not_cover_a_copied_role_are_named(folder: Path) -> None:
    note = "note: invariants.toml lists `ai_gateway` in the `roles` of "
    copied = run("policy", "copy-role", "ai_gateway", "helper", folder)
    assert f"{note}`callers-open-nothing-but-the-api`, `ai-gateways-ask-about-ai-only`; add `helper`" in (
        copied.stderr
    )
    add(folder, *copied.stdout.splitlines(), "p, helper, *, api, list_subjects, , allow")
    assert run("policy", "prove", folder).returncode == 0  # so nobody else would say it
    assert "note: " not in run("policy", "copy-role", "student", "pupil", folder).stderr
    (folder / "invariants.toml").write_text("never = 1")
    assert run("policy", "copy-role", "ai_gateway", "other", folder).returncode == 0


def test_the_rules_of_a_role_are_its_own_the_inherited_ones_and_the_gates(folder: Path) -> None:
    def rules(*options: str) -> list[tuple[str, str]]:
        shown = run("policy", "show", folder, *options, "--json").stdout.splitlines()
        return [(rule["role"], rule["type"]) for rule in map(json.loads, shown)]

    of_owner = rules("--role", "owner")
    assert {role for role, _ in of_owner} == {"owner", "teacher", "*"}
    assert {role for role, _ in rules("--role", "student")} == {"student", "*"}
    of_notebooks = rules("--role", "owner", "--type", "notebook")
    assert {type_name for _, type_name in of_notebooks} == {"notebook", "*"}
    assert len(of_notebooks) < len([each for each in of_owner if each[1] in ("notebook", "*")])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "--role", "studnt"), "unknown role `studnt`; did you mean `student`?"),
        (("show", "--type", "notebok"), "unknown type `notebok`; did you mean `notebook`?"),
        (("copy-role", "studnt", "pupil"), "unknown role `studnt`; did you mean `student`?"),
        (("copy-role", "student", "pupil", "--rank", "1001"), "less than or equal to 1000"),
    ],
)
def test_what_a_policy_does_not_declare_is_told(arguments: tuple[str, ...], says: str) -> None:
    found = run("policy", *arguments, "--version", "shipped")
    assert (found.returncode, found.stdout) == (2, "")
    assert says in found.stderr


def test_prove_tells_a_leak_by_its_exit_code_and_as_a_test(folder: Path, tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.json"
    proved = run("policy", "prove", folder, "--certificate", certificate)
    assert (proved.returncode, proved.stdout.split(":")[0]) == (0, "proved")
    kept = json.loads(run("policy", "prove", folder, "--check", certificate, "--json").stdout)
    assert (kept["holds"], kept["invariants"]) == (True, 23)
    line = add(folder, "p, student, course:algebra, material, read, , allow")
    checked = run("policy", "prove", folder, "--check", certificate)
    assert (checked.returncode, checked.stderr) == (
        2,
        f"read the policy in `{folder}`\nerror: the certificate is of another policy; prove this one\n",
    )
    broken = run("policy", "prove", folder)
    assert broken.returncode == 1
    assert broken.stdout.startswith("broken: unpublished-materials: ")
    assert f"default.csv:{line}: student, course:algebra, material, read, , allow" in broken.stdout
    assert '"user:somebody read material:a-resource", allowed = false' in broken.stdout


def test_prove_groups_many_broken_rows_by_invariant(folder: Path) -> None:
    roles = ("student", "auditor", "alumni", "attendee", "guest")
    lines = [add(folder, f"p, {role}, *, material, read, , allow") for role in roles]
    grouped = run("policy", "prove", folder)
    assert grouped.returncode == 1
    assert grouped.stdout.count("broken: unpublished-materials: ") == 1
    assert [f"default.csv:{line}: " in grouped.stdout for line in lines] == [True] * 3 + [False] * 2
    assert "  and 2 more rows of `attendee` 1, `guest` 1\n" in grouped.stdout
    assert grouped.stdout.count("a test that fails until it is mended") == 1
    assert grouped.stdout.endswith("1 of 23 invariants do not hold because of 5 rows; --verbose prints all\n")
    every = run("policy", "prove", folder, "--verbose").stdout
    assert all(f"default.csv:{line}: " in every for line in lines)
    assert every.count("a test that fails until it is mended") == len(roles)
    assert "--verbose" not in every


def test_prove_gives_json_to_a_pipeline(folder: Path) -> None:
    proved = json.loads(run("policy", "prove", folder, "--json").stdout)
    assert (proved["proved"], proved["breaches"]) == (True, [])
    assert proved["certificate"]["obligations"] > 1000
    add(folder, "p, student, *, material, read, own, allow")
    broken = json.loads(run("policy", "prove", folder, "--json").stdout)
    assert (broken["proved"], broken["certificate"]) == (False, None)
    (breach,) = broken["breaches"]
    assert (breach["invariant"], breach["facts"]) == ("unpublished-materials", ["own"])
    assert breach["counterexample"]["directory"]["courses"] == [{"id": "a-course", "state": "ACTIVE"}]


def test_a_certificate_that_is_none_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "certificate.json").write_text("{}")
    checked = run("policy", "prove", folder, "--check", tmp_path / "certificate.json")
    assert checked.returncode == 2
    assert "certificate.json` is not a certificate" in checked.stderr


def test_diff_tells_what_changes_for_whom(folder: Path) -> None:
    same = run("policy", "diff", policy_directory(), folder)
    assert (same.returncode, same.stdout) == (
        0,
        "no access changes: by their own rules, the two policies decide everything alike\n",
    )
    add(folder, "p, teaching_assistant, *, material, publish, , allow")
    changed = run("policy", "diff", policy_directory(), folder)
    assert (changed.returncode, changed.stdout) == (
        1,
        "`teaching_assistant` gains publish on material, when !for_ai_response & !course_archived\n",
    )
    (cell,) = json.loads(run("policy", "diff", policy_directory(), folder, "--json").stdout)["cells"]
    assert (cell["role"], cell["course_id"], cell["losses"]) == ("teaching_assistant", None, [])
    assert cell["gains"] == ["!for_ai_response & !course_archived"]


def test_the_tests_of_a_policy_report_to_people_and_pipelines(folder: Path, tmp_path: Path) -> None:
    passed = run("policy", "test", folder)
    assert (passed.returncode, passed.stdout.split(",")[0]) == (0, "passed 89")
    assert "rules: " in passed.stdout
    assert "untouched: " in passed.stdout
    line = add(folder, "p, teaching_assistant, *, material, publish, , allow")
    junit = tmp_path / "junit.xml"
    failed = run("policy", "test", folder, "--junit", junit, "--json")
    assert failed.returncode == 1
    report = json.loads(failed.stdout)
    assert (report["passed"], report["failed"]) == (88, 1)
    suites = ElementTree.parse(junit).getroot()  # noqa: S314  written by the command above
    suite = next(each for each in suites if each.get("name") == "course.toml")
    assert (suite.get("tests"), suite.get("failures")) == ("59", "1")
    (failure,) = suite.iter("failure")
    assert f"by default.csv:{line}" in str(failure.get("message"))


def test_the_name_of_a_test_may_have_any_characters(folder: Path, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    name = r'"]]> <&\" \u001b[2J\n\uFFFE"'
    (folder / "tests/odd.toml").write_text(
        'now = "2026-03-01T12:00:00Z"\n[directory]\ncourses = [{ id = "alg", state = "ACTIVE" }]\n'
        f'[cases]\n{name} = {{ ask = "user:x read course:alg", allowed = true }}\n'
    )
    shown = r']]> <&" \x1b[2J\n\ufffe'
    failed = run("policy", "test", folder, "--junit", junit)
    assert (
        failed.stdout.splitlines()[0] == f"failed: odd.toml: {shown}: is denied (NOT_A_MEMBER), not allowed"
    )
    cases = ElementTree.parse(junit).getroot().iter("testcase")  # noqa: S314  written by the command above
    assert [each.get("name") for each in cases if each.get("classname") == "odd.toml"] == [shown]


def test_what_is_no_file_in_the_folder_of_a_policy_is_a_fault(folder: Path) -> None:
    (folder / "tests/course.toml").unlink()
    (folder / "tests/course.toml").symlink_to("moved.toml")
    refused = run("policy", "test", folder)
    assert refused.returncode == 2
    assert "tests/course.toml:1:1: is no file that can be read, or a link to nothing" in refused.stderr


def test_a_counterexample_is_a_test_until_the_leak_is_mended(folder: Path) -> None:
    before = (folder / POLICY_FILE).read_text()
    add(folder, "p, student, *, material, read, own, allow")
    printed = run("policy", "prove", folder).stdout.partition("mended:\n")[2]
    (folder / "tests/leak.toml").write_text(textwrap.dedent(printed))
    assert "failed: leak.toml: no role below" in run("policy", "test", folder).stdout
    (folder / POLICY_FILE).write_text(before)
    assert run("policy", "test", folder).returncode == 0


@pytest.mark.parametrize("command", ["validate", "show", "prove", "test", "apply", "diff"])
def test_a_folder_that_is_none_of_a_policy_is_not_read(command: str, sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff")
    refused = run("policy", command, tmp_path, "--database", sqlite_url)
    assert refused.returncode == 2
    assert f"default.csv:1:1: is not in `{tmp_path}`; name a policy folder" in refused.stderr
    assert "photo" not in refused.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda folder: (folder / "big.txt").write_text("x" * (1 << 20)),
            "and the largest file is `big.txt`",
        ),
        (lambda folder: (folder / "é.txt").touch(), "has a file named `\\xe9.txt`; use letters"),
        (
            lambda folder: (folder / "invariants.toml").write_text("# none\n"),
            "has no invariant, so nothing would",
        ),
    ],
    ids=["size", "name", "invariants"],
)
def test_validate_refuses_what_apply_would_refuse(
    folder: Path, change: Callable[[Path], object], says: str
) -> None:
    change(folder)
    found = run("policy", "validate", folder)
    assert found.returncode == 2
    assert says in found.stderr


@pytest.mark.parametrize("content", ["# none\n", None])
def test_nothing_is_called_proved_without_invariants(folder: Path, content: str | None) -> None:
    invariants = folder / "invariants.toml"
    if content is None:
        invariants.unlink()
    else:
        invariants.write_text(content)
    found = run("policy", "prove", folder)
    assert (found.returncode, found.stdout) == (2, "")
    assert "so nothing would be proved" in found.stderr
