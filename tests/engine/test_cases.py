"""Decision tables: each case is a sentence, a question and the whole answer to expect."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from authz.domain.decisions import Question, Reason
from authz.domain.entities import (
    Account,
    AccountStatus,
    Course,
    CourseState,
    Entity,
    Membership,
    MembershipStatus,
    Resource,
    Session,
    SessionState,
    Share,
    ShareLevel,
    Visibility,
)
from authz.domain.errors import InvalidArgumentError
from authz.domain.facts import fact_names
from authz.domain.ids import ResourceRef, parse_resource_ref, parse_scope, parse_subject
from authz.domain.instants import format_instant, parse_instant
from authz.engine.check import Checker
from tests.engine.campus import Campus
from tests.policies import POLICY

CASES = Path(__file__).parent.parent / "cases"
TABLES = {
    name: tomllib.loads((CASES / f"{name}.toml").read_text()) for name in ("decisions", "gates", "states")
}
PARSERS: dict[str, Any] = {
    "subject": parse_subject,
    "owner": parse_subject,
    "scope": parse_scope,
    "resource": parse_resource_ref,
    "status": MembershipStatus,
    "visibility": Visibility,
    "level": ShareLevel,
    **{
        name: lambda text: parse_instant(text, field="time")
        for name in (
            "starts_at",
            "ends_at",
            "suspended_until",
            "available_from",
            "available_until",
            "created_at",
        )
    },
}


def entity(kind: type[Any], row: dict[str, Any], **parsers: Any) -> Any:
    known = PARSERS | parsers
    return kind(**{name: known.get(name, lambda value: value)(value) for name, value in row.items()})


def campus(rows: dict[str, Any]) -> Campus:
    entities: list[Entity] = [
        *(entity(Course, row, state=CourseState) for row in rows["courses"]),
        *(entity(Session, row, state=SessionState) for row in rows["sessions"]),
        *(entity(Membership, row) for row in rows["memberships"]),
        *(entity(Resource, row) for row in rows["resources"]),
        *(entity(Share, row) for row in rows["shares"]),
        *(entity(Account, row, status=AccountStatus) for row in rows.get("accounts", ())),
    ]
    return Campus(entities)


CAMPUSES = {name: campus(table["campus"]) for name, table in TABLES.items()}


@pytest.mark.parametrize(
    ("name", "sentence"), [(name, sentence) for name, table in TABLES.items() for sentence in table["cases"]]
)
def test_a_case_comes_out_as_its_table_says(name: str, sentence: str) -> None:
    table = TABLES[name]
    case = table["cases"][sentence]
    subject, action, resource = case["ask"].split()
    ref = parse_resource_ref(resource) if ":" in resource else ResourceRef(resource, "")
    inline = case.get("inline")
    question = Question(
        subject=parse_subject(subject),
        action=action,
        resource=ref,
        stated_course_id=case.get("course"),
        stated_session_id=case.get("session"),
        inline=None if inline is None else entity(Resource, {"type": ref.type, "id": ref.id, **inline}),
        purpose=case.get("purpose", ""),
    )
    checker = Checker(POLICY, inline_types=frozenset(case.get("inline_types", ())))
    decision = checker.check(
        CAMPUSES[name], question, parse_instant(case.get("now", table["now"]), field="now")
    )
    assert decision.reason == case["reason"]
    assert decision.allowed is (case["reason"] == "ROLE_GRANT")
    if "rule" in case:
        assert decision.rule is not None
        assert decision.rule.role == case["rule"]
    if "unmet" in case:
        assert list(fact_names(decision.verdict.unmet)) == case["unmet"]
    assert (decision.verdict.inactive_reason or None) == case.get("inactive_reason")
    until = None if decision.valid_until is None else format_instant(decision.valid_until)
    assert until == case.get("until")


def test_where_to_create_content_is_to_be_said() -> None:
    question = Question(parse_subject("user:stu"), "create", ResourceRef("notebook", ""))
    with pytest.raises(InvalidArgumentError, match="where to create it"):
        Checker(POLICY).check(CAMPUSES["decisions"], question, 0)


def test_every_reason_has_a_case() -> None:
    assert {case["reason"] for table in TABLES.values() for case in table["cases"].values()} == {
        reason.value for reason in Reason
    }


@pytest.mark.parametrize(
    ("described", "problem"),
    [
        ({"scope": "course:active", "visibility": "SESSION"}, "visibility is SESSION outside a session"),
        ({"scope": "session:alone", "visibility": "COURSE"}, "belongs to no course"),
        ({"scope": "platform"}, "scope is platform"),
        (
            {
                "scope": "course:active",
                "available_from": "2026-03-02T00:00:00Z",
                "available_until": "2026-03-01T00:00:00Z",
            },
            "available_until is not after available_from",
        ),
    ],
)
def test_what_could_not_be_registered_cannot_be_described(described: dict[str, str], problem: str) -> None:
    inline = entity(Resource, {"type": "message", "id": "new", **described})
    question = Question(parse_subject("user:half"), "read", ResourceRef("message", "new"), inline=inline)
    entities = [*CAMPUSES["states"].entities, Session(id="alone", state=SessionState.LIVE)]
    checker = Checker(POLICY, inline_types=frozenset({"message"}))
    with pytest.raises(InvalidArgumentError, match=problem):
        checker.check(Campus(entities), question, 0)
