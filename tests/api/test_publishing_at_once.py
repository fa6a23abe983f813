"""Changes of a policy that meet: each ends in one version, with a remedy for who came second."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from authz.v1 import common_pb2 as pb
from authz.v1 import policy_pb2 as ppb
from tests.api.test_api import ALGEBRA, COURSE, MATERIAL, MAYA, question, touch, written
from tests.api.test_course_policies import applied_in, read_in
from tests.api.test_drafts import WITHOUT_TESTS, cell, created, edited, ids, published
from tests.api.test_policies import active, applied
from tests.api.test_rights import acting_for, campus
from tests.api.test_scheduled import HOUR_US, failed, numbers, read, scheduled, until
from tests.policies import with_rows
from tests.service import START, Service, reason_of

GRADER = with_rows("role, grader, course, 25, no,", "p, grader, *, material, read, published, allow")
AUDITORS = cell("auditor", "material", "read", when=())
STUDENTS = cell("student", "material", "read", when=())
TEXTS = {"first": "p, auditor, *, material, read,", "second": "p, student, *, material, read,"}
"""The row that each of the two drafts removes."""


async def two_drafts(service: Service) -> list[ppb.PolicyDraft]:
    """Two drafts of the same version, each of which removes another row."""
    return [
        (await edited(service, await created(service, draft_id), edit, WITHOUT_TESTS)).draft
        for draft_id, edit in (("first", AUDITORS), ("second", STUDENTS))
    ]


async def kept(service: Service) -> list[str]:
    """The drafts whose row the active version still has."""
    files = {file.name: file.text for file in (await active(service)).policy_version.files}
    return [draft_id for draft_id, text in TEXTS.items() if text in files["default.csv"]]


async def test_of_two_drafts_that_are_published_at_once_one_is_and_the_other_is_rebased(
    service: Service,
) -> None:
    drafts = await two_drafts(service)
    outcomes = await asyncio.gather(*(published(service, each) for each in drafts), return_exceptions=True)
    (error,) = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
    assert await numbers(service) == [1, 2]
    (left,) = await ids(service)
    assert await kept(service) == [left]
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "PRECONDITION_FAILED")
    assert "the active version is 2, not 1; look at what changed since" in str(error.details())
    assert f"rebase the draft `{left}`" in str(error.details())
    rebased = (await edited(service, await read(service, left), rebase=True)).draft
    assert (await published(service, rebased)).active.number == 3
    assert await kept(service) == []


async def test_publishes_of_one_draft_at_once_but_one_are_told_the_version(
    service: Service,
) -> None:
    draft, _ = await two_drafts(service)
    outcomes = await asyncio.gather(*(published(service, draft) for _ in range(3)), return_exceptions=True)
    errors = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
    assert len(errors) == 2
    told = "draft `first` is published already: version 2, which is active, has its files"
    assert [(reason_of(each), each.details()) for each in errors] == [("PRECONDITION_FAILED", told)] * 2
    assert await numbers(service) == [1, 2]


async def test_what_is_applied_at_once_whatever_is_active_becomes_one_version_each(service: Service) -> None:
    """A course's policy with a new version of the platform's, too: it is proved under that."""
    await written(service, COURSE)
    await asyncio.gather(
        applied(service, with_rows("# one")),
        applied(service, with_rows("# other")),
        applied_in(service, "p, student, course:algebra, notebook, read, !own & !shared_view, deny"),
    )
    assert await numbers(service) == [1, 2, 3]
    assert (await read_in(service)).active_number == 1


async def test_a_draft_that_is_edited_while_it_is_published_is_published_as_it_was_or_not_at_all(
    service: Service,
) -> None:
    draft, _ = await two_drafts(service)
    outcomes: tuple[Any, Any] = await asyncio.gather(
        published(service, draft), edited(service, draft, STUDENTS), return_exceptions=True
    )
    publishing, editing = outcomes
    if isinstance(publishing, grpc.aio.AioRpcError):
        assert (reason_of(publishing), await numbers(service)) == ("PRECONDITION_FAILED", [1])
        assert "has been edited since it was read" in str(publishing)
    else:
        assert await numbers(service) == [1, 2]
        assert await kept(service) == ["second"]
    is_edited = not isinstance(editing, BaseException)
    assert ("first" in await ids(service)) is is_edited


async def test_what_was_edited_since_it_was_looked_at_is_not_published(service: Service) -> None:
    draft, _ = await two_drafts(service)
    later = (await edited(service, draft, STUDENTS)).draft
    with pytest.raises(grpc.aio.AioRpcError, match="has been edited since it was read; read it again"):
        await published(service, draft)
    assert await numbers(service) == [1]
    assert (await published(service, later)).active.number == 2
    assert await kept(service) == []


async def test_an_edit_does_not_slip_in_after_the_rights_of_a_person_were_compared(service: Service) -> None:
    await campus(service)
    opens = cell("auditor", "notebook", "update", when=("course_visible",))
    root = acting_for("root")
    for attempt in range(5):
        made = await created(service, f"draft-{attempt}")
        draft = (await edited(service, made, AUDITORS, WITHOUT_TESTS)).draft
        next_etag = str(int(draft.etag) + 1)
        later = ppb.PublishPolicyDraftRequest(id=draft.id, etag=next_etag)
        outcomes: tuple[Any, Any] = await asyncio.gather(
            service.policy.PublishPolicyDraft(later, metadata=root),
            edited(service, draft, opens),
            return_exceptions=True,
        )
        assert isinstance(outcomes[0], grpc.aio.AioRpcError)
        assert reason_of(outcomes[0]) in ("PRECONDITION_FAILED", "PERMISSION_MISSING")
    assert await numbers(service) == [1]


async def test_of_two_drafts_that_are_due_at_once_one_is_published_and_the_other_says_why(
    service: Service,
) -> None:
    for draft in await two_drafts(service):
        await scheduled(service, draft, START + HOUR_US)
    service.now += HOUR_US

    async def settled() -> bool:
        left = await ids(service)
        return len(left) == 1 and bool(await failed(service, left[0]))

    await until(settled)
    (left,) = await ids(service)
    assert (await failed(service, left)).startswith("the active version is 2, not 1;")
    assert f"rebase the draft `{left}`" in await failed(service, left)
    assert await numbers(service) == [1, 2]


async def test_a_draft_that_is_published_before_another_is_due_leaves_that_to_be_rebased(
    service: Service,
) -> None:
    first, second = await two_drafts(service)
    await scheduled(service, second, START + HOUR_US)
    assert (await published(service, first)).active.number == 2
    service.now += HOUR_US

    async def told() -> str:
        return await failed(service, "second")

    assert "rebase the draft `second`" in await until(told)
    assert await kept(service) == ["second"]
    rebased = (await edited(service, await read(service, "second"), rebase=True)).draft
    assert (await published(service, rebased)).active.number == 3
    assert await kept(service) == []


async def test_a_rollback_to_a_version_without_a_role_that_somebody_has_warns_and_denies(
    service: Service,
) -> None:
    await applied(service, GRADER)
    grader = touch(membership=pb.Membership(subject=MAYA, scope=ALGEBRA, role="grader"))
    await written(service, COURSE, MATERIAL, grader)
    asked = question()
    assert (await service.authorization.Check(asked)).allowed
    for number, allowed in ((1, False), (2, True)):
        outcome = await service.policy.RollBackPolicy(ppb.RollBackPolicyRequest(number=number))
        told = [each.message for each in outcome.warnings if each.where == "role `grader`"]
        assert len(told) == (0 if allowed else 1)
        assert all(text.startswith("is no longer declared, and 1 membership has it") for text in told)
        asked.consistency.at_least_as_fresh.CopyFrom(outcome.written_at)
        assert (await service.authorization.Check(asked)).allowed is allowed
