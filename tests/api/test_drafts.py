"""Drafts of the policy, from the outside: edited by one at a time, published onto what they copy."""

from __future__ import annotations

from typing import Any

import grpc

from authz.v1 import common_pb2 as pb
from authz.v1 import policy_pb2 as ppb
from tests.api.test_api import COURSE, MATERIAL, STUDENT, question, written
from tests.api.test_policies import active, applied, refused
from tests.policies import SHIPPED, with_rows
from tests.service import Service, reason_of, violations_of


def cell(*names: str, when: tuple[str, ...]) -> ppb.PolicyEdit:
    role, type_name, action = names
    edit = ppb.PolicyCellEdit(role=role, type=type_name, action=action, when=when)
    return ppb.PolicyEdit(set_cell=edit)


AUDITORS = cell("auditor", "material", "read", when=())
"""Auditors read no materials."""
WITHOUT_TESTS = ppb.PolicyEdit(delete_file="tests/course.toml")


async def created(service: Service, draft_id: str = "mine", **fields: Any) -> ppb.PolicyDraft:
    request = ppb.CreatePolicyDraftRequest(id=draft_id, **fields)
    draft: ppb.PolicyDraft = (await service.policy.CreatePolicyDraft(request)).draft
    return draft


async def edited(service: Service, draft: ppb.PolicyDraft, *edits: ppb.PolicyEdit, **fields: Any) -> Any:
    request = ppb.EditPolicyDraftRequest(id=draft.id, etag=draft.etag, edits=edits, **fields)
    return await service.policy.EditPolicyDraft(request)


async def published(service: Service, draft: ppb.PolicyDraft, **fields: Any) -> Any:
    request = ppb.PublishPolicyDraftRequest(id=draft.id, etag=draft.etag, **fields)
    return await service.policy.PublishPolicyDraft(request)


async def ids(service: Service) -> list[str]:
    return [each.id for each in (await service.policy.ReadPolicyDrafts(ppb.ReadPolicyDraftsRequest())).drafts]


async def test_a_draft_is_made_edited_and_published_and_then_gone(service: Service) -> None:
    await written(service, COURSE, STUDENT, MATERIAL)
    draft = await created(service, author="ada")
    assert (draft.base_number, draft.author) == (1, "ada")
    assert await ids(service) == ["mine"]
    edit = cell("student", "material", "read", when=())
    draft = (await edited(service, draft, edit, WITHOUT_TESTS)).draft
    found = (await service.policy.ReadPolicyDraft(ppb.ReadPolicyDraftRequest(id="mine"))).draft
    assert found.etag == draft.etag
    text = {file.name: file.text for file in found.files}["default.csv"]
    assert "p, student, *, material, read," not in text
    assert (await service.authorization.Check(question())).allowed
    outcome = await published(service, draft, author="bob", reason="close")
    assert (outcome.changed, outcome.active.number, outcome.active.author) == (True, 2, "bob")
    fresh = pb.Consistency(at_least_as_fresh=outcome.written_at)
    assert not (await service.authorization.Check(question(consistency=fresh))).allowed
    assert await ids(service) == []


async def test_an_edit_of_what_somebody_else_has_edited_is_refused(service: Service) -> None:
    draft = await created(service)
    newer = (await edited(service, draft, AUDITORS)).draft
    delete = ppb.DeletePolicyDraftRequest(id=draft.id, etag=draft.etag)
    for call in (
        edited(service, draft, AUDITORS),
        published(service, draft),
        service.policy.DeletePolicyDraft(delete),
    ):
        error = await refused(call)
        assert (error.code(), reason_of(error)) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "PRECONDITION_FAILED",
        )
        assert "has been edited since it was read; read it again" in str(error.details())
    delete.etag = newer.etag
    await service.policy.DeletePolicyDraft(delete)
    error = await refused(edited(service, newer, AUDITORS))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.NOT_FOUND, "DRAFT_NOT_FOUND")


async def test_a_draft_of_a_version_that_is_no_longer_active_is_rebased_by_word(
    sqlite_service: Service,
) -> None:
    service = sqlite_service
    draft = (await edited(service, await created(service), AUDITORS, WITHOUT_TESTS)).draft
    theirs = with_rows("p, teaching_assistant, *, material, publish, , allow")
    await applied(service, theirs)
    error = await refused(published(service, draft))
    assert reason_of(error) == "PRECONDITION_FAILED"
    assert "the active version is 2, not 1" in str(error.details())
    assert "rebase the draft `mine`" in str(error.details())
    draft = (await edited(service, draft, rebase=True)).draft
    assert draft.base_number == 2
    await published(service, draft)
    found = {file.name: file.text for file in (await active(service)).policy_version.files}
    gone = "p, auditor, *, material, read, published, allow\n"
    assert found == theirs | {"default.csv": theirs["default.csv"].replace(gone, "")}


async def test_a_draft_that_breaks_an_invariant_or_a_test_is_not_published_and_stays(
    sqlite_service: Service,
) -> None:
    service = sqlite_service
    draft = (await edited(service, await created(service), AUDITORS)).draft
    error = await refused(published(service, draft))
    assert reason_of(error) == "POLICY_INVALID"
    assert "the test `an auditor reads what is published` fails" in str(error.details())
    leak = cell("student", "material", "read", when=("",))
    draft = (await edited(service, draft, leak)).draft
    error = await refused(published(service, draft))
    assert "breaks the invariant `unpublished-materials`" in str(error.details())
    assert await ids(service) == ["mine"]
    assert (await active(service)).active_number == 1


async def test_a_draft_may_have_faults_between_two_edits(sqlite_service: Service) -> None:
    service = sqlite_service
    row = ppb.PolicyEdit(add_row="p, grader, *, material, read, , allow")
    outcome = await edited(service, await created(service), row)
    assert ["unknown role `grader`" in fault.message for fault in outcome.faults] == [True]
    assert outcome.faults[0].message.endswith(f"the row is `{row.add_row}`, which `--remove` removes")
    error = await refused(edited(service, outcome.draft, AUDITORS))
    assert violations_of(error)[0].description.endswith(f"`{row.add_row}`, which `--remove` removes")
    remove = ppb.PolicyEdit(remove_row=row.add_row)
    assert not (await edited(service, await created(service, "other"), row, remove, AUDITORS)).faults
    role = ppb.PolicyEdit(add_row="role, grader, course, 30, no,")
    assert not (await edited(service, outcome.draft, role)).faults


async def test_an_edit_tells_the_faults_of_each_file(sqlite_service: Service) -> None:
    def put(name: str, text: str) -> ppb.PolicyEdit:
        return ppb.PolicyEdit(put_file=pb.PolicyFile(name=name, text=text))

    draft, invariants = await created(sqlite_service), SHIPPED["invariants.toml"]
    for edit, file, says in (
        (
            put("invariants.toml", invariants.replace('["ai_g', '["ai_')),
            "invariants.toml",
            "`ai_ateway`",
        ),
        (ppb.PolicyEdit(delete_file="invariants.toml"), "invariants.toml", "is missing"),
        (put("invariants.toml", invariants), "", ""),
        (put("tests/course.toml", "now = 3\n[directory]\n[cases]"), "tests/course.toml", "is not a time"),
        (put("tests/course.toml", "cases." + "a." * 5000 + "a = 1"), "tests/course.toml", "is no TOML"),
        (put("tests/course.toml", "now = " + "[" * 5000), "tests/course.toml", "is no TOML"),
        (WITHOUT_TESTS, "", ""),
    ):
        outcome = await edited(sqlite_service, draft, edit)
        draft = outcome.draft
        assert [fault.file for fault in outcome.faults] == [file] * bool(file)
        assert all(says in fault.message for fault in outcome.faults)


async def test_a_draft_that_is_equal_to_the_active_version_publishes_nothing_and_stays(
    sqlite_service: Service,
) -> None:
    outcome = await published(sqlite_service, await created(sqlite_service))
    assert (outcome.changed, outcome.active.number) == (False, 1)
    assert await ids(sqlite_service) == ["mine"]


async def test_drafts_are_named_once_and_their_number_is_bounded(sqlite_service: Service) -> None:
    first = await created(sqlite_service, "d0")
    error = await refused(created(sqlite_service, "d0"))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.ALREADY_EXISTS, "ENTITY_EXISTS")
    for number in range(1, 100):
        await created(sqlite_service, f"d{number}")
    error = await refused(created(sqlite_service, "one more"[:3]))
    assert reason_of(error) == "TOO_MANY_DRAFTS"
    assert "delete one" in str(error.details())
    await sqlite_service.policy.DeletePolicyDraft(ppb.DeletePolicyDraftRequest(id="d0", etag=first.etag))
    await created(sqlite_service, "one")


async def test_bad_requests_about_drafts_are_told(sqlite_service: Service) -> None:
    service = sqlite_service
    draft = await created(service)
    large = pb.PolicyFile(name="large.txt", text="x" * (1 << 20))
    for call, reason in (
        (created(service, ""), "MALFORMED_ID"),
        (created(service, "a", base_number=9), "VERSION_NOT_FOUND"),
        (edited(service, draft, ppb.PolicyEdit()), "MISSING_FIELD"),
        (edited(service, ppb.PolicyDraft(id="mine")), "MISSING_FIELD"),
        (edited(service, ppb.PolicyDraft(id="mine", etag="x")), "MALFORMED_FIELD"),
        (edited(service, draft, ppb.PolicyEdit(put_file=large)), "MALFORMED_FIELD"),
        (edited(service, draft, ppb.PolicyEdit(put_file=pb.PolicyFile(name="../a"))), "MALFORMED_FIELD"),
        (edited(service, ppb.PolicyDraft(id="other", etag="1")), "DRAFT_NOT_FOUND"),
    ):
        error = await refused(call)
        assert reason_of(error) == reason
    found = (await service.policy.ReadPolicyDraft(ppb.ReadPolicyDraftRequest(id="mine"))).draft
    assert {file.name: file.text for file in found.files} == SHIPPED
