"""A version whose invariants cover less than those of the active one is published only by word."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from authz.domain.files import FORMAT
from authz.policy.invariants import INVARIANTS_FILE
from authz.policy.load import POLICY_FILE
from authz.v1 import common_pb2 as pb
from authz.v1 import policy_pb2 as ppb
from tests.api.test_drafts import created, edited, published
from tests.api.test_policies import active, applied, messages, publish_as_a_later_release, refused
from tests.api.test_rights import acting_for, campus, denied
from tests.api.test_scheduled import HOUR_US, frequent_looks, is_gone, scheduled, stamp, until
from tests.policies import SHIPPED
from tests.service import START, Service, in_process, reason_of

__all__ = ["frequent_looks"]

RAISED = SHIPPED | {
    POLICY_FILE: SHIPPED[POLICY_FILE].replace("role, auditor, course, 15,", "role, auditor, course, 35,")
}
"""Auditors have a rank above that of assistants, and so are in fewer invariants."""
NARROWED = SHIPPED | {
    INVARIANTS_FILE: SHIPPED[INVARIANTS_FILE].replace('when = "!published"', 'when = "!published & locked"')
}


def is_refusal(error: grpc.aio.AioRpcError, lost: str) -> bool:
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "INVARIANTS_WEAKENED")
    says = ("`unpublished-materials`", lost, "`weaken_invariants`")
    return all(each in str(error.details()) for each in says)


@pytest.mark.parametrize(
    ("files", "lost"), [(RAISED, "`auditor`"), (NARROWED, "every case when `!published`")]
)
async def test_weaker_invariants_are_applied_only_by_word(
    sqlite_service: Service, files: dict[str, str], lost: str
) -> None:
    service = sqlite_service
    for fields in ({}, {"validate_only": True}):
        assert is_refusal(await refused(applied(service, files, **fields)), lost)
    assert (await active(service)).active_number == 1
    found = await service.policy.ValidatePolicy(ppb.ValidatePolicyRequest(files=messages(files)))
    assert not found.faults
    assert any(lost in each.message and "--weaken-invariants" in each.message for each in found.warnings)
    assert (await applied(service, files, weaken_invariants=True)).active.number == 2
    assert (await applied(service, SHIPPED)).active.number == 3  # which cover more

    back = partial(ppb.RollBackPolicyRequest, number=2)
    assert is_refusal(await refused(service.policy.RollBackPolicy(back())), lost)
    returned = await service.policy.RollBackPolicy(back(weaken_invariants=True))
    assert returned.active.number == 4


async def test_invariants_that_only_another_release_reads_are_left_behind_by_word(
    sqlite_service: Service, sqlite_url: str
) -> None:
    service = sqlite_service
    theirs = SHIPPED | {INVARIANTS_FILE: SHIPPED[INVARIANTS_FILE] + '\n[sometimes.x]\nsays = "x"\n'}
    await publish_as_a_later_release(sqlite_url, theirs, format_=FORMAT)
    found = await service.policy.ValidatePolicy(ppb.ValidatePolicyRequest(files=messages(SHIPPED)))
    assert not found.faults
    told = [each.message for each in found.warnings if "--weaken-invariants" in each.message]
    assert len(told) == 1
    assert "cannot be compared" in told[0]
    error = await refused(applied(service, SHIPPED))
    assert reason_of(error) == "INVARIANTS_WEAKENED"
    assert "upgrade this server" in str(error.details())
    assert (await applied(service, SHIPPED, weaken_invariants=True)).active.number == 3


@in_process
async def test_the_log_says_what_a_version_has_weakened(sqlite_service: Service) -> None:
    with capture_logs() as lines:
        await refused(applied(sqlite_service, NARROWED))
        await applied(sqlite_service, NARROWED, weaken_invariants=True)
        await applied(sqlite_service, SHIPPED, weaken_invariants=True)  # which cover more
        await sqlite_service.policy.RollBackPolicy(
            ppb.RollBackPolicyRequest(number=2, weaken_invariants=True)
        )
    told = [each for each in lines if each["event"] == "invariants weakened"]
    assert [(each["policy_version"], each["log_level"]) for each in told] == [
        ("2", "warning"),
        ("4", "warning"),
    ]
    assert all("`unpublished-materials`" in each["lost"][0] for each in told)


async def test_a_version_is_marked_if_it_has_weakened_the_invariants(sqlite_service: Service) -> None:
    policy = sqlite_service.policy
    await applied(sqlite_service, NARROWED, weaken_invariants=True)
    await applied(sqlite_service, SHIPPED, weaken_invariants=True)  # which cover more
    await policy.RollBackPolicy(ppb.RollBackPolicyRequest(number=2, weaken_invariants=True))
    listed = (await policy.ReadPolicyVersions(ppb.ReadPolicyVersionsRequest())).policy_versions
    assert [each.number for each in listed if each.weakens_invariants] == [2, 4]


async def draft_of(service: Service, files: dict[str, str]) -> ppb.PolicyDraft:
    file = pb.PolicyFile(name=POLICY_FILE, text=files[POLICY_FILE])
    draft: ppb.PolicyDraft = (
        await edited(service, await created(service), ppb.PolicyEdit(put_file=file))
    ).draft
    return draft


async def test_a_draft_with_weaker_invariants_is_published_only_by_word(sqlite_service: Service) -> None:
    draft = await draft_of(sqlite_service, RAISED)
    assert is_refusal(await refused(published(sqlite_service, draft)), "`auditor`")
    assert (await published(sqlite_service, draft, weaken_invariants=True)).active.number == 2


async def test_a_draft_with_weaker_invariants_is_published_later_only_by_word(service: Service) -> None:
    draft = await draft_of(service, RAISED)
    later: dict[str, Any] = {"at": START + HOUR_US}
    assert is_refusal(await refused(scheduled(service, draft, **later)), "`auditor`")
    await scheduled(service, draft, **later, weaken_invariants=True)
    service.now += HOUR_US
    await until(partial(is_gone, service))
    assert (await active(service)).active_number == 2


async def test_nobody_weakens_invariants_in_person(sqlite_service: Service) -> None:
    """What they hold the policies of courses to, the author may lack."""
    service = sqlite_service
    await campus(service)
    draft = await created(service)
    at: dict[str, Any] = {"id": "mine", "etag": draft.etag}
    calls: list[tuple[Any, Any]] = [
        (service.policy.ApplyPolicy, ppb.ApplyPolicyRequest(files=messages(SHIPPED))),
        (service.policy.RollBackPolicy, ppb.RollBackPolicyRequest(number=1)),
        (service.policy.PublishPolicyDraft, ppb.PublishPolicyDraftRequest(**at)),
        (
            service.policy.SchedulePolicyDraft,
            ppb.SchedulePolicyDraftRequest(**at, publish_at=stamp(START + HOUR_US)),
        ),
    ]
    for call, request in calls:
        request.weaken_invariants = True
        error = await refused(call(request, metadata=acting_for("root")))
        denied(error, "edit_policy", "platform")
        assert "user:root may not weaken invariants" in str(error.details())
