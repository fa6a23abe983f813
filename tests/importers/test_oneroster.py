"""OneRoster exports: what becomes of each row, and what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from authz.domain.entities import Course, CourseKey, Membership, MembershipKey
from authz.domain.errors import InvalidArgumentError
from authz.domain.instants import parse_instant
from authz.domain.mutations import Operation
from authz.importers.oneroster import read_oneroster

HEADER = (
    "sourcedId,status,dateLastModified,classSourcedId,schoolSourcedId,userSourcedId,"
    "role,primary,beginDate,endDate"
)
CLASSES = "sourcedId,status,title\nalg,active,Algebra\nold,tobedeleted,Old\n"


def export(folder: Path, *enrollments: str, classes: str = CLASSES) -> Path:
    (folder / "classes.csv").write_text(classes)
    (folder / "enrollments.csv").write_text("\n".join([HEADER, *enrollments]) + "\n")
    return folder


def memberships(folder: Path) -> list[Membership]:
    found = [each.mutation.target for each in read_oneroster(folder).mutations]
    return [target for target in found if isinstance(target, Membership)]


def test_classes_become_courses_and_deleted_ones_go(tmp_path: Path) -> None:
    mutations = [each.mutation for each in read_oneroster(export(tmp_path)).mutations]
    assert isinstance(mutations[0].target, Course)
    assert (mutations[1].operation, mutations[1].target) == (Operation.DELETE, CourseKey("old"))


def test_roles_dates_and_primary_teachers(tmp_path: Path) -> None:
    rows = (
        "e1,active,,alg,s,t1,teacher,true,,",
        "e2,active,,alg,s,t2,teacher,false,,",
        "e3,active,,alg,s,u1,student,false,2026-09-01,2026-12-20",
        "e4,active,,alg,s,a1,aide,false,,",
    )
    found = {m.subject.id: m for m in memberships(export(tmp_path, *rows))}
    assert {k: m.role for k, m in found.items()} == {
        "t1": "owner",
        "t2": "teacher",
        "u1": "student",
        "a1": "teaching_assistant",
    }
    assert found["u1"].starts_at == parse_instant("2026-09-01T00:00:00Z", field="")
    assert found["u1"].ends_at == parse_instant("2026-12-20T00:00:00Z", field="")
    assert (found["u1"].source, found["u1"].source_ref) == ("oneroster", "e3")


def test_bad_rows_are_listed_by_line_and_the_rest_goes_in(tmp_path: Path) -> None:
    rows = (
        "e1,active,,alg,s,u 1,student,false,,",
        "e2,active,,alg,s,u2,proctor,false,,",
        "e3,active,,alg,s,u3,student,false,soon,",
        "e4,active,,alg,s,u4,student,false,,",
    )
    reading = read_oneroster(export(tmp_path, *rows))
    assert [(fault.file, fault.line) for fault in reading.faults] == [
        ("enrollments.csv", 2),
        ("enrollments.csv", 3),
        ("enrollments.csv", 4),
    ]
    assert "proctor" in reading.faults[1].message
    assert [m.subject.id for m in memberships(tmp_path)] == ["u4"]


def test_of_two_enrollments_the_longer_stays_whatever_their_order(tmp_path: Path) -> None:
    long = "e1,active,,alg,s,u1,student,false,2026-01-01,"
    short = "e2,active,,alg,s,u1,student,false,2026-01-01,2026-02-01"
    gone = "e3,tobedeleted,,alg,s,u1,student,false,,"
    for rows in ((long, short, gone), (gone, short, long)):
        (kept,) = memberships(export(tmp_path, *rows))
        assert kept.source_ref == "e1"


def test_a_deleted_enrollment_and_one_of_no_length_revoke(tmp_path: Path) -> None:
    rows = (
        "e1,tobedeleted,,alg,s,u1,student,false,,",
        "e2,active,,alg,s,u2,student,false,2026-01-01,2026-01-01",
    )
    reading = read_oneroster(export(tmp_path, *rows))
    deleted = [each.mutation for each in reading.mutations if isinstance(each.mutation.target, MembershipKey)]
    assert [(m.operation, m.target.subject.id) for m in deleted if isinstance(m.target, MembershipKey)] == [
        (Operation.DELETE, "u1"),
        (Operation.DELETE, "u2"),
    ]
    assert [note.line for note in reading.notes] == [3]


def zipped(folder: Path) -> Path:
    path = folder / "export.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("classes.csv", "enrollments.csv"):
            archive.write(folder / name, name)
    return path


def test_a_zip_reads_as_its_folder(tmp_path: Path) -> None:
    export(tmp_path, "e1,active,,alg,s,u1,student,false,,")
    assert read_oneroster(zipped(tmp_path)) == read_oneroster(tmp_path)


def test_broken_exports_are_refused_by_name(tmp_path: Path) -> None:
    whole = zipped(export(tmp_path, *(f"e{n},active,,alg,s,u{n},student,false,," for n in range(500))))
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(InvalidArgumentError, match=r"cut\.zip"):
        read_oneroster(cut)
    with pytest.raises(InvalidArgumentError, match="nowhere"):
        read_oneroster(tmp_path / "nowhere")
    with pytest.raises(InvalidArgumentError, match=r"classes\.csv:1: has no column `sourcedId`"):
        read_oneroster(export(tmp_path, classes="id\nalg\n"))
    with pytest.raises(InvalidArgumentError, match=r"enrollments\.csv:2: has 3 fields"):
        read_oneroster(export(tmp_path, "e1,active,alg"))
    with pytest.raises(InvalidArgumentError, match=r"enrollments\.csv:\d+: is not CSV"):
        read_oneroster(export(tmp_path, 'e1,"active,alg'))
    (tmp_path / "classes.csv").write_bytes(b"sourcedId\n\xff\n")
    with pytest.raises(InvalidArgumentError, match="is not UTF-8"):
        read_oneroster(tmp_path)
