"""The manifest of an export: which files it has, and in which mode."""

from __future__ import annotations

from pathlib import Path

import pytest

from authz.domain.errors import InvalidArgumentError
from authz.importers.archive import Archive
from authz.importers.oneroster.manifest import Manifest, Mode, read_manifest
from tests.importers.exports import export


def write(folder: Path, *rows: str, files: tuple[str, ...] = ("classes", "enrollments")) -> Manifest:
    for name in files:
        (folder / f"{name}.csv").write_text("sourcedId\n")
    (folder / "manifest.csv").write_text("\n".join(("propertyName,value", *rows)) + "\n")
    return read_manifest(Archive(folder))


def test_each_file_has_a_mode_of_its_own(tmp_path: Path) -> None:
    found = write(
        tmp_path,
        "oneroster.version,1.2",
        "file.classes,bulk",
        "file.enrollments,delta",
        "file.demographics,bulk",
    )
    assert found.modes == {
        "academicSessions.csv": Mode.ABSENT,
        "classes.csv": Mode.BULK,
        "enrollments.csv": Mode.DELTA,
        "users.csv": Mode.ABSENT,
    }
    assert found.notes == []


def test_a_manifest_alone_means_no_change(tmp_path: Path) -> None:
    assert set(write(tmp_path, "file.classes,absent", files=()).modes.values()) == {Mode.ABSENT}


def test_a_file_that_is_said_to_be_absent_is_not_read(tmp_path: Path) -> None:
    found = write(tmp_path, "file.classes,absent", "file.enrollments,bulk")
    assert found.modes["classes.csv"] is Mode.ABSENT
    assert list(map(str, found.notes)) == ["classes.csv: is not read: manifest.csv says that it is absent"]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (
            "file.users,bulk",
            "has no `users.csv`, which manifest.csv says is `bulk`; it has `classes.csv`, ",
        ),
        ("file.classes,Bulk", "manifest.csv:2: file.classes is `Bulk`; use `absent`, `bulk` or `delta`"),
        ("file.classes,", "manifest.csv:2: file.classes is ``; use"),
        ("file.Classes,bulk", "manifest.csv:2: has a property `file.Classes`; did you mean `file.classes`?"),
        (" file.classes,bulk", "manifest.csv:2: has a property `␠file.classes`; did you mean"),
        (
            "file.classes,bulk\nfile.classes,absent",
            "manifest.csv:3: states file.classes again, with another mode; remove one",
        ),
        ("oneroster.version,1.0", "manifest.csv:2: oneroster.version is `1.0`; only 1.1 and 1.2 can be read"),
    ],
)
def test_a_manifest_that_cannot_be_followed_is_refused(tmp_path: Path, row: str, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        write(tmp_path, row)
    assert complaint in refused.value.message


def test_a_file_whose_mode_is_not_stated_is_noted(tmp_path: Path) -> None:
    found = write(tmp_path, "file.classes,bulk", "file.classes,bulk", "file.enrollments.csv,bulk")
    assert (found.modes["classes.csv"], found.modes["enrollments.csv"]) == (Mode.BULK, Mode.UNSTATED)
    assert list(map(str, found.notes)) == [
        "enrollments.csv: manifest.csv does not state its mode: no record is removed for absence"
    ]


def test_a_manifest_in_another_case_is_not_overlooked(tmp_path: Path) -> None:
    write(tmp_path, "file.classes,bulk")
    (tmp_path / "manifest.csv").rename(tmp_path / "Manifest.csv")
    with pytest.raises(InvalidArgumentError, match=r"rename `Manifest\.csv` to `manifest\.csv`"):
        read_manifest(Archive(tmp_path))


def test_without_a_manifest_the_files_are_read_and_that_is_noted(tmp_path: Path) -> None:
    found = read_manifest(Archive(export(tmp_path)))
    assert (found.modes["enrollments.csv"], found.modes["users.csv"]) == (Mode.UNSTATED, Mode.ABSENT)
    assert [note.file for note in found.notes] == ["manifest.csv"]


def test_roles_in_organisations_are_no_roles_in_courses(tmp_path: Path) -> None:
    (tmp_path / "roles.csv").write_text("sourcedId,userSourcedId,role\nr1,maya,teacher\n")
    stated = ("file.classes,bulk", "file.enrollments,bulk")
    assert list(map(str, write(tmp_path, *stated, "file.roles,bulk").notes)) == [
        "roles.csv: is not read: a role in an organisation is no role in a course"
    ]
