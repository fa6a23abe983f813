"""The command line as a person or a script uses it, against a real service."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from authz.cli.command import Context
from authz.cli.connection import DEFAULT_ADDRESS, connect
from authz.cli.output import print_rows
from authz.client import Client
from authz.domain.entities import Account
from authz.domain.ids import parse_subject
from authz.domain.mutations import Mutation, Operation
from authz.policy.load import policy_directory
from authz.runtime.settings import Settings
from tests import forkserver
from tests.cli.commands import run
from tests.serving import served

UNKNOWN = "RESOURCE_UNKNOWN (the resource, its course or its session is not registered)"


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a roster and, imported from it by command, the database `cli.db`."""
    folder = tmp_path_factory.mktemp("imported")
    here = ("--database", f"sqlite:///{folder / 'cli.db'}")
    (folder / "classes.csv").write_text("sourcedId,status\nalg,active\n")
    (folder / "enrollments.csv").write_text(
        "sourcedId,classSourcedId,userSourcedId,role\ne1,alg,maya,student\n"
    )
    (folder / "materials.csv").write_text("id,course_id,published\nm1,alg,true\nm2,alg,false\n")
    assert run("import", "oneroster", folder, *here).stdout.startswith("written 2,")
    done = run("import", "resources", folder / "materials.csv", "--type", "material", *here)
    assert done.stdout == "written 2, unchanged 0, failed 0\n"
    return folder


@pytest.fixture
def database(imported: Path, tmp_path: Path) -> str:
    """A database with the course `alg`, the student `maya` and two materials, which a test may change."""
    return f"sqlite:///{shutil.copy(imported / 'cli.db', tmp_path)}"


def test_check_tells_by_its_exit_code(database: str) -> None:
    allowed = forkserver.run("check", "user:maya", "read", "material:m1", "--database", database)
    assert (allowed.returncode, allowed.stdout.splitlines()[0]) == (0, "allowed  ROLE_GRANT")
    denied = forkserver.run("check", "user:maya", "read", "material:m2", "--database", database, "--json")
    assert denied.returncode == 1
    answer = json.loads(denied.stdout)
    assert (answer["allowed"], answer["unmet_facts"]) == (False, ["published"])
    wrong = forkserver.run("check", "user:maya", "raed", "material:m1", "--database", database)
    assert wrong.returncode == 2
    assert wrong.stderr == "error: unknown action `raed` on material; did you mean `read`?\n"


def test_an_empty_course_is_an_error_and_not_none(database: str) -> None:
    asked = ("check", "user:maya", "read", "material:m1", "--database", database)
    assert run(*asked, "--course", "alg").returncode == 0
    empty = run(*asked, "--course", "")
    assert (empty.returncode, "--course is empty" in empty.stderr) == (2, True)


def test_lists_say_what_a_subject_may_act_upon_and_who_may(database: str) -> None:
    found = run("list-resources", "user:maya", "read", "--database", database)
    assert found.stdout == (
        "resource     course_id  session_id\ncourse:alg   alg        -\nmaterial:m1  alg        -\n"
    )
    as_json = run("list-resources", "user:maya", "read", "material", "--database", database, "--json")
    assert [json.loads(line)["resource"] for line in as_json.stdout.splitlines()] == ["material:m1"]
    who = run("list-subjects", "read", "material:m1", "--database", database).stdout.splitlines()
    assert who[1].startswith(
        "user:maya  student  course:alg  p, student, *, material, read, published, allow"
    )
    missing = run("list-subjects", "read", "material:m7", "--database", database)
    assert (missing.returncode, missing.stderr) == (0, f"nobody may: {UNKNOWN}\n")
    lost = run("list-resources", "user:maya", "read", "--scope", "course:al", "--database", database)
    assert (lost.returncode, lost.stderr) == (0, f"nothing is listed: {UNKNOWN}\n")
    wrong = run("list-resources", "user:maya", "reed", "--database", database)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "did you mean `read`?" in wrong.stderr


def test_a_plan_is_text_or_data_that_names_its_times(database: str) -> None:
    asked = ("plan", "user:maya", "read", "material", "--database", database)
    assert "available_from <= now" in run(*asked).stdout
    (group,) = json.loads(run(*asked, "--json").stdout)["groups"]
    assert group["course_ids"] == ["alg"]
    published, opens, _ = group["predicate"]["parts"]
    assert (published["field"], published["value"], published["from_now_us"]) == ("published", True, None)
    absent, open_now = opens["parts"]
    assert (absent["operator"], absent["from_now_us"]) == ("ABSENT", None)
    assert (open_now["operator"], open_now["value"], open_now["from_now_us"]) == ("AT_MOST", None, 0)
    lost = run(*asked, "--scope", "course:al")
    assert (lost.returncode, lost.stdout, lost.stderr) == (0, "never\n", f"nothing is listed: {UNKNOWN}\n")


def test_explain_prints_a_tree_and_tells_by_its_exit_code(database: str) -> None:
    denied = run("explain", "user:maya", "read", "material:m2", "--database", database)
    assert denied.returncode == 1
    lines = [line.strip("\u2502\u251c\u2514\u2500 ") for line in denied.stdout.splitlines()]
    assert lines[0] == "denied  CONDITION_NOT_MET (not published)"
    assert "student in course:alg: gives student" in lines
    assert "with role `teaching_assistant`, `teacher` or `owner` in `course:alg`" in lines
    assert lines[-1] == "to the person: This is not open to you."
    for question, looked_at in (
        (("user:nobody", "read", "material:m1"), "none"),
        (("user:maya", "read", "material:m1", "--course", "poetry"), "not looked at"),
    ):
        tree = run("explain", *question, "--database", database).stdout.splitlines()
        assert tree[2].endswith(f" {looked_at}")
    as_json = run("explain", "user:maya", "read", "material:m1", "--database", database, "--json")
    assert as_json.returncode == 0
    assert json.loads(as_json.stdout)["answer"]["allowed"]
    past = run("explain", "user:maya", "read", "material:m1", "--as-of", "2020-01-01", "--database", database)
    assert past.returncode == 2
    assert "--as-of is 2020-01-01T00:00:00Z, when no policy was active" in past.stderr
    later = ("--as-of", "2100-01-01", "--database", database)
    assert run("explain", "user:maya", "read", "material:m1", *later).returncode == 0
    assert "user:maya" in run("list-subjects", "read", "material:m1", *later).stdout


def test_an_explanation_shows_from_when_and_until_when_a_membership_gives_its_role(database: str) -> None:
    here = ("--database", database)
    term = ("--from", "2100-01-01", "--until", "2100-07-01")
    assert run("member", "add", "user:omar", "course:alg", "student", *term, *here).returncode == 0
    told = run("explain", "user:omar", "read", "material:m1", *here).stdout
    assert (
        "student in course:alg from 2100-01-01T00:00:00Z until 2100-07-01T00:00:00Z:"
        " gives no role (NOT_STARTED)\n"
    ) in told


def test_no_line_of_an_explanation_is_cut_off(sqlite_url: str, tmp_path: Path) -> None:
    course, here = "c" * 128, ("--database", sqlite_url)
    (tmp_path / "materials.csv").write_text(f"id,course_id\nm1,{course}\n")
    run("course", "create", course, "--state", "active", *here)
    run("import", "resources", tmp_path / "materials.csv", "--type", "material", *here)
    told = run("explain", "user:maya", "read", "material:m1", *here, COLUMNS="40").stdout
    assert f"`teacher` or `owner` in `course:{course}`\n" in told


def test_columns_are_aligned_under_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(("author", "number"), [("山田", "1"), ("ana", "2")])
    assert capsys.readouterr().out == "author  number\n山田    1\nana     2\n"


def test_each_row_is_one_line_that_no_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(("source", "number"), [("a\x1b[2J\nb\u202e", "1"), ("", "2")])
    assert (
        capsys.readouterr().out
        == "source             number\na\\x1b[2J\\nb\\u202e  1\n-                  2\n"
    )


def test_importing_again_changes_nothing(database: str, imported: Path) -> None:
    again = run("import", "oneroster", imported, "--database", database)
    assert again.stdout == "written 0, unchanged 2, failed 0\n"


def test_lists_have_headings_and_aligned_columns(database: str) -> None:
    found = run("memberships", "--subject", "user:maya", "--database", database)
    assert found.stdout == (
        "subject    scope       role     status  starts_at  ends_at  suspended_until  source\n"
        "user:maya  course:alg  student  ACTIVE  -          -        -                oneroster\n"
    )
    assert run("courses", "--database", database).stdout == "id   state   ai_enabled\nalg  ACTIVE  false\n"
    listed = run("resources", "--scope", "course:alg", "--database", database).stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["resource", "material:m1", "material:m2"]
    assert (
        run("sessions", "--database", database).stdout
        == "id  course_id  state  starts_at  ends_at  open_to_course\n"
    )
    with connect(database=database) as client:
        client.write([Mutation(Operation.TOUCH, Account(subject=parse_subject("user:maya")))])
    assert run("accounts", "--subject", "user:maya", "--database", database).stdout == (
        "subject    status  suspended_until\nuser:maya  ACTIVE  -\n"
    )
    offered = run("actions", "user:maya", "material:m1", "--database", database).stdout
    assert ["read", "allowed", "ROLE_GRANT"] in [line.split() for line in offered.splitlines()]
    told = json.loads(run("actions", "user:maya", "material:m1", "--json", "--database", database).stdout)
    assert told["actions"]["read"] == {"allowed": True, "reason": "ROLE_GRANT"}
    assert told["actions"]["update"]["allowed"] is False
    assert {"checked_at", "policy_version", "valid_until", "course_policy_version"} <= set(told)


def test_a_list_as_json_prints_each_item_when_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    def found() -> Iterator[dict[str, int]]:
        yield {"n": 1}
        assert capsys.readouterr().out == '{"n":1}\n'
        yield {"n": 2}
        raise ValueError("the server went away")

    context = Context(lambda: Client(DEFAULT_ADDRESS), database="", as_json=True, reason="")
    with pytest.raises(ValueError, match="went away"):
        context.show(("n",), found(), lambda item: [str(item["n"])])
    assert capsys.readouterr().out == '{"n":2}\n'


def test_an_unknown_column_is_an_error_with_its_remedy(database: str, tmp_path: Path) -> None:
    (tmp_path / "typo.csv").write_text("id,course_id,publishd\nm3,alg,true\n")
    arguments = ("import", "resources", tmp_path / "typo.csv", "--type", "material", "--database", database)
    refused = run(*arguments)
    assert refused.returncode == 2
    assert "unknown column `publishd`; did you mean `published`?" in refused.stderr
    assert run(*arguments, "--ignore", "publishd").stdout == "written 1, unchanged 0, failed 0\n"


def test_faults_of_rows_are_listed_by_file_and_line(database: str, tmp_path: Path) -> None:
    rows = [
        {"id": "m4", "course_id": "alg"},
        {"id": "m5", "course_id": "none"},
        {"id": "m 6", "course_id": "alg"},
    ]
    (tmp_path / "more.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    done = run("import", "resources", tmp_path / "more.jsonl", "--type", "material", "--database", database)
    assert done.stdout == "written 1, unchanged 0, failed 2\n"
    assert done.returncode == 1
    assert "more.jsonl:2: " in done.stderr
    assert "more.jsonl:3: " in done.stderr


def test_policy_validate_and_show() -> None:
    shipped = ("--version", "shipped")
    assert run("policy", "validate", *shipped).stdout.startswith("valid: ")
    shown = run("policy", "show", "--role", "alumni", "--type", "notebook", *shipped).stdout.splitlines()
    assert len([line for line in shown if line.startswith("alumni ")]) == 4


def test_policy_commands_say_which_policy_they_look_at(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    shutil.copytree(policy_directory(), folder)
    validated = run("policy", "validate", folder)
    assert (validated.returncode, validated.stderr) == (0, f"read the policy in `{folder}`\n")
    for name in ("more.csv", "tests/sub/mine.toml", "tests/mine.yaml", "test/mine.toml"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("p, *, *, material, read, , deny\n")
    refused = run("policy", "validate", folder)
    assert refused.returncode == 2
    assert refused.stderr.count(":1:1: is not read: rules are in `default.csv`, invariants in") == 4
    assert f"`{folder}`" in refused.stderr


def test_without_a_service_the_error_is_one_line_and_2() -> None:
    failed = run("check", "user:maya", "read", "material:m1", "--address", "127.0.0.1:1")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: no server answers at `127.0.0.1:1`; run `authz serve`, or set")
    assert failed.stderr.count("\n") == 1


def test_a_server_that_does_not_answer_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        failed = run("courses", "--address", address)
    assert failed.returncode == 2
    assert failed.stderr.startswith(f"error: the server at `{address}` did not answer in time: it is slow")
    assert "it is unknown whether it did" in failed.stderr


def test_a_file_without_certificates_is_one_line_that_names_the_options(
    sqlite_url: str, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with served(sqlite_url) as address:
        failed = forkserver.run("courses", "--address", address, "--tls-ca-file", tmp_path / "ca.pem")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: the PEM files for TLS cannot be used; check `--tls-ca-file`")
    assert failed.stderr.count("\n") == 1


def test_the_demo_answers_as_expected() -> None:
    done = forkserver.run("demo")
    assert done.returncode == 0
    assert "25 questions, 25 answered as expected" in done.stdout


def test_a_database_that_is_not_there_is_an_error_and_not_a_denial(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'typo.db'}"
    for command in (("check", "user:maya", "read", "material:m1"), ("memberships",), ("watch",)):
        failed = run(*command, "--database", url)
        assert failed.returncode == 2
        assert "there is no database" in failed.stderr
    assert not list(tmp_path.iterdir())


def test_a_replica_of_a_database_server_is_not_left_behind(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    denied = run("check", "user:maya", "read", "material:m1", "--database", postgresql_url)
    assert (denied.returncode, denied.stdout) == (1, f"denied  {UNKNOWN}\n")
    assert not list(tmp_path.iterdir())


def test_every_setting_has_a_flag_that_says_its_variable() -> None:
    told = run("serve", "--help").stdout
    names = [field.name for field in msgspec.structs.fields(Settings)]
    for name in names:
        assert f"--{name.replace('_', '-')} " in told
        assert f"AUTHZ_{name.upper()}" in told
    assert "--database, --database-url " in told


@pytest.mark.parametrize(
    ("command", "code", "details"),
    [
        (
            "check user:maya raed material:m",
            "INVALID_ARGUMENT",
            {"reason": "UNKNOWN_ACTION", "type": "material", "action": "raed"},
        ),
        (
            "courses --database sqlite:///nowhere.db",
            "INVALID_ARGUMENT",
            {"reason": "MALFORMED_FIELD", "field": "--database"},
        ),
        ("courses --address 127.0.0.1:1", "UNAVAILABLE", {}),
        (
            "memberships --role studnt",
            "INVALID_ARGUMENT",
            {"reason": "UNKNOWN_ROLE", "role": "studnt"},
        ),
        (
            "audit changes --since x",
            "INVALID_ARGUMENT",
            {"reason": "MALFORMED_FIELD", "field": "--since"},
        ),
        ("policy history --course nosuch", "FAILED_PRECONDITION", {"reason": "REFERENCE_NOT_FOUND"}),
        ("policy show nowhere", "INVALID_ARGUMENT", {}),
        ("policy test nowhere", "INVALID_ARGUMENT", {}),
        ("courses --jsn", "INVALID_ARGUMENT", {}),
        ("check user:maya", "INVALID_ARGUMENT", {}),
        ("nosuch", "INVALID_ARGUMENT", {}),
    ],
)
def test_with_json_a_fault_is_a_json_object_with_the_message_of_the_text(
    database: str, command: str, code: str, details: dict[str, str]
) -> None:
    where = () if "--database" in command or "--address" in command else ("--database", database)
    plain, as_json = (run(*command.split(), *more, *where) for more in ((), ("--json",)))
    assert (as_json.returncode, as_json.stdout) == (plain.returncode, "") == (2, "")
    fault = json.loads(as_json.stderr.splitlines()[-1])
    assert (fault["code"], fault["details"] | details) == (code, fault["details"])
    assert plain.stderr.lower().endswith(f"error: {fault['message']}\n".lower())


def test_with_json_the_faults_of_a_policy_have_their_places(tmp_path: Path) -> None:
    failed = run("policy", "diff", tmp_path, "--json")
    fault = json.loads(failed.stderr)
    assert (failed.returncode, fault["code"]) == (2, "FAILED_PRECONDITION")
    assert {(each["file"], each["line"]) for each in fault["details"]["faults"]} == {
        ("default.csv", 1),
        ("model.conf", 1),
    }


@pytest.mark.parametrize(
    "command", ["import subject {}", "policy prove --check {}", "restore {}.backup --erasures {}"]
)
def test_json_that_is_nested_too_deeply_is_an_error_in_one_line(tmp_path: Path, command: str) -> None:
    database, file = ("--database", f"sqlite:///{tmp_path / 'authz.db'}"), tmp_path / "deep.json"
    file.write_text('{"x": ' + "[" * 1_000_000)
    assert run("migrate", *database).returncode == 0
    if command.startswith("restore"):
        assert run("backup", f"{file}.backup", *database).returncode == 0
        database = ("--database", f"sqlite:///{tmp_path / 'restored.db'}")
    refused = run(*(each.format(file) for each in command.split()), *database)
    assert refused.returncode == 2
    assert "while deserializing" in refused.stderr
    assert [line for line in refused.stderr.splitlines() if not line.startswith(("read", "error: "))] == []


def test_a_command_in_a_folder_that_was_deleted_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    told = run("migrate", "--database", "sqlite:///authz.db")
    assert (told.returncode, told.stderr) == (2, "error: the current folder was deleted; change to another\n")
