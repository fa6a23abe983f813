"""The shadow of the policy from the command line, on a running server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from authz.cli.policy_shadow import _summary
from authz.client import Client
from authz.domain.drafts import AddRow
from authz.domain.entities import Course, CourseState, Membership, Resource
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation
from authz.domain.shadow import PolicyShadow, ShadowReport, ShadowState, ShadowTally
from tests.cli.commands import run
from tests.databases import create_sqlite
from tests.serving import served

ALGEBRA = course_scope("algebra")
CAMPUS = (
    Course(id="algebra", state=CourseState.ACTIVE),
    Membership(subject=parse_subject("user:maya"), scope=ALGEBRA, role="student"),
    Resource(type="material", id="m-1", scope=ALGEBRA, published=True),
)
TIMEOUT_S = 60


@contextmanager
def server_in(folder: Path) -> Iterator[str]:
    with served(create_sqlite(folder / "authz.db")) as address:
        yield address


def test_a_draft_is_tried_and_what_it_would_change_is_shown(tmp_path: Path) -> None:
    with server_in(tmp_path) as address:
        here = ("--address", address)
        assert "no shadow was started" in run("policy", "shadow", "show", *here).stderr
        with Client(address) as client:
            client.write([Mutation(Operation.TOUCH, each) for each in CAMPUS])
            client.policies.drafts.create("mine")
            run("policy", "edit", "mine", "--set", "student", "material", "read", "never", *here)
            begun = run("policy", "shadow", "start", "draft:mine", "--sample-rate", "1", *here)
            assert begun.stdout.startswith("draft `mine` alongside version 1, on 100% of the checks, until ")
            again = run("policy", "shadow", "start", "draft:mine", *here)
            assert (again.returncode, "`authz policy shadow stop`" in again.stderr) == (2, True)
            deadline = time.monotonic() + TIMEOUT_S
            while (shown := run("policy", "shadow", "show", *here)).returncode == 0:
                assert client.check("user:maya", "read", "material:m-1")
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert shown.returncode == 1
        assert "student loses read on material" in shown.stdout
        assert "user:maya read material:m-1 in course:algebra: student loses read on material" in shown.stdout
        assert (
            "  now:   allowed: ROLE_GRANT by `p, student, *, material, read, published, allow`"
            in shown.stdout
        )
        assert "  then:  denied: NO_RULE\n" in shown.stdout
        assert run("policy", "shadow", "stop", *here).stdout.startswith(
            "draft `mine` alongside version 1, on 100% of"
        )
        found = json.loads(run("policy", "shadow", "show", "--json", *here).stdout)
        assert (found["state"], found["draft_id"], found["against_number"]) == ("ENDED", "mine", 1)
        (cell,) = found["cells"]
        assert (cell["roles"], cell["checks"]) == (["student"], found["differing"])
        example = found["examples"][0]
        assert (example["roles"], example["candidate"]) == (["student"], "denied: NO_RULE")
        assert "cell" not in example


def test_a_draft_of_a_course_is_tried_in_its_course(tmp_path: Path) -> None:
    with server_in(tmp_path) as address:
        course = ("--course", "algebra", "--address", address)
        with Client(address) as client:
            client.write([Mutation(Operation.TOUCH, each) for each in CAMPUS])
            draft = client.policies.drafts.create("mine", course_id="algebra")
            row = AddRow("p, student, course:algebra, material, read, , deny")
            client.policies.drafts.edit(draft, [row])
            missing = run("policy", "shadow", "show", *course).stderr
            assert "start one with `authz policy shadow start --course algebra`" in missing
            begun = run("policy", "shadow", "start", "draft:mine", "--sample-rate", "1", *course)
            assert begun.stdout.startswith(
                "draft `mine` alongside the platform's policy alone in course:algebra"
            )
            deadline = time.monotonic() + TIMEOUT_S
            while (shown := run("policy", "shadow", "show", *course)).returncode == 0:
                assert client.check("user:maya", "read", "material:m-1")
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert "student loses read on material" in shown.stdout
        assert "`p, student, course:algebra, material, read, , deny`" in shown.stdout
        assert "no shadow was started" in run("policy", "shadow", "show", "--address", address).stderr
        assert run("policy", "shadow", "stop", *course).returncode == 0
        found = json.loads(run("policy", "shadow", "show", "--json", *course).stdout)
        assert (found["state"], found["course_id"], found["against_course_number"]) == ("ENDED", "algebra", 0)


def test_the_cost_is_told_in_digits() -> None:
    shadow = PolicyShadow(against_number=1, sample_rate=1.0, budget_us=1, author="a", started_at=0, ends_at=1)
    tally = ShadowTally(compared=20_000_000, elapsed_us=1_234_567_890)
    *_, cost = _summary(ShadowReport(shadow, ShadowState.RUNNING, tally))
    assert cost == "cost: 1,234.57 s in all, 62 us a check compared"
