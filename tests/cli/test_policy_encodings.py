"""Policy files as Windows writes them: the same policy, or the remedy is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.client import Client
from authz.policy.load import MODEL_FILE, POLICY_FILE, policy_directory, read_folder
from tests.cli.commands import run
from tests.serving import served

COURSE = "algebra"
ROWS = f"p, student, course:{COURSE}, notebook, read, !own & !shared_view, deny\n"
SHIPPED = read_folder(policy_directory())
UNCHANGED = "unchanged: version {} is active and has the same files\n"


def of_windows(text: str) -> str:
    return text.replace("\n", "\r\n")


@pytest.fixture
def address(empty_sqlite_url: str) -> Iterator[str]:
    with served(empty_sqlite_url) as serving:
        assert run("course", "create", COURSE, "--state", "active", "--address", serving).returncode == 0
        yield serving


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The shipped policy with the line endings of Windows."""
    folder = tmp_path / "checkout"
    for name, text in SHIPPED.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(of_windows(text).encode())
    return folder


def test_a_checkout_with_other_line_endings_changes_nothing(checkout: Path, address: str) -> None:
    assert run("policy", "apply", checkout, "--address", address).stdout == UNCHANGED.format(1)
    (checkout / POLICY_FILE).write_bytes((checkout / POLICY_FILE).read_bytes() + b"# more\r\n")
    assert "version 2 is active" in run("policy", "apply", checkout, "--address", address).stdout
    with Client(address) as client:
        stored = client.policies.files(2)
    assert stored == SHIPPED | {POLICY_FILE: SHIPPED[POLICY_FILE] + "# more\n"}


def test_a_file_of_a_course_with_other_line_endings_changes_nothing(tmp_path: Path, address: str) -> None:
    folder = tmp_path / "courses"
    folder.mkdir()
    file = folder / f"{COURSE}.csv"
    there = ("--address", address)
    for content in (ROWS, of_windows(ROWS)):
        file.write_bytes(content.encode())
        run("policy", "apply", file, "--course", COURSE, *there)
        assert run("policy", "apply", file, "--course", COURSE, *there).stdout == UNCHANGED.format(1)
        applied = run("policy", "courses", "apply", folder, *there)
        assert applied.stdout == "applied 0, unchanged 1, refused 0\n"


def test_a_version_with_other_line_endings_is_not_replaced_by_its_like(
    checkout: Path, tmp_path: Path, address: str
) -> None:
    theirs = {name: of_windows(text) for name, text in SHIPPED.items()}
    theirs[POLICY_FILE] += "# theirs\r\n"
    there = ("--address", address)
    with Client(address) as client:
        assert client.policies.apply(theirs).number == 2
        assert client.policies.files(2) == theirs
        ours = SHIPPED | {POLICY_FILE: SHIPPED[POLICY_FILE] + "# theirs\n"}
        for files in (ours, theirs):
            assert not client.policies.apply(files).changed
    exported = tmp_path / "exported"
    assert run("policy", "export", exported, *there).returncode == 0
    assert run("policy", "apply", exported, *there).stdout == UNCHANGED.format(2)
    (exported / POLICY_FILE).write_text(ours[POLICY_FILE], newline="\n")
    assert run("policy", "apply", exported, *there).stdout == UNCHANGED.format(2)
    assert run("policy", "draft", "create", "mine", *there).returncode == 0
    put = f"{POLICY_FILE}={exported / POLICY_FILE}"
    assert run("policy", "edit", "mine", "--put", put, *there).returncode == 0
    assert "unchanged: version 2 is active" in run("policy", "publish", "mine", *there).stdout
    refused = run("policy", "shadow", "start", "draft:mine", *there)
    assert "the candidate is equal to the active version 2" in refused.stderr


@pytest.mark.parametrize("course", [False, True], ids=["platform", "course"])
def test_a_file_in_utf_16_is_refused_with_the_command_that_reads_it(
    course: bool, tmp_path: Path, address: str
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, text in SHIPPED.items():
        if "/" not in name:
            (folder / name).write_text(text)
    file = folder / POLICY_FILE
    if course:
        file.write_text(ROWS)
    file.write_bytes(file.read_text().encode("utf-16"))
    given = (file, "--course", COURSE) if course else (folder,)
    refused = run("policy", "apply", *given, "--address", address)
    assert refused.returncode == 2
    assert "is UTF-16; run `authz policy format --write` on the file" in refused.stderr
    assert run("policy", "format", "--write", file).returncode == 0
    assert run("policy", "apply", *given, "--address", address).returncode == 0


def test_a_file_in_utf_16_that_the_command_does_not_read_is_refused_without_it(checkout: Path) -> None:
    model = checkout / MODEL_FILE
    model.write_bytes(model.read_text().encode("utf-16"))
    refused = run("policy", "validate", checkout)
    assert refused.returncode == 2
    assert f"{MODEL_FILE}:1:1: is not UTF-8; save it as UTF-8, or move it out of the folder" in refused.stderr
