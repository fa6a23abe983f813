"""A plan filters a caller's own table to exactly what Check allows and ListResources lists, in SQL."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Engine,
    MetaData,
    String,
    Table,
    and_,
    insert,
    null,
    select,
)

from authz.client import CallError, Client, InvalidArgumentError, ResourcePlan
from authz.client.plans import plan_of
from authz.client.sql import where
from authz.domain.context import facts_at, resource_context_of, scope_context_of
from authz.domain.decisions import Question
from authz.domain.entities import Course, CourseState, Entity, Membership, Resource, Session, Share
from authz.domain.facts import ALL_FACTS, FACTS, ComparedValues, fact_names, share_facts
from authz.domain.ids import PLATFORM, ResourceRef, Subject, course_scope, parse_subject, session_scope
from authz.domain.instants import from_datetime, to_datetime
from authz.domain.lists import PlanGroup, PlanKind, ResourceQuery
from authz.domain.mutations import Mutation, Operation
from authz.domain.ports import Snapshot
from authz.engine import plan as planning
from authz.engine.check import Checker
from authz.engine.lists import ResourcePage
from authz.engine.plan import Planner
from authz.store.database.engine import open_engine
from authz.v1 import authorization_pb2 as pb
from authz.wire.lists import PLAN_KINDS, group_message
from tests.client.caller_tables import FIELDS, METADATA, ROWS, fields_for, keep, row_of
from tests.client.conftest import Connect
from tests.client.random_campus import PEOPLE, crowded
from tests.engine.campus import Campus
from tests.engine.test_isolation import COURSES, NOW, SESSIONS, TYPES, resources, subjects
from tests.policies import POLICY, exacting_policy, policy_with
from tests.properties import examples
from tests.service import in_process
from tests.serving import served

DENYING = (
    "p, *, *, notebook, read, own, deny",
    "p, *, *, message, read, own & within_edit_window, deny",
    "p, *, *, material, read, published & !shared_edit, deny",
    "p, *, *, session_note, read, published, deny",
    "p, student, *, course, archive, , deny",
)
"""Rows that take away by what a resource may lack: an owner, a share, a time."""
CHECKERS = [Checker(policy) for policy in (POLICY, exacting_policy(), policy_with(*DENYING))]
STRUCTURAL = ("course", "session")
ANY_TIME = to_datetime(NOW)


@pytest.fixture(scope="module")
def engine(shared_store_url: str) -> Iterator[Engine]:
    """A database of the caller's, of each kind in turn."""
    engine = open_engine(shared_store_url)
    METADATA.create_all(engine)
    yield engine
    engine.dispose()


def planned(checker: Checker, snapshot: Snapshot, query: ResourceQuery) -> ResourcePlan:
    """A plan as a client gets it."""
    planner = Planner(checker, snapshot, NOW, query)
    for _ in planner:
        pass
    message = pb.PlanResourcesResponse(
        kind=PLAN_KINDS.number(planner.kind), groups=map(group_message, planner.groups)
    )
    return plan_of(pb.PlanResourcesResponse.FromString(message.SerializeToString()), query.types[0])


def filtered(connection: Connection, subject: Subject, plans: dict[Any, ResourcePlan]) -> dict[Any, set[str]]:
    """What each plan finds in the caller's table."""
    columns, fields = list(plans), fields_for(subject)
    clauses = [and_(ROWS.c.type == plan.type, where(plan, now=ANY_TIME, **fields)) for plan in plans.values()]
    found: dict[Any, set[str]] = {name: set() for name in columns}
    for type_name, id_, *holds in connection.execute(select(ROWS.c.type, ROWS.c.id, *clauses)):
        for name, held in zip(columns, holds, strict=True):
            if held:
                found[name].add(f"{type_name}:{id_}")
    return found


@examples(20)
@given(st.integers(0, 2**32))
def test_plan_list_and_check_are_equal_for_every_subject_action_and_type(engine: Engine, seed: int) -> None:
    chance = random.Random(seed)
    entities = crowded(chance)
    campus, checker = Campus(entities), chance.choice(CHECKERS)
    purpose = chance.choice(["", "", "", "ai_response", "training"])
    within = chance.choice([None, None, course_scope(COURSES[0]), session_scope(SESSIONS[0])])
    refs = {
        ResourceRef(row["type"], row["id"])
        for row in (row_of(e) for e in campus.entities if isinstance(e, Course | Session | Resource))
    }
    with engine.begin() as connection:
        keep(connection, entities)
        for subject in chance.sample(PEOPLE, 2):
            plans, expected = {}, {}
            for type_name in (*TYPES, *STRUCTURAL):
                for action in checker.policy.vocabulary.types[type_name].actions:
                    if action == "create":
                        continue
                    query = ResourceQuery(subject, action, (type_name,), within, purpose)
                    plans[type_name, action] = planned(checker, campus, query)
                    page = ResourcePage(checker, campus, NOW, query, 1000)
                    listed = {str(each.ref) for each in page if each is not None}
                    checked = {
                        str(ref)
                        for ref in refs
                        if ref.type == type_name
                        and checker.check(
                            campus, Question(subject, action, ref, purpose=purpose), NOW
                        ).allowed
                    }
                    assert listed == checked if within is None else listed <= checked
                    expected[type_name, action] = listed
            assert filtered(connection, subject, plans) == expected


@examples(30)
@given(st.data())
def test_each_fact_asks_of_the_columns_what_its_definition_asks_of_the_record(
    engine: Engine, data: st.DataObject
) -> None:
    course = Course(
        id="a", state=CourseState.ACTIVE, ai_enabled=True, edit_window_us=data.draw(st.integers(1, 6))
    )
    session = Session(id="s", course_id="a")
    made = data.draw(resources)
    resource = Resource(
        **{**{f: getattr(made, f) for f in made.__struct_fields__}, "scope": course_scope("a")}
    )
    subject = data.draw(subjects)
    share = data.draw(st.none() | st.builds(Share, resource=st.just(made.key), subject=st.just(subject)))
    context = resource_context_of(resource, scope_context_of(course, session), subject)
    mask, _ = facts_at(NOW, context, ALL_FACTS)
    mask |= share_facts(None if share is None else share.level)
    asker = ComparedValues(subject, course.edit_window_us)
    predicates = {fact.name: fact.predicate(asker) for fact in FACTS if fact.is_of_resource}
    plans: dict[Any, ResourcePlan] = {
        name: ResourcePlan(
            type=made.type,
            kind=PlanKind.CONDITIONAL,
            groups=(PlanGroup(("a",), (), predicate),),
            checked_at="",
            policy_version="",
            valid_until=None,
        )
        for name, predicate in predicates.items()
    }
    with engine.begin() as connection:
        keep(connection, [resource, *([] if share is None else [share])])
        found = filtered(connection, subject, plans)
    assert {name for name, ids in found.items() if ids} == set(fact_names(mask)) & predicates.keys()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with a small campus."""
    url = f"sqlite:///{tmp_path_factory.mktemp('plans') / 'authz.db'}"
    with served(url) as address, Client(address) as client:
        client.write([Mutation(Operation.CREATE, entity) for entity in SMALL])
        yield address


MAYA, NADIA = parse_subject("user:maya"), parse_subject("user:nadia")
IN_A_YEAR = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(days=365)
SMALL: tuple[Entity, ...] = (
    *(Course(id=f"c{number:02}", state=CourseState.ACTIVE) for number in range(20)),
    Session(id="monday", course_id="c00", open_to_course=True),
    *(Membership(subject=MAYA, scope=course_scope(f"c{number:02}"), role="student") for number in range(19)),
    Membership(subject=MAYA, scope=course_scope("c19"), role="teacher", ends_at=from_datetime(IN_A_YEAR)),
    Membership(subject=NADIA, scope=PLATFORM, role="platform_admin"),
)
Plan = Callable[..., ResourcePlan]


@pytest.fixture
def plan(address: str, connect: Connect) -> Iterator[Plan]:
    """`plan_resources` of a client of each kind in turn."""
    with connect(address) as client:
        yield client.plan_resources


def test_courses_in_which_the_same_holds_are_one_group(plan: Plan) -> None:
    found = plan("user:maya", "update", "material")
    (group,) = found.groups
    assert (found.kind, group.course_ids, group.session_ids) == ("CONDITIONAL", ("c19",), ())
    assert str(group.predicate) == "not locked"
    assert found.valid_until == IN_A_YEAR
    read = plan("user:maya", "read", "notebook")
    assert [(len(each.course_ids), each.session_ids) for each in read.groups] == [(20, ("monday",))]


def test_a_plan_may_be_for_all_and_for_none(plan: Plan) -> None:
    assert {each.session_ids for each in plan("user:maya", "read", "course").groups} == {()}
    assert plan("user:nadia", "archive", "course").kind == "ALWAYS"
    assert plan("user:nadia", "read", "notebook").kind == "NEVER"
    assert plan("user:nobody", "read", "course").kind == "NEVER"
    assert str(where(plan("user:nadia", "archive", "course"))) == "true"
    assert str(where(plan("user:nobody", "read", "course"))) == "false"
    assert plan("user:maya", "read", "notebook", scope="course:c03").groups[0].course_ids == ("c03",)
    (here,) = plan("user:nadia", "archive", "course", scope="course:c03").groups
    assert here == PlanGroup(("c03",), (), None)


def test_a_role_that_takes_an_access_away_somewhere_is_not_passed_over() -> None:
    """What somebody may do with every course, but for the one where she is a student."""
    admin = Membership(subject=NADIA, scope=PLATFORM, role="platform_admin")
    student = Membership(subject=NADIA, scope=course_scope("a"), role="student")
    courses = [Course(id=name, state=CourseState.ACTIVE) for name in ("a", "b")]
    found = planned(
        CHECKERS[-1], Campus([*courses, admin, student]), ResourceQuery(NADIA, "archive", ("course",))
    )
    assert found.groups == (PlanGroup(("b",), (), None),)


@pytest.mark.parametrize(
    "rows",
    [
        ("platform_admin, *, session, read, , allow", "host, *, session, read, attending, deny"),
        ("platform_admin, *, session, read, attending, allow",),
        ("platform_admin, *, session, read, for_ai_response, allow",),
        ("platform_admin, *, session, read, , allow", "*, *, session, read, !for_ai_response, deny"),
    ],
)
@pytest.mark.parametrize("purpose", ["", "ai_response"])
def test_a_condition_is_not_passed_over_by_who_may_act_in_every_session(
    rows: tuple[str, ...], purpose: str
) -> None:
    checker = Checker(policy_with(*(f"p, {row}" for row in rows)))
    sessions = [Session(id=name) for name in ("a", "b")]
    held = [(PLATFORM, "platform_admin"), (session_scope("a"), "host")]
    campus = Campus([*sessions, *(Membership(subject=NADIA, scope=each, role=role) for each, role in held)])
    query = ResourceQuery(NADIA, "read", ("session",), None, purpose)
    found = planned(checker, campus, query)
    assert all(group.predicate is None for group in found.groups)
    planned_ids = {id_ for group in found.groups for id_ in group.session_ids}
    listed = {each.id for each in ResourcePage(checker, campus, NOW, query, 10) if each}
    assert (planned_ids if found.kind != "ALWAYS" else {"a", "b"}) == listed


def test_each_course_has_its_own_edit_window() -> None:
    windows = {"closed": 0, "short": 1, "long": 5, "other": 5}
    campus = Campus(
        [
            *(Course(id=id_, state=CourseState.ACTIVE, edit_window_us=us) for id_, us in windows.items()),
            *(Membership(subject=MAYA, scope=course_scope(id_), role="student") for id_ in windows),
        ]
    )

    def courses(action: str) -> list[tuple[str, ...]]:
        query = ResourceQuery(MAYA, action, ("message",))
        return sorted(group.course_ids for group in planned(CHECKERS[0], campus, query).groups)

    assert courses("update") == [("long", "other"), ("short",)]
    assert courses("read") == [("closed", "long", "other", "short")]


def test_a_rule_of_one_course_is_not_passed_over_by_who_may_act_in_every_course() -> None:
    checker = Checker(policy_with("p, *, course:a, course, archive, , deny"))
    admin = Membership(subject=NADIA, scope=PLATFORM, role="platform_admin")
    courses = [Course(id=name, state=CourseState.ACTIVE) for name in ("a", "b")]
    found = planned(checker, Campus([*courses, admin]), ResourceQuery(NADIA, "archive", ("course",)))
    assert found.groups == (PlanGroup(("b",), (), None),)


def test_a_purpose_that_no_policy_permits_has_an_empty_plan() -> None:
    course = Course(id="a", state=CourseState.ACTIVE, ai_enabled=True)
    owner = Membership(subject=MAYA, scope=course_scope("a"), role="owner")
    kinds = [
        planned(
            CHECKERS[0],
            Campus([course, owner]),
            ResourceQuery(MAYA, "ai_process", ("notebook",), None, purpose),
        ).kind
        for purpose in ("ai_response", "training")
    ]
    assert kinds == ["CONDITIONAL", "NEVER"]


def test_a_plan_that_is_over_is_not_used(plan: Plan) -> None:
    found = plan("user:maya", "update", "material")
    with pytest.raises(InvalidArgumentError, match="ask for a new one"):
        where(found, now=IN_A_YEAR, **FIELDS)
    assert where(found, now=IN_A_YEAR - dt.timedelta(seconds=1), **FIELDS) is not None


def test_a_time_without_a_zone_is_refused_also_for_a_plan_without_an_end(plan: Plan) -> None:
    found = plan("user:maya", "read", "material", scope="course:c00")
    assert found.valid_until is None
    with pytest.raises(InvalidArgumentError, match="a datetime with a time zone"):
        where(found, now=dt.datetime(2030, 1, 1), **FIELDS)


def test_a_column_that_the_plan_needs_is_named(plan: Plan) -> None:
    found = plan("user:maya", "read", "notebook")
    given = {**FIELDS, "share_level": null()}
    del given["owner"]
    with pytest.raises(InvalidArgumentError, match="owner=…"):
        where(found, **given)
    with pytest.raises(InvalidArgumentError, match=r"^ower is no field"):
        where(found, ower=ROWS.c.owner, **given)
    with pytest.raises(InvalidArgumentError, match=r"^available_from is of the type"):
        where(plan("user:maya", "read", "material"), **{**FIELDS, "available_from": ROWS.c.owner})


@pytest.mark.parametrize("timezone", [True, False])
def test_times_may_be_datetimes(engine: Engine, plan: Plan, timezone: bool) -> None:
    table = Table(
        f"opens_{timezone}",
        MetaData(),
        Column("id", String, primary_key=True),
        Column("opens_at", DateTime(timezone=timezone)),
    )
    now = dt.datetime.now(dt.UTC)
    clause = where(
        plan("user:maya", "read", "material", scope="course:c00"),
        now=now,
        course_id=ROWS.c.course_id,
        session_id=null(),
        published=ROWS.c.published,
        available_from=table.c.opens_at,
        available_until=null(),
    )
    with engine.begin() as connection:
        table.create(connection)
        keep(connection, [Resource(type="material", id="m", scope=course_scope("c00"), published=True)])
        for minutes in (-1, 1):
            opens_at = now + dt.timedelta(minutes=minutes)
            kept = opens_at if timezone else opens_at.replace(tzinfo=None)
            connection.execute(insert(table), {"id": str(minutes), "opens_at": kept})
        found = connection.scalars(select(table.c.id).join(ROWS, ROWS.c.id == "m").where(clause)).all()
        table.drop(connection)
    assert found == ["-1"]


@pytest.mark.parametrize(
    ("question", "reason", "words"),
    [
        (("user:maya", "raed", "notebook", None), "UNKNOWN_ACTION", "did you mean `read`"),
        (("user:maya", "read", "notebok", None), "UNKNOWN_TYPE", "did you mean `notebook`"),
        (("user:maya", "create", "notebook", None), "MALFORMED_FIELD", "ListActions"),
        (("user:maya", "check", "api", None), "MALFORMED_FIELD", "`api`"),
        (("user:maya", "read", "notebook", "platform"), "MALFORMED_FIELD", "name a course or a session"),
    ],
)
def test_a_bad_question_names_the_input_and_the_remedy(
    plan: Plan, question: tuple[str, str, str, str | None], reason: str, words: str
) -> None:
    subject, action, type_name, scope = question
    with pytest.raises(CallError) as caught:
        plan(subject, action, type_name, scope=scope)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert words in caught.value.message


@in_process
@pytest.mark.parametrize(("name", "enough"), [("MAX_SCOPES", 21), ("MAX_GROUPS", 1)])
def test_a_plan_that_would_be_too_large_says_what_to_do(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, name: str, enough: int
) -> None:
    monkeypatch.setattr(planning, name, enough)
    assert len(plan("user:maya", "read", "notebook").groups) == 1
    monkeypatch.setattr(planning, name, enough - 1)
    with pytest.raises(CallError, match="set `scope` to one course") as caught:
        plan("user:maya", "read", "notebook")
    assert (caught.value.reason, caught.value.metadata["limit"]) == ("TOO_MANY_ITEMS", str(enough - 1))
