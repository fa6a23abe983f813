"""A real roster and real accesses, put to the service as they are."""

from __future__ import annotations

import asyncio
import csv
import os
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio

from authz.domain.instants import from_datetime
from authz.importers.oneroster.read import read_oneroster
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.wire.values import time_message
from tests.databases import create_sqlite
from tests.forkserver import AUTHZ
from tests.service import serve

DATA = Path(os.environ.get("OULAD_FOLDER", ""))
ROSTER = DATA / "oneroster.zip"
ROWS_A_BATCH = 250
"""With four questions each, as many as a batch may have."""
EXPLAINED_OF = 25
"""Of so many accesses one is explained: a question about the past reads the whole change log of a course."""
DAY_US = 86_400_000_000

pytestmark = pytest.mark.skipif(
    "OULAD_FOLDER" not in os.environ, reason="OULAD_FOLDER names no folder with the OULAD data set"
)

Answers = list[tuple[dict[str, str], list[apb.CheckResponse]]]
"""Rows of `accesses.csv`, each with the answers to `questions`."""


class Walk(NamedTuple):
    """What the service answered at the time of each access, and how it explained some of these answers when
    all were over: each of these with the answer of that time."""

    answers: Answers
    explained: list[tuple[apb.CheckResponse, apb.ExplainResponse]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """The accesses are put to the service in the order of their times."""
    rows = sorted(table("accesses.csv"), key=lambda row: row["at"])
    found: Answers = []
    url = create_sqlite(tmp_path_factory.mktemp("oulad") / "authz.db")
    async with serve(url, now=at(rows[0]), log_level="error") as service:
        await load(service.address)
        for now, of_that_time in groupby(zip(rows, questions(rows), strict=True), lambda each: at(each[0])):
            service.now = now
            while part := list(islice(of_that_time, ROWS_A_BATCH)):
                items = [item for _, asked in part for item in asked]
                batch = await service.authorization.BatchCheck(apb.BatchCheckRequest(items=items))
                results = iter(batch.results)
                found += (
                    (row, [each.response for each in islice(results, len(asked))]) for row, asked in part
                )
        service.now = at(rows[-1]) + DAY_US
        explained = [
            (own, await service.authorization.Explain(question_about_the_past(row)))
            for row, (own, *_) in found[::EXPLAINED_OF]
        ]
    return Walk(found, explained)


def question_about_the_past(row: dict[str, str]) -> apb.ExplainRequest:
    asked = question(row["user_id"], row["material_id"], row["course_id"])
    as_of = time_message(at(row))
    return apb.ExplainRequest(
        subject=asked.subject, action=asked.action, resource=asked.resource, as_of=as_of
    )


async def load(address: str) -> None:
    """Import the roster, twice, and the materials."""
    roster = ("import", "oneroster", ROSTER, "--address", address)
    assert (await asyncio.to_thread(run, *roster)).endswith("failed 0\n")
    assert await asyncio.to_thread(run, *roster) == "written 0, unchanged 32615, failed 0\n"
    materials = ("import", "resources", DATA / "materials.csv", "--type", "material", "--ignore", "kind")
    written = await asyncio.to_thread(run, *materials, "--address", address)
    assert written == "written 6364, unchanged 0, failed 0\n"


def questions(rows: list[dict[str, str]]) -> Iterator[list[apb.CheckRequest]]:
    """For each access: by the student; by a stranger; and by the student of a material of a class that they
    are not in, as it is, and with their own class stated in place of the material's."""
    classes_of: dict[str, set[str]] = defaultdict(set)
    for each in read_oneroster(ROSTER).enrollments:
        if each.key is not None:
            classes_of[each.key.subject.id].add(each.key.scope.id)
    materials: dict[str, list[str]] = defaultdict(list)
    for row in table("materials.csv"):
        materials[row["course_id"]].append(row["id"])
    for number, row in enumerate(rows):
        user, own = row["user_id"], row["course_id"]
        others = sorted(set(materials) - classes_of[user])
        of_others = materials[others[number % len(others)]]
        foreign = of_others[number % len(of_others)]
        yield [
            question(user, row["material_id"], own),
            question(f"stranger-{user}", row["material_id"], own),
            question(user, foreign, ""),
            question(user, foreign, own),
        ]


def question(user_id: str, material_id: str, stated_course_id: str) -> apb.CheckRequest:
    return apb.CheckRequest(
        subject=pb.Subject(type=pb.SUBJECT_TYPE_USER, id=user_id),
        action="read",
        resource=apb.ResourceQuery(type="material", id=material_id, course_id=stated_course_id),
    )


def table(name: str) -> list[dict[str, str]]:
    with (DATA / name).open() as stream:
        return list(csv.DictReader(stream))


def at(row: dict[str, str]) -> int:
    return from_datetime(datetime.fromisoformat(row["at"]))


def run(*arguments: str | Path) -> str:
    done = subprocess.run([AUTHZ, *arguments], capture_output=True, text=True, timeout=300, check=True)
    return done.stdout


def reason(answer: apb.CheckResponse) -> str:
    return apb.Reason.Name(answer.reason).removeprefix("REASON_")


def test_the_real_accesses_are_allowed_but_for_those_that_their_dates_rule_out(walk: Walk) -> None:
    assert len(walk.answers) == 5000
    tally: Counter[str] = Counter()
    for row, (own, *_) in walk.answers:
        tally[f"{'allowed' if own.allowed else 'denied'} {reason(own)} {list(own.unmet_facts)}"] += 1
        if not own.allowed:
            by_date = own.inactive_reason in (apb.INACTIVE_REASON_NOT_STARTED, apb.INACTIVE_REASON_ENDED)
            assert by_date or list(own.unmet_facts) == ["published"], row
    print(dict(tally))
    assert sum(count for key, count in tally.items() if key.startswith("allowed")) > 4000


def test_an_access_is_explained_as_of_its_time_as_it_was_answered_then(walk: Walk) -> None:
    assert len(walk.explained) == 200
    denied = 0
    for then, told in walk.explained:
        now = told.answer
        assert (now.allowed, now.reason, now.inactive_reason, now.unmet_facts) == (
            *(then.allowed, then.reason, then.inactive_reason),
            then.unmet_facts,
        )
        denied += not now.allowed
        # The dates that rule it out: from when time alone allows, or when the membership ended.
        assert (
            now.allowed
            or told.HasField("allowed_from")
            or any(m.HasField("ends_at") for m in told.memberships)
        )
    assert denied


def test_no_stranger_reads_what_a_student_does(walk: Walk) -> None:
    assert not [row for row, (_, stranger, *_) in walk.answers if stranger.allowed]


def test_no_student_reads_a_material_of_a_class_that_they_are_not_in(walk: Walk) -> None:
    assert not [row for row, (_, _, *foreign) in walk.answers if any(each.allowed for each in foreign)]
    tally = Counter(reason(each) for _, (_, _, *foreign) in walk.answers for each in foreign)
    assert tally == {"NOT_A_MEMBER": 5000, "SCOPE_MISMATCH": 5000}
