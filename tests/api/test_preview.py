"""Previews from the outside: what they say is what Check answers once the policy is applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import pytest

from authz.audit.table import TableSink
from authz.policy.load import POLICY_FILE
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import policy_pb2 as ppb
from tests.api import test_rights as rights
from tests.api.test_api import ALGEBRA, COURSE, MAYA, STUDENT, touch, written
from tests.api.test_course_policies import applied_in, course_files
from tests.api.test_policies import applied, messages, refused
from tests.policies import CLOSED, SHIPPED, with_rows
from tests.service import START, Service, in_process, reason_of, serve

OMAR = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="omar")
TESS = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="tess")
PEOPLE = (MAYA, OMAR, TESS)
LESSON = pb.Scope(session_id="lesson")
CAMPUS = (
    COURSE,
    STUDENT,
    touch(session=pb.Session(id="lesson", course_id="algebra", open_to_course=True)),
    touch(membership=pb.Membership(subject=OMAR, scope=LESSON, role="attendee")),
    touch(membership=pb.Membership(subject=TESS, scope=ALGEBRA, role="teaching_assistant")),
    *(
        touch(
            resource=pb.Resource(
                type=type_name,
                id=f"{place}-{owner.id}",
                scope=scope,
                owner=owner,
                visibility=visibility,
                published=owner is MAYA,
            )
        )
        for type_name in ("notebook", "message", "material")
        for place, scope, visibility in (
            ("course", ALGEBRA, pb.VISIBILITY_COURSE),
            ("lesson", LESSON, pb.VISIBILITY_SESSION),
        )
        for owner in PEOPLE
        if type_name != "material" or place == "course"
    ),
    touch(
        share=pb.Share(
            resource_type="notebook", resource_id="course-tess", subject=MAYA, level=pb.SHARE_LEVEL_VIEWER
        )
    ),
)
RESOURCES = [m.resource for m in CAMPUS if m.HasField("resource")]
CHANGES = {
    "own": with_rows("p, student, *, notebook, read, !own & !shared_view, deny"),
    "session": with_rows("p, attendee, *, message, moderate, session_visible, allow"),
    "role": with_rows("p, teaching_assistant, *, material, publish, , allow"),
    "closed": CLOSED,
}


async def previewed(
    service: Service, files: Mapping[str, str], **fields: Any
) -> list[ppb.PreviewPolicyResponse]:
    request = ppb.PreviewPolicyRequest(files=messages(files), max_examples=100, **fields)
    return [part async for part in service.policy.PreviewPolicy(request)]


def told(parts: list[ppb.PreviewPolicyResponse]) -> set[tuple[str, str, str, str, bool]]:
    """(who, action, type, id, whether it is gained) of every row, for plain use."""
    return {
        (subject.id, change.action, example.type, example.id, change.gains)
        for part in parts
        for row in part.rows
        for subject in row.subjects
        for change in row.changes
        for example in change.examples
        if "" in change.purposes
    }


async def allowed(service: Service) -> set[tuple[str, str, str, str]]:
    """All that Check allows: everybody, every action, every resource."""
    questions = []
    for subject in PEOPLE:
        for resource in RESOURCES:
            query = apb.ResourceQuery(type=resource.type, id=resource.id)
            actions = await service.authorization.ListActions(
                apb.ListActionsRequest(subject=subject, resource=query)
            )
            questions += [(subject, each.action, query) for each in actions.actions]
    batch = apb.BatchCheckRequest(
        items=[apb.CheckRequest(subject=s, action=a, resource=query) for s, a, query in questions],
        consistency=pb.Consistency(fully_consistent=True),
    )
    results = (await service.authorization.BatchCheck(batch)).results
    return {
        (subject.id, action, query.type, query.id)
        for (subject, action, query), result in zip(questions, results, strict=True)
        if result.response.allowed
    }


@pytest.mark.parametrize("files", CHANGES.values(), ids=CHANGES)
async def test_applying_it_changes_exactly_what_the_preview_said(
    sqlite_service: Service, files: dict[str, str]
) -> None:
    await written(sqlite_service, *CAMPUS)
    parts = await previewed(sqlite_service, files)
    before = await allowed(sqlite_service)
    await applied(sqlite_service, files)
    after = await allowed(sqlite_service)
    assert told(parts) == {(*each, True) for each in after - before} | {
        (*each, False) for each in before - after
    }
    assert told(parts)
    *_, last = parts
    assert last.totals.policy_version == "1"
    assert last.totals.rows == sum(len(row.subjects) for part in parts for row in part.rows)
    assert last.totals.members == 3


async def test_a_version_is_previewed_by_its_number_and_equal_ones_change_nothing(
    sqlite_service: Service,
) -> None:
    await written(sqlite_service, *CAMPUS)
    await applied(sqlite_service, CLOSED)
    back = [part async for part in sqlite_service.policy.PreviewPolicy(ppb.PreviewPolicyRequest(number=1))]
    gained = [(change.action, change.type) for part in back for row in part.rows for change in row.changes]
    assert set(gained) == {("read", "material")}
    assert back[-1].totals.largest[0].changes[0].after.rule.source.startswith("default.csv:")
    (same,) = [part async for part in sqlite_service.policy.PreviewPolicy(ppb.PreviewPolicyRequest(number=2))]
    assert (same.totals.rows, same.totals.members) == (0, 0)


async def test_the_active_policy_of_a_course_counts_in_a_preview(sqlite_service: Service) -> None:
    await written(sqlite_service, *CAMPUS)
    await applied_in(sqlite_service, "p, student, course:algebra, material, read, , deny")
    opened = with_rows("p, student, *, material, read, , allow")
    assert not told(await previewed(sqlite_service, opened))


async def test_a_deny_of_the_platform_is_previewed_where_only_a_course_allows_what_it_stops(
    sqlite_service: Service,
) -> None:
    publish = "p, teacher, *, material, publish, , allow\n"
    base = with_rows()
    nobody = base | {POLICY_FILE: base[POLICY_FILE].replace(publish, "")}
    closed = base | {
        POLICY_FILE: nobody[POLICY_FILE] + "p, teaching_assistant, *, material, publish, , deny\n"
    }
    await written(sqlite_service, *CAMPUS)
    await applied(sqlite_service, nobody)
    await applied_in(sqlite_service, "p, teaching_assistant, course:algebra, material, publish, , allow")
    parts = await previewed(sqlite_service, closed)
    before = await allowed(sqlite_service)
    await applied(sqlite_service, closed)
    after = await allowed(sqlite_service)
    assert before - after
    assert told(parts) == {(*each, False) for each in before - after}


async def test_a_change_of_a_course_policy_is_previewed_in_that_course(sqlite_service: Service) -> None:
    await written(sqlite_service, *CAMPUS, touch(course=pb.Course(id="chemistry")))
    closes = "p, student, course:algebra, notebook, read, !own & !shared_view, deny"
    parts = await previewed(sqlite_service, course_files(closes), course_id="algebra")
    before = await allowed(sqlite_service)
    await applied_in(sqlite_service, closes)
    after = await allowed(sqlite_service)
    assert told(parts) == {(*each, False) for each in before - after}
    assert told(parts)
    assert not told(await previewed(sqlite_service, course_files(closes), course_id="algebra"))
    assert not told(await previewed(sqlite_service, course_files(), course_id="chemistry"))
    back = await previewed(sqlite_service, course_files(), course_id="algebra")
    assert {(*each[:4], False) for each in told(back)} == told(parts)


async def test_a_course_whose_policy_does_not_pass_is_named(sqlite_service: Service) -> None:
    await written(sqlite_service, *CAMPUS)
    added = with_rows("role, grader, course, 25, no,")
    await applied(sqlite_service, added)
    await applied_in(sqlite_service, "p, grader, course:algebra, notebook, read, own, allow")
    error = await refused(previewed(sqlite_service, SHIPPED))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "PRECONDITION_FAILED")
    assert "course:algebra does not pass" in str(error.details())


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"number": 7}, grpc.StatusCode.NOT_FOUND, "there is no version 7"),
        ({"number": -1}, grpc.StatusCode.INVALID_ARGUMENT, "number is -1"),
        ({"number": 1, "files": messages(SHIPPED)}, grpc.StatusCode.INVALID_ARGUMENT, "send one of the two"),
        ({"number": 1, "max_examples": 101}, grpc.StatusCode.INVALID_ARGUMENT, "ask for 1 to 100"),
        ({"number": 1, "max_largest": -1}, grpc.StatusCode.INVALID_ARGUMENT, "ask for 1 to 1000"),
        (
            {"files": messages(with_rows("p, studnt, *, notebook, read, own, allow"))},
            grpc.StatusCode.FAILED_PRECONDITION,
            "did you mean `student`?",
        ),
    ],
)
async def test_what_cannot_be_previewed_is_told(
    sqlite_service: Service, fields: dict[str, Any], code: grpc.StatusCode, says: str
) -> None:
    async def ask() -> None:
        async for _ in sqlite_service.policy.PreviewPolicy(ppb.PreviewPolicyRequest(**fields)):
            pass

    error = await refused(ask())
    assert error.code() is code
    assert says in str(error.details())


async def test_a_preview_names_people_only_to_who_may_edit_the_policy(sqlite_service: Service) -> None:
    await rights.campus(sqlite_service)

    async def ask(person: str, course_id: str = "") -> None:
        row = "p, student, course:algebra, material, read, , deny"
        files = messages(course_files(row)) if course_id else ()
        request = ppb.PreviewPolicyRequest(files=files, number=0 if course_id else 1, course_id=course_id)
        async for _ in sqlite_service.policy.PreviewPolicy(request, metadata=rights.acting_for(person)):
            pass

    await ask("root")
    await ask("olga", "algebra")
    for person, course_id in (("stu", ""), ("olga", ""), ("tess", "algebra")):
        error = await refused(ask(person, course_id))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED, person


async def test_checks_are_answered_while_a_preview_goes_on(sqlite_service: Service) -> None:
    service = sqlite_service
    await written(service, *CAMPUS)
    many = [
        touch(
            membership=pb.Membership(
                subject=pb.Subject(type=pb.SUBJECT_TYPE_USER, id=f"u{n}"), scope=ALGEBRA, role="student"
            )
        )
        for n in range(12_000)
    ]
    await service.directory.Import(
        dpb.ImportRequest(mutations=many[n : n + 1000]) for n in range(0, len(many), 1000)
    )
    query = apb.ResourceQuery(type="material", id="course-maya")
    question = apb.CheckRequest(subject=MAYA, action="read", resource=query)
    answered, seen = 0, 0
    preview = service.policy.PreviewPolicy(ppb.PreviewPolicyRequest(files=messages(CHANGES["own"])))
    async for part in preview:
        if part.HasField("totals"):
            seen = part.totals.rows
        else:
            assert (await service.authorization.Check(question)).allowed
            answered += 1
    assert (answered > 1, seen) == (True, 12_001)


async def test_a_removed_role_that_people_hold_and_a_course_that_is_not_there_are_warned_of(
    sqlite_service: Service,
) -> None:
    await written(sqlite_service, *CAMPUS)
    await applied(sqlite_service, with_rows("role, grader, course, 25, no,", "role, reader, course, 12, no,"))
    await written(
        sqlite_service,
        *(
            touch(membership=pb.Membership(subject=subject, scope=ALGEBRA, role="grader"))
            for subject in (MAYA, TESS)
        ),
    )
    files = with_rows(
        "p, student, course:algebr, notebook, read, shared_view & locked, allow",
        "p, student, course:algebra, notebook, read, shared_view & own & locked, allow",
    )
    lines = len(SHIPPED["default.csv"].splitlines())
    found = await sqlite_service.policy.ValidatePolicy(ppb.ValidatePolicyRequest(files=messages(files)))
    assert not found.faults
    told = {warning.where: warning.message for warning in found.warnings}
    assert told[f"default.csv:{lines + 1}"].startswith(("changes nothing", "there is no course `algebr`"))
    assert any(each.message.startswith("there is no course `algebr`") for each in found.warnings)
    assert told["role `grader`"].startswith(
        "is no longer declared, and 2 memberships have it, in course:algebra"
    )
    assert "role `reader`" not in told
    assert not any("`algebra`" in each.message for each in found.warnings)
    fine = await sqlite_service.policy.ValidatePolicy(ppb.ValidatePolicyRequest(files=messages(SHIPPED)))
    assert [warning.where for warning in fine.warnings] == ["role `grader`"]
    unproved = messages({**SHIPPED, "invariants.toml": "[gaining.mine]\nsays = 'mine'\n"})
    found = await sqlite_service.policy.ValidatePolicy(ppb.ValidatePolicyRequest(files=unproved))
    assert any("the invariant `private-content` of the active" in each.message for each in found.warnings)
    published = await applied(sqlite_service, SHIPPED)
    assert published.changed
    assert published.warnings == fine.warnings
    back = await sqlite_service.policy.RollBackPolicy(ppb.RollBackPolicyRequest(number=2))
    assert (back.changed, [*back.warnings]) == (True, [])


QUIZ = "type, quiz, create|read", "type, essay, create|read"


async def test_a_removed_type_that_resources_have_is_warned_of(sqlite_service: Service) -> None:
    await written(sqlite_service, *CAMPUS)
    await applied(sqlite_service, with_rows(*QUIZ))
    quizzes = [pb.Resource(type="quiz", id=id_, scope=ALGEBRA) for id_ in ("q1", "q2")]
    await written(sqlite_service, *(touch(resource=quiz) for quiz in quizzes))
    fewer = ppb.ValidatePolicyRequest(files=messages(SHIPPED))
    found = await sqlite_service.policy.ValidatePolicy(fewer)
    (told,) = found.warnings
    assert told.where == "type `quiz`"
    assert told.message.startswith(
        "is no longer declared, and 2 resources have it, in course:algebra; checks"
    )
    assert (await applied(sqlite_service, SHIPPED)).warnings == found.warnings


@in_process
async def test_a_preview_says_how_many_of_the_newest_decisions_would_change(store_url: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TableSink, "gather_s", 0.0)
        async with serve(store_url, decision_log="table") as service:
            await written(service, *CAMPUS)
            first = (await previewed(service, CHANGES["own"]))[-1].totals
            assert not first.HasField("recent")
            asked = [
                (MAYA, "course-maya"),
                (MAYA, "course-omar"),
                (OMAR, "course-omar"),
                (TESS, "course-maya"),
            ]
            answers = [
                await service.authorization.Check(
                    apb.CheckRequest(
                        subject=subject,
                        action="read",
                        resource=apb.ResourceQuery(type="notebook", id=id_),
                    )
                )
                for subject, id_ in asked
            ]
            assert [answer.allowed for answer in answers] == [True, True, False, True]
            while True:
                totals = (await previewed(service, CHANGES["own"]))[-1].totals
                if totals.recent.count == len(asked):
                    break
    assert totals.recent.changed == 1  # a student no longer reads what is not her own
    assert totals.recent.since.seconds == START // 1_000_000
