"""The metric of a shadow counts what its report counts, in every worker."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from authz.client import Client
from authz.domain.drafts import AddRow, SetCell
from authz.domain.mutations import Mutation, Operation
from tests.cli.test_policy_shadow import ALGEBRA, CAMPUS
from tests.runtime.test_supervise import metrics
from tests.serving import serving
from tests.waiting import until

_CLIENTS = 12
_METRIC = 'authz_shadow_checks_total{{outcome="{}",scope="{}"}}'


def counted(address: str, scope: str) -> dict[str, float]:
    found = metrics(address)
    return {
        outcome: found[_METRIC.format(outcome, scope)]
        for outcome in ("same", "gains", "loses", "skipped", "failed")
    }


@pytest.mark.parametrize(("workers", "scope"), [("1", "platform"), ("2", "platform"), ("2", "course")])
def test_every_check_of_a_shadow_is_counted_once(
    sqlite_url: str, workers: str, scope: str, free_port: int
) -> None:
    exported = f"127.0.0.1:{free_port}"
    course = ALGEBRA.id if scope == "course" else None
    with (
        serving(sqlite_url, AUTHZ_WORKERS=workers, AUTHZ_METRICS_ADDRESS=exported) as (_, address),
        ExitStack() as stack,
        Client(address) as client,
    ):
        client.write([Mutation(Operation.TOUCH, each) for each in CAMPUS])
        assert set(counted(exported, scope).values()) == {0}
        shadows, drafts = client.policies.shadow, client.policies.drafts
        draft = drafts.create("mine", course_id=course)
        edit = (
            AddRow(f"p, student, {ALGEBRA}, material, read, , deny")
            if course
            else SetCell("student", "material", "read", ())
        )
        drafts.edit(draft, [edit])
        shadows.start("mine", sample_rate=1.0, budget_us=1_000_000, course_id=course)
        clients = [stack.enter_context(Client(address)) for _ in range(_CLIENTS)]

        def is_counted() -> bool:
            for each in clients:
                each.check("user:maya", "read", "material:m-1")
                each.check("user:maya", "update", "material:m-1")
            return counted(exported, scope)["loses"] > _CLIENTS

        until(is_counted, "no check was counted")
        shadows.stop(course_id=course)

        def is_alike() -> bool:
            report = shadows.read(course_id=course)
            assert report is not None
            found = counted(exported, scope)
            tally = report.tally
            compared = found["same"] + found["gains"] + found["loses"]
            differing = found["gains"] + found["loses"]
            return (
                (compared, differing, found["skipped"], found["failed"])
                == (
                    tally.compared,
                    tally.differing,
                    tally.skipped,
                    tally.failed,
                )
                != (0, 0, 0, 0)
            )

        until(is_alike, "the metric and the report differ")
        found = counted(exported, scope)
        assert found["gains"] == found["failed"] == 0
        assert found["same"] > 0
        other = counted(exported, "platform" if course else "course")
        assert set(other.values()) == {0}
