"""OneRoster exports that say something odd: none of it gives a role that was not meant."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from authz.domain.entities import Membership
from authz.domain.errors import InvalidArgumentError
from authz.domain.mutations import Operation
from authz.importers.oneroster import DEFAULT_ROLES, read_oneroster

HEADER = "sourcedId,status,classSourcedId,userSourcedId,role,primary,beginDate,endDate"
ROW = "e1,active,alg,maya,student,,,2026-06-30"


def export(folder: Path, *enrollments: str, header: str = HEADER, class_status: str = "active") -> Path:
    (folder / "classes.csv").write_text(f"sourcedId,status\nalg,{class_status}\n")
    (folder / "enrollments.csv").write_text("\n".join([header, *enrollments]) + "\n")
    return folder


def test_an_unknown_status_is_a_fault_and_not_active(tmp_path: Path) -> None:
    reading = read_oneroster(export(tmp_path, "e1,inactive,alg,maya,student,,,", class_status="inactive"))
    assert reading.mutations == []
    assert [str(fault).split(";")[0] for fault in reading.faults] == [
        "classes.csv:2: status `inactive` is neither `active` nor `tobedeleted`",
        "enrollments.csv:2: status `inactive` is neither `active` nor `tobedeleted`",
    ]


def test_a_status_in_capitals_deletes_as_well(tmp_path: Path) -> None:
    reading = read_oneroster(export(tmp_path, "e1,ToBeDeleted,alg,maya,student,,,"))
    assert reading.mutations[-1].mutation.operation is Operation.DELETE


def test_only_a_primary_teacher_becomes_an_owner(tmp_path: Path) -> None:
    rows = (
        "e1,active,alg,omar,proctor,true,,",
        "e2,active,alg,maya,student,true,,",
        "e3,active,alg,nadia,teacher,true,,",
    )
    reading = read_oneroster(export(tmp_path, *rows), DEFAULT_ROLES | {"proctor": "teacher"})
    found = [each.mutation.target for each in reading.mutations]
    assert {m.subject.id: m.role for m in found if isinstance(m, Membership)} == {
        "omar": "teacher",
        "maya": "student",
        "nadia": "owner",
    }


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("enddate", "has a column `enddate`; did you mean `endDate`?"),
        ("end_date", "has a column `end_date`; did you mean `endDate`?"),
        (" endDate", "has a column ` endDate`; did you mean `endDate`?"),
        ("beginDate", "has the column `beginDate` twice"),
    ],
)
def test_a_date_is_not_lost_to_the_spelling_of_its_column(
    tmp_path: Path, written: str, complaint: str
) -> None:
    header = HEADER.replace("endDate", written)
    with pytest.raises(InvalidArgumentError) as refused:
        read_oneroster(export(tmp_path, ROW, header=header))
    assert refused.value.message.startswith(f"enrollments.csv:1: {complaint}")


def test_an_encrypted_zip_is_refused_by_name(tmp_path: Path) -> None:
    export(tmp_path, ROW)
    path = tmp_path / "secret.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "classes.csv", "classes.csv")
    sealed = bytearray(path.read_bytes())
    sealed[6] |= 1
    sealed[sealed.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(sealed)
    with pytest.raises(InvalidArgumentError, match=r"secret\.zip` is encrypted"):
        read_oneroster(path)


def test_reading_twice_gives_the_same(tmp_path: Path) -> None:
    export(tmp_path, ROW, "e2,active,alg,maya,student,,2026-01-01,2026-06-30", "e3,active,alg,omar,aide,,,")
    assert read_oneroster(tmp_path) == read_oneroster(tmp_path)
