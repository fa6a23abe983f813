"""Drafts that are published at a chosen time, from the outside: once, by whichever server is there then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Engine, select

from authz.domain.drafts import PolicyDraft
from authz.domain.instants import US_PER_S
from authz.engine.policy_cases import prove_and_test
from authz.engine.scheduled import _CLAIM_US
from authz.store.database.engine import opened
from authz.store.drafts import Drafts
from authz.store.tables import policy_drafts
from authz.v1 import policy_pb2 as ppb
from tests.api.test_api import delete
from tests.api.test_drafts import AUDITORS, WITHOUT_TESTS, created, edited, ids, published
from tests.api.test_long_calls_for_persons import ROOT, Held, take_away
from tests.api.test_policies import active, applied, refused
from tests.api.test_rights import PLATFORM, acting_for, campus, given, membership, write
from tests.callers import grant, revoke
from tests.issuer import Issuer, bearer
from tests.policies import CLOSED
from tests.service import START, Service, in_process, reason_of, serve

HOUR_US = 3_600_000_000
TIMEOUT_S = 60
ETAG_OF_FIRST_CLAIM = 4
"""Of a draft that was made, edited, scheduled and claimed."""


@pytest.fixture(autouse=True)
def frequent_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of this process look for due drafts many times a second."""
    monkeypatch.setattr("authz.engine.scheduled._INTERVAL_S", 0.05)


def stamp(instant: int) -> Timestamp:
    return Timestamp(seconds=instant // 1_000_000, nanos=instant % 1_000_000 * 1000)


async def draft_of(service: Service, draft_id: str = "mine") -> ppb.PolicyDraft:
    """A draft by which auditors read no materials."""
    draft: ppb.PolicyDraft = (
        await edited(service, await created(service, draft_id), AUDITORS, WITHOUT_TESTS)
    ).draft
    return draft


async def scheduled(
    service: Service, draft: ppb.PolicyDraft, at: int | None, *, metadata: Any = (), **fields: Any
) -> ppb.SchedulePolicyDraftResponse:
    request = ppb.SchedulePolicyDraftRequest(
        id=draft.id, etag=draft.etag, publish_at=None if at is None else stamp(at), **fields
    )
    response: ppb.SchedulePolicyDraftResponse = await service.policy.SchedulePolicyDraft(
        request, metadata=metadata
    )
    return response


async def read(service: Service, draft_id: str = "mine", metadata: Any = ()) -> ppb.PolicyDraft:
    request = ppb.ReadPolicyDraftRequest(id=draft_id)
    draft: ppb.PolicyDraft = (await service.policy.ReadPolicyDraft(request, metadata=metadata)).draft
    return draft


async def numbers(service: Service) -> list[int]:
    found = await service.policy.ReadPolicyVersions(ppb.ReadPolicyVersionsRequest())
    return [version.number for version in found.policy_versions]


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """What the condition gives, once that is true."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := await condition()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    return found


async def failed(service: Service, draft_id: str = "mine", metadata: Any = ()) -> str:
    """Why the draft could not be published."""
    return (await read(service, draft_id, metadata)).publication.error


async def is_gone(service: Service) -> bool:
    return not await ids(service)


async def test_a_draft_is_published_at_its_time(service: Service) -> None:
    draft = await draft_of(service)
    planned = await scheduled(service, draft, START + HOUR_US, author="ada", reason="from May on")
    assert planned.draft.publication.publish_at == stamp(START + HOUR_US)
    error = await refused(edited(service, planned.draft, AUDITORS))
    assert (error.code(), "cancel that first" in str(error.details())) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        True,
    )
    assert await numbers(service) == [1]
    service.now += HOUR_US
    await until(partial(is_gone, service))
    found = (await active(service)).policy_version
    assert (found.number, found.author, found.reason) == (2, "ada", "from May on")
    assert await numbers(service) == [1, 2]


async def test_a_draft_that_is_cancelled_is_not_published(sqlite_service: Service) -> None:
    first, other = await draft_of(sqlite_service), await draft_of(sqlite_service, "other")
    planned = await scheduled(sqlite_service, first, START + HOUR_US)
    assert planned.draft.publication.author == "unauthenticated"
    cancelled = (await scheduled(sqlite_service, planned.draft, None)).draft
    assert not cancelled.HasField("publication")
    await scheduled(sqlite_service, other, START + 2 * HOUR_US, reason="the other")
    sqlite_service.now += 2 * HOUR_US
    await until(lambda: _published(sqlite_service))
    assert (await active(sqlite_service)).policy_version.reason == "the other"
    assert await ids(sqlite_service) == ["mine"]
    assert (await edited(sqlite_service, cancelled, AUDITORS)).draft.etag != cancelled.etag


async def _published(service: Service) -> bool:
    return await numbers(service) == [1, 2]


async def test_a_draft_that_cannot_be_published_any_more_says_why_and_stays(service: Service) -> None:
    planned = await scheduled(service, await draft_of(service), START + HOUR_US)
    await applied(service, CLOSED)
    service.now += HOUR_US
    why = await until(partial(failed, service))
    assert why.startswith("the active version is 2, not 1;")
    assert "rebase the draft `mine`" in why
    assert await numbers(service) == [1, 2]
    draft = await read(service)
    assert draft.etag != planned.draft.etag
    rebased = (await edited(service, draft, rebase=True)).draft
    assert not rebased.HasField("publication")
    assert (await published(service, rebased)).active.number == 3


async def test_what_can_not_be_published_now_is_not_scheduled(sqlite_service: Service) -> None:
    service, later = sqlite_service, START + HOUR_US
    equal, draft = await created(service, "equal"), await draft_of(service)
    broken = (
        await edited(
            service,
            await created(service, "broken"),
            ppb.PolicyEdit(add_row="p, student, *, material, read, , allow"),
        )
    ).draft
    for call, reason, says in (
        (scheduled(service, draft, START), "MALFORMED_FIELD", "is in the past"),
        (scheduled(service, equal, later), "PRECONDITION_FAILED", "nothing to publish"),
        (scheduled(service, broken, later), "POLICY_INVALID", "unpublished-materials"),
        (
            scheduled(service, ppb.PolicyDraft(id="mine", etag="1"), later),
            "PRECONDITION_FAILED",
            "has been edited",
        ),
    ):
        error = await refused(call)
        assert (reason_of(error), says in str(error.details())) == (reason, True), error.details()


async def test_servers_that_were_down_at_the_time_publish_once_when_they_are_back(store_url: str) -> None:
    async with serve(store_url) as service:
        await scheduled(service, await draft_of(service), START + HOUR_US)
    late = START + 2 * HOUR_US
    async with serve(store_url, now=late) as one, serve(store_url, now=late) as other:
        await until(partial(is_gone, one))
        assert await numbers(one) == await numbers(other) == [1, 2]


async def test_a_draft_that_a_killed_server_had_published_already_is_not_published_again(
    sqlite_service: Service,
) -> None:
    service = sqlite_service
    draft = await draft_of(service)
    await scheduled(service, draft, START + HOUR_US)
    files = {file.name: file.text for file in (await read(service)).files}
    await applied(service, files)  # as the server did before it was killed, when only the draft was left
    service.now += HOUR_US
    await until(partial(is_gone, service))
    assert await numbers(service) == [1, 2]


async def test_the_draft_of_a_killed_server_is_published_soon(store_url: str) -> None:
    due = START + HOUR_US
    async with serve(store_url) as service:
        await scheduled(service, await draft_of(service), due)
    with opened(store_url) as engine:
        assert Drafts(engine).claim(due, due + _CLAIM_US)  # as the server did before it was killed
    async with serve(store_url, now=due + 15 * US_PER_S) as service:
        await until(partial(is_gone, service))
        assert await numbers(service) == [1, 2]


@in_process
async def test_no_other_server_begins_while_one_works_on_a_draft(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.engine.scheduled._RENEWAL_S", 0.02)
    due, claim, looks = START + HOUR_US, Drafts.claim, list[int]()
    async with serve(store_url) as service:
        await scheduled(service, await draft_of(service), due)

    def counted(self: Drafts, now: int, until: int) -> PolicyDraft | None:
        found = claim(self, now, until)
        looks.append(now)
        return found

    monkeypatch.setattr(Drafts, "claim", counted)
    held = Held(prove_and_test)
    monkeypatch.setattr("authz.engine.publish.prove_and_test", held)
    with opened(store_url) as engine:
        async with serve(store_url, now=due) as one:
            await asyncio.to_thread(held.begun.wait, TIMEOUT_S)
            async with serve(store_url, now=due) as other:
                for _ in range(4):
                    one.now += 10 * US_PER_S
                    await until(partial(_is_claimed, engine, one.now + _CLAIM_US))
                    other.now = one.now
                    await until(partial(_has_looked, looks, other.now))
                assert await numbers(other) == [1]
                assert await _is_claimed(engine, one.now + _CLAIM_US)
                held.may_end.set()
                await until(partial(is_gone, one))
                assert await numbers(one) == await numbers(other) == [1, 2]


async def _is_claimed(engine: Engine, claimed_until: int) -> bool:
    """Whether the only draft is claimed by the first server that claimed it, until then."""
    with engine.connect() as connection:
        found = connection.execute(select(policy_drafts.c.claimed_until, policy_drafts.c.etag)).all()
    assert found[0].etag == ETAG_OF_FIRST_CLAIM
    return bool(found[0].claimed_until == claimed_until)


async def _has_looked(looks: list[int], now: int) -> bool:
    return looks.count(now) > 1


async def test_a_person_without_the_right_at_that_time_publishes_nothing(sqlite_service: Service) -> None:
    service = sqlite_service
    await campus(service)
    grader = "role, grader, course, 25, no,"
    draft = (await edited(service, await created(service), ppb.PolicyEdit(add_row=grader))).draft
    later = START + HOUR_US
    error = await refused(scheduled(service, draft, later, metadata=acting_for("stu")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    await scheduled(service, draft, later, metadata=acting_for("root"))
    await write(
        service,
        given("sue", PLATFORM, "platform_admin"),
        delete(membership=membership("root", PLATFORM, "platform_admin")),
    )
    service.now += HOUR_US
    assert "user:root has no edit_policy on platform" in await until(partial(failed, service))
    assert await numbers(service) == [1]


@in_process
async def test_a_person_who_loses_the_right_during_the_proof_publishes_nothing(
    sqlite_service: Service, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = sqlite_service
    await campus(service)
    await write(service, given("sue", PLATFORM, "platform_admin"))  # since the last administrator stays
    grader = "role, grader, course, 25, no,"
    draft = (await edited(service, await created(service), ppb.PolicyEdit(add_row=grader))).draft
    await scheduled(service, draft, START + HOUR_US, metadata=acting_for("root"))
    held = Held(prove_and_test)
    monkeypatch.setattr("authz.engine.publish.prove_and_test", held)
    service.now += HOUR_US
    await asyncio.to_thread(held.begun.wait, TIMEOUT_S)
    await asyncio.to_thread(take_away, sqlite_url, ROOT)
    held.may_end.set()
    assert "user:root has no edit_policy on platform" in await until(partial(failed, service))
    assert await numbers(service) == [1]


async def test_a_caller_without_the_permission_at_that_time_publishes_nothing(
    sqlite_url: str, tmp_path: Path
) -> None:
    issuer = Issuer()
    begun = time.time_ns() // 1000
    grant(sqlite_url, {"service:ci": "policy_editor", "service:editor": "policy_editor"})
    metadata = bearer(issuer.jwt("ci"))
    async with serve(sqlite_url, now=begun, **issuer.settings(tmp_path)) as service:
        policy = service.policy
        draft = (
            await policy.CreatePolicyDraft(ppb.CreatePolicyDraftRequest(id="mine"), metadata=metadata)
        ).draft
        edit = ppb.EditPolicyDraftRequest(id="mine", etag=draft.etag, edits=[AUDITORS, WITHOUT_TESTS])
        draft = (await policy.EditPolicyDraft(edit, metadata=metadata)).draft
        await scheduled(service, draft, begun + HOUR_US, metadata=metadata)
        revoke(sqlite_url, "service:ci", "policy_editor")
        service.now += HOUR_US
        other = bearer(issuer.jwt("editor"))
        assert "service:ci has no apply_policy" in await until(partial(failed, service, metadata=other))
