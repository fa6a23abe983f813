"""Real students and the materials of classes that they are not in."""

from __future__ import annotations

import csv
import subprocess
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path

import pytest

from authz.domain.instants import from_datetime
from authz.importers.oneroster.read import read_oneroster
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from tests.service import serve
from tests.serving import AUTHZ

DATA = Path(__file__).parents[3] / "shared/data/oulad"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the OULAD data set is not beside the project")


def table(name: str) -> list[dict[str, str]]:
    with (DATA / name).open() as stream:
        return list(csv.DictReader(stream))


def question(user_id: str, material_id: str, stated_course_id: str) -> apb.CheckRequest:
    return apb.CheckRequest(
        subject=pb.Subject(type=pb.SUBJECT_TYPE_USER, id=user_id),
        action="read",
        resource=apb.ResourceQuery(type="material", id=material_id, course_id=stated_course_id),
    )


def take_in(*arguments: str | Path) -> None:
    subprocess.run([AUTHZ, "import", *arguments], capture_output=True, timeout=300, check=True)


async def test_no_student_reads_a_material_of_a_class_that_they_are_not_in(sqlite_url: str) -> None:
    database = ("--database", sqlite_url)
    take_in("oneroster", DATA / "oneroster.zip", *database)
    take_in("resources", DATA / "materials.csv", "--type", "material", "--ignore", "kind", *database)
    classes_of: dict[str, set[str]] = defaultdict(set)
    for each in read_oneroster(DATA / "oneroster.zip").enrollments:
        if each.key is not None:
            classes_of[each.key.subject.id].add(each.key.scope.id)
    materials: dict[str, list[str]] = defaultdict(list)
    for row in table("materials.csv"):
        materials[row["course_id"]].append(row["id"])
    tally: Counter[str] = Counter()
    async for service in serve(sqlite_url, log_level="error"):
        for number, row in enumerate(table("accesses.csv")):
            service.now = from_datetime(datetime.fromisoformat(row["at"]))
            others = sorted(set(materials) - classes_of[row["user_id"]])
            other = others[number % len(others)]
            material = materials[other][number % len(materials[other])]
            # As it is, and with their own class stated in place of the material's.
            for stated in ("", row["course_id"]):
                asked = question(row["user_id"], material, stated)
                answer = await service.authorization.Check(asked)
                assert not answer.allowed, row
                tally[apb.Reason.Name(answer.reason).removeprefix("REASON_")] += 1
    print(dict(tally))
    assert tally == {"NOT_A_MEMBER": 5000, "SCOPE_MISMATCH": 5000}
