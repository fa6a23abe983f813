"""Drafts of the policy of a course, from the outside: as those of the platform's, and by the course alone."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from authz.domain.ids import Scope
from authz.engine.publish import Publisher
from authz.v1 import common_pb2 as pb
from authz.v1 import policy_pb2 as ppb
from tests.api.test_api import COURSE, MATERIAL, STUDENT, delete, question, written
from tests.api.test_course_policies import CLOSES, OTHER, applied_in, read_in
from tests.api.test_drafts import cell
from tests.api.test_policies import refused
from tests.api.test_rights import acting_for, campus, publish
from tests.api.test_scheduled import HOUR_US, stamp, until
from tests.service import START, Service, in_process, reason_of

ROW = ppb.PolicyEdit(add_row=CLOSES)
"""Students of algebra read no materials."""


async def created(
    service: Service, draft_id: str = "mine", course_id: str = "algebra", metadata: Any = ()
) -> ppb.PolicyDraft:
    request = ppb.CreatePolicyDraftRequest(id=draft_id, course_id=course_id)
    draft: ppb.PolicyDraft = (await service.policy.CreatePolicyDraft(request, metadata=metadata)).draft
    return draft


async def edited(
    service: Service, draft: ppb.PolicyDraft, *edits: ppb.PolicyEdit, metadata: Any = (), **fields: Any
) -> ppb.EditPolicyDraftResponse:
    request = ppb.EditPolicyDraftRequest(
        id=draft.id, course_id=draft.course_id, etag=draft.etag, edits=edits, **fields
    )
    response: ppb.EditPolicyDraftResponse = await service.policy.EditPolicyDraft(request, metadata=metadata)
    return response


async def published(service: Service, draft: ppb.PolicyDraft, metadata: Any = ()) -> Any:
    request = ppb.PublishPolicyDraftRequest(id=draft.id, course_id=draft.course_id, etag=draft.etag)
    return await service.policy.PublishPolicyDraft(request, metadata=metadata)


async def read(service: Service, course_id: str = "algebra") -> ppb.PolicyDraft:
    request = ppb.ReadPolicyDraftRequest(id="mine", course_id=course_id)
    draft: ppb.PolicyDraft = (await service.policy.ReadPolicyDraft(request)).draft
    return draft


async def ids(service: Service, course_id: str = "algebra") -> list[str]:
    request = ppb.ReadPolicyDraftsRequest(course_id=course_id)
    return [draft.id for draft in (await service.policy.ReadPolicyDrafts(request)).drafts]


async def test_a_draft_of_a_course_is_made_edited_and_published_in_its_course_alone(service: Service) -> None:
    await written(service, COURSE, STUDENT, MATERIAL, *OTHER)
    draft = await created(service)
    assert (draft.course_id, draft.base_number) == ("algebra", 0)
    there = await created(service, course_id="chemistry")
    assert (await ids(service), await ids(service, "chemistry"), await ids(service, "")) == (
        ["mine"],
        ["mine"],
        [],
    )
    outcome = await edited(service, draft, ROW)
    assert not outcome.faults
    (file,) = (await read(service)).files
    assert (file.name, file.text) == ("course.csv", f"{CLOSES}\n")
    assert (await service.authorization.Check(question())).allowed
    made = await published(service, outcome.draft)
    assert (made.changed, made.active.number) == (True, 1)
    fresh = pb.Consistency(at_least_as_fresh=made.written_at)
    answer = await service.authorization.Check(question(consistency=fresh))
    assert (answer.allowed, answer.course_policy_version) == (False, "1")
    assert (await service.authorization.Check(question(resource_id="c-1"))).allowed
    assert (await ids(service), await ids(service, "chemistry")) == ([], ["mine"])
    assert (await read(service, "chemistry")).etag == there.etag


async def test_a_cell_of_a_course_is_set_beside_what_the_platform_gives(sqlite_service: Service) -> None:
    service = sqlite_service
    await written(service, COURSE, STUDENT, MATERIAL)
    draft = await created(service)
    publish = cell("teaching_assistant", "material", "publish", when=("",))
    draft = (await edited(service, draft, publish)).draft
    (file,) = (await read(service)).files
    assert file.text == "p, teaching_assistant, course:algebra, material, publish, , allow\n"
    error = await refused(edited(service, draft, cell("student", "material", "read", when=())))
    assert "it is the platform's; add `p, student, course:algebra, material, read, , deny`" in str(
        error.details()
    )
    never = cell("teaching_assistant", "material", "publish", when=())
    await edited(service, draft, never)
    (file,) = (await read(service)).files
    assert file.text.strip() == ""


async def test_a_draft_tells_the_faults_that_the_course_would_have(sqlite_service: Service) -> None:
    service = sqlite_service
    await written(service, COURSE)
    rows = (
        "p, student, course:other, material, read, , deny",
        "p, *, course:algebra, course, archive, , allow",
    )
    outcome = await edited(service, await created(service), *(ppb.PolicyEdit(add_row=row) for row in rows))
    told = [fault.message for fault in outcome.faults]
    assert any("is not this course; write `course:algebra`" in each for each in told)
    assert any("which the platform locks" in each for each in told)
    error = await refused(published(service, outcome.draft))
    assert reason_of(error) == "POLICY_INVALID"


async def test_of_two_drafts_of_a_course_that_are_published_at_once_the_other_is_rebased(
    service: Service,
) -> None:
    await written(service, COURSE)
    drafts = []
    for draft_id, action in (("first", "publish"), ("second", "update")):
        row = ppb.PolicyEdit(add_row=f"p, teaching_assistant, course:algebra, material, {action}, , allow")
        drafts.append((await edited(service, await created(service, draft_id), row)).draft)
    outcomes = await asyncio.gather(*(published(service, each) for each in drafts), return_exceptions=True)
    (error,) = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
    assert reason_of(error) == "PRECONDITION_FAILED"
    assert "the active version is 1, not none; look at what changed since" in str(error.details())
    (left,) = await ids(service)
    assert f"rebase the draft `{left}` of course:algebra" in str(error.details())


async def test_a_draft_of_a_course_is_rebased_onto_what_was_published_meanwhile(
    sqlite_service: Service,
) -> None:
    service = sqlite_service
    await written(service, COURSE, STUDENT, MATERIAL)
    draft = (await edited(service, await created(service), ROW)).draft
    theirs = "p, teaching_assistant, course:algebra, material, publish, , allow"
    await applied_in(service, theirs)
    error = await refused(published(service, draft))
    assert reason_of(error) == "PRECONDITION_FAILED"
    assert "the active version is 1, not none" in str(error.details())
    assert "`authz policy edit mine --course algebra --rebase`" in str(error.details())
    draft = (await edited(service, draft, rebase=True)).draft
    assert draft.base_number == 1
    assert (await published(service, draft)).active.number == 2
    (file,) = (await read_in(service)).policy_version.files
    assert set(file.text.splitlines()) == {theirs, CLOSES}


async def test_a_draft_of_a_course_is_published_at_its_time(service: Service) -> None:
    await written(service, COURSE, STUDENT, MATERIAL)
    draft = (await edited(service, await created(service), ROW)).draft
    request = ppb.SchedulePolicyDraftRequest(
        id="mine", course_id="algebra", etag=draft.etag, publish_at=stamp(START + HOUR_US)
    )
    await service.policy.SchedulePolicyDraft(request)
    service.now += HOUR_US

    async def is_published() -> bool:
        return not await ids(service)

    await until(is_published)
    assert (await read_in(service)).active_number == 1


def make_anew_while_published(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete the course, and write it again, during the next proof of a version for it."""
    validate = Publisher.validate

    async def validate_slowly(publisher: Publisher, files: str, scope: Scope) -> Any:
        if scope.id == "algebra":
            monkeypatch.setattr(Publisher, "validate", validate)
            await written(service, delete(course=pb.Course(id="algebra")))
            await written(service, COURSE)
        return await validate(publisher, files, scope)

    monkeypatch.setattr(Publisher, "validate", validate_slowly)


@in_process
async def test_a_draft_is_not_published_into_a_course_made_anew(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(sqlite_service, COURSE)
    draft = (await edited(sqlite_service, await created(sqlite_service), ROW)).draft
    make_anew_while_published(sqlite_service, monkeypatch)
    assert reason_of(await refused(published(sqlite_service, draft))) == "DRAFT_NOT_FOUND"
    assert reason_of(await refused(read_in(sqlite_service))) == "VERSION_NOT_FOUND"


@in_process
async def test_a_scheduled_draft_is_not_published_into_a_course_made_anew(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = sqlite_service
    await written(service, COURSE, *OTHER)
    for place, course_id in enumerate(("algebra", "chemistry")):
        row = ppb.PolicyEdit(add_row=CLOSES.replace("algebra", course_id))
        draft = (await edited(service, await created(service, course_id=course_id), row)).draft
        await service.policy.SchedulePolicyDraft(
            ppb.SchedulePolicyDraftRequest(
                id="mine", course_id=course_id, etag=draft.etag, publish_at=stamp(START + HOUR_US + place)
            )
        )
    make_anew_while_published(service, monkeypatch)
    service.now += 2 * HOUR_US

    async def is_other_published() -> bool:
        return not await ids(service, "chemistry")

    await until(is_other_published)
    assert reason_of(await refused(read_in(service))) == "VERSION_NOT_FOUND"


async def test_the_owner_of_a_course_edits_its_drafts_and_no_others(sqlite_service: Service) -> None:
    service, olga = sqlite_service, acting_for("olga")
    await campus(service)
    for course_id, person in (("", "olga"), ("algebra", "tess")):
        error = await refused(created(service, course_id=course_id, metadata=acting_for(person)))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    draft = await created(service, metadata=olga)
    error = await refused(edited(service, draft, ROW, metadata=acting_for("tess")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    publish = cell("teaching_assistant", "material", "publish", when=("",))
    draft = (await edited(service, draft, publish, metadata=olga)).draft
    error = await refused(published(service, draft, metadata=acting_for("tess")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert (await published(service, draft, metadata=olga)).active.author == "unauthenticated for user:olga"


async def test_the_drafts_of_a_course_are_few_and_go_with_it(service: Service) -> None:
    error = await refused(created(service))
    assert (reason_of(error), "course:algebra does not exist" in str(error.details())) == (
        "REFERENCE_NOT_FOUND",
        True,
    )
    await written(service, COURSE, *OTHER)
    await created(service, course_id="chemistry")
    for number in range(10):
        await created(service, f"d{number}")
    assert reason_of(await refused(created(service, "more"))) == "TOO_MANY_DRAFTS"
    await written(service, delete(course=pb.Course(id="algebra")))
    await written(service, COURSE)
    assert (await ids(service), await ids(service, "chemistry")) == ([], ["mine"])


async def test_an_owner_ends_a_restriction_of_the_own_course_and_opens_no_more(
    sqlite_service: Service,
) -> None:
    """Students in a session get back what owners do not have: it is the platform's policy that gives it."""
    await campus(sqlite_service)
    restricts = "p, student, course:algebra, notebook, read, !own & !shared_view, deny"
    opens = "p, student, course:algebra, notebook, read, session_visible, allow"

    async def course(row: str, person: str = "olga") -> Any:
        files = {"course.csv": f"{row}\n"}
        return (await publish(sqlite_service, files, person, course_id="algebra")).active.number

    assert [await course(row) for row in (restricts, "# nothing", restricts)] == [1, 2, 3]
    error = await refused(course(opens))
    assert "gives read on notebook to `student`, when " in str(error.details())
    assert await course("p, owner, course:algebra, notebook, export, own, deny", person="") == 4
    error = await refused(course("# nothing"))
    assert "gives export on notebook to `owner`, whose rank is not below 50" in str(error.details())
