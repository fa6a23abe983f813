"""A real roster and real accesses, put to the service as they are."""

from __future__ import annotations

import asyncio
import csv
import subprocess
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from authz.domain.instants import from_datetime
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from tests.service import serve
from tests.serving import AUTHZ

DATA = Path(__file__).parents[3] / "shared/data/oulad"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the OULAD data set is not beside the project")


def run(*arguments: str | Path) -> str:
    done = subprocess.run([AUTHZ, *arguments], capture_output=True, text=True, timeout=300, check=True)
    return done.stdout


def check(row: dict[str, str]) -> apb.CheckRequest:
    return apb.CheckRequest(
        subject=pb.Subject(type=pb.SUBJECT_TYPE_USER, id=row["user_id"]),
        action="read",
        resource=apb.ResourceQuery(type="material", id=row["material_id"], course_id=row["course_id"]),
    )


async def test_the_real_roster_and_the_first_5000_accesses(sqlite_url: str) -> None:
    with (DATA / "accesses.csv").open() as stream:
        # Time for decisions never runs backward: the accesses are asked in their order, and written before.
        accesses = sorted(csv.DictReader(stream), key=lambda row: row["at"])
    assert len(accesses) == 5000
    now = at(accesses[0])
    tally: Counter[str] = Counter()
    async for service in serve(sqlite_url, now=now, log_level="error"):
        await load(service.address)
        for row in accesses:
            service.now = at(row)
            answer = await service.authorization.Check(check(row))
            why = apb.Reason.Name(answer.reason).removeprefix("REASON_")
            tally[f"{'allowed' if answer.allowed else 'denied'} {why} {list(answer.unmet_facts)}"] += 1
            if not answer.allowed:
                by_date = answer.membership_state in (
                    apb.MEMBERSHIP_STATE_NOT_STARTED,
                    apb.MEMBERSHIP_STATE_ENDED,
                )
                assert by_date or list(answer.unmet_facts) == ["published"], row
            stranger = check(row)
            stranger.subject.id = f"stranger-{row['user_id']}"
            assert not (await service.authorization.Check(stranger)).allowed
    print(dict(tally))
    assert sum(count for key, count in tally.items() if key.startswith("allowed")) > 4000


def at(row: dict[str, str]) -> int:
    return from_datetime(datetime.fromisoformat(row["at"]))


async def load(address: str) -> None:
    """Import the roster, twice, and the materials."""
    roster = ("import", "oneroster", DATA / "oneroster.zip", "--address", address)
    assert (await asyncio.to_thread(run, *roster)).endswith("failed 0\n")
    assert await asyncio.to_thread(run, *roster) == "written 0, unchanged 32615, failed 0\n"
    materials = ("import", "resources", DATA / "materials.csv", "--type", "material", "--ignore", "kind")
    written = await asyncio.to_thread(run, *materials, "--address", address)
    assert written == "written 6364, unchanged 0, failed 0\n"
