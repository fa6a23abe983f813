"""Print what it costs to filter a table by a plan, against a list of the ids, as an application does it."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, Table, Text, create_engine, insert, null, select

from authz.client.plans import ResourcePlan, plan_of
from authz.client.sql import where
from authz.domain.ids import Subject, SubjectType
from authz.domain.lists import ResourceQuery
from authz.engine.check import Checker
from authz.engine.lists import ResourcePage
from authz.engine.plan import Planner
from authz.policy.load import load_policy, policy_directory
from authz.replica.view import ReplicaView
from authz.runtime.compose import system_clock
from authz.v1 import authorization_pb2 as pb
from authz.wire.lists import PLAN_KINDS, group_message
from tests.bench.lists import READABLE, ListCampus
from tests.bench.measure import cost_us, cpu_ratios, show
from tests.bench.replica import built

USERS = 1_000
NOTEBOOKS = Table(
    "notebooks",
    MetaData(),
    Column("id", Text, primary_key=True),
    Column("course_id", Text, nullable=False, index=True),
    Column("visibility", Text, nullable=False),
)
"""Of the application. Nobody owns a notebook, and none is shared."""


def query_of(number: int) -> ResourceQuery:
    """What the user of a number may read."""
    return ResourceQuery(Subject(SubjectType.USER, f"u{number:08d}"), "read", ("notebook",))


class Application:
    """A table of the notebooks of a campus, and the two ways to select what somebody may read."""

    def __init__(
        self, checker: Checker, view: ReplicaView, campus: ListCampus, connection: Connection
    ) -> None:
        self._checker, self._view, self._connection = checker, view, connection
        NOTEBOOKS.metadata.create_all(connection)
        made = map(campus.notebook, range(campus.notebooks))
        rows = [{"id": e.id, "course_id": e.scope.id, "visibility": e.visibility.value} for e in made]
        connection.execute(insert(NOTEBOOKS), rows)

    def plan(self, number: int) -> ResourcePlan:
        """The plan as a client reads it."""
        planner = Planner(self._checker, self._view.snapshot(), system_clock(), query_of(number))
        for _ in planner:
            pass
        groups = map(group_message, planner.groups)
        return plan_of(
            pb.PlanResourcesResponse(kind=PLAN_KINDS.number(planner.kind), groups=groups), "notebook"
        )

    def listed(self, number: int) -> list[str]:
        """The ids of the whole list."""
        page = ResourcePage(self._checker, self._view.snapshot(), system_clock(), query_of(number), READABLE)
        return [each.ref.id for each in page if each is not None]

    def by_plan(self, number: int) -> set[str]:
        """The rows that the plan selects."""
        columns = NOTEBOOKS.c
        clause = where(
            self.plan(number),
            course_id=columns.course_id,
            session_id=null(),
            visibility=columns.visibility,
            owner=null(),
            share_level=null(),
        )
        return set(self._connection.scalars(select(columns.id).where(clause)))

    def by_list(self, number: int) -> set[str]:
        """The rows whose ids are listed."""
        ids = self.listed(number)
        return set(self._connection.scalars(select(NOTEBOOKS.c.id).where(NOTEBOOKS.c.id.in_(ids))))


def main(size: int = 100_000) -> None:
    """Over a replica of `size` memberships, and a table in SQLite of a fifth as many notebooks."""
    checker, campus = Checker(load_policy(policy_directory())), ListCampus(size)
    chance = random.Random(1)
    users = [chance.randrange(campus.users) for _ in range(USERS)]
    with ExitStack() as stack:
        view = built(campus, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authz-bench-"))))
        stack.callback(view.close)
        engine = create_engine("sqlite://")
        stack.callback(engine.dispose)
        application = Application(checker, view, campus, stack.enter_context(engine.connect()))
        for number in users:
            assert application.by_plan(number) == application.by_list(number)
        listed_us, _ = cost_us(application.listed, users, a_round=50, clock=time.thread_time)
        calls: list[Callable[[int], object]] = [
            application.listed,
            application.plan,
            application.by_plan,
            application.by_list,
        ]
        _, *ratios = cpu_ratios([(call, users) for call in calls], a_round=50)
    show(f"in process: a list of {READABLE} of {campus.notebooks:,} resources", f"{listed_us:,.0f} us")
    for label, ratio in zip(
        ("a plan", "a plan and the rows that it selects", "a list and the rows with its ids"),
        ratios,
        strict=True,
    ):
        show(f"{label}, against the list", f"{ratio:.2f}x")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 100_000)
