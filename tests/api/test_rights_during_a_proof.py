"""A person publishes what they may give when the version is written, not only when the proof of it began."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from authz.domain.entities import MembershipKey
from authz.domain.files import FORMAT
from authz.domain.ids import PLATFORM, parse_subject
from authz.engine.policy_cases import prove_and_test
from authz.store.directory import SqlDirectory
from authz.v1 import policy_pb2 as ppb
from tests.api.test_drafts import created, edited
from tests.api.test_long_calls_for_persons import Held, take_away
from tests.api.test_policies import publish_as_a_later_release, refused
from tests.api.test_rights import ALGEBRA, acting_for, campus, given, publish, write
from tests.api.test_rights import PLATFORM as PLATFORM_SCOPE
from tests.api.test_scheduled import HOUR_US, failed, numbers, scheduled, until
from tests.policies import with_rows
from tests.service import START, Service, in_process, reason_of

ROW = "p, {}, *, course, create, , allow".format
SUPPORT = MembershipKey(parse_subject("user:root"), PLATFORM, "support_agent")
GIVES = "gives create on course to `privacy_officer`"


@in_process
@pytest.mark.parametrize("is_scheduled", [False, True], ids=["now", "scheduled"])
async def test_what_a_person_may_give_no_more_is_not_published(
    sqlite_service: Service, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, is_scheduled: bool
) -> None:
    """Though another role still lets the person edit the policy."""
    service, root = sqlite_service, acting_for("root")
    monkeypatch.setattr("authz.api.recheck.INTERVAL_S", 0)
    monkeypatch.setattr("authz.engine.scheduled._INTERVAL_S", 0.05)
    await campus(service)
    files = with_rows()
    files["default.csv"] = files["default.csv"].replace(ROW("platform_admin"), ROW("support_agent"))
    await publish(service, files, "")
    await write(service, given("root", PLATFORM_SCOPE, "support_agent"))
    gives = ppb.PolicyEdit(add_row=ROW("privacy_officer"))
    draft = (await edited(service, await created(service), gives)).draft
    if is_scheduled:
        await scheduled(service, draft, START + HOUR_US, metadata=root)
    held = Held(prove_and_test)
    monkeypatch.setattr("authz.engine.publish.prove_and_test", held)
    service.now += HOUR_US
    if not is_scheduled:
        request = ppb.PublishPolicyDraftRequest(id=draft.id, etag=draft.etag)
        call = asyncio.ensure_future(refused(service.policy.PublishPolicyDraft(request, metadata=root)))
    await asyncio.to_thread(held.begun.wait, 20)
    await asyncio.to_thread(take_away, sqlite_url, SUPPORT)
    held.may_end.set()
    why = await until(partial(failed, service)) if is_scheduled else str((await call).details())
    assert GIVES in why
    assert await numbers(service) == [1, 2]


@in_process
async def test_what_was_compared_with_a_version_that_is_active_no_more_is_not_published(
    sqlite_service: Service, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared with the other, it might give what its author lacks."""
    await campus(sqlite_service)
    held = Held(prove_and_test)
    monkeypatch.setattr("authz.engine.publish.prove_and_test", held)
    stricter = with_rows("p, auditor, *, material, read, , deny")
    call = asyncio.ensure_future(refused(publish(sqlite_service, stricter, "root")))
    await asyncio.to_thread(held.begun.wait, 20)
    await publish_as_a_later_release(sqlite_url, with_rows("# other"), format_=FORMAT)
    held.may_end.set()
    error = await call
    assert reason_of(error) == "PRECONDITION_FAILED"
    assert "the active version is 2, not 1" in str(error.details())


@in_process
async def test_nobody_gives_a_role_that_a_later_policy_ranks_above(
    sqlite_service: Service, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the policy is active when the membership is written."""
    await campus(sqlite_service)
    stored, published = SqlDirectory.write_group, list[object]()

    def write_late(self: SqlDirectory, requests: Any) -> Any:
        if not published:
            published.append(requests)
            files = with_rows("role, chief, course, 90, no,")
            asyncio.run(publish_as_a_later_release(sqlite_url, files, format_=FORMAT))
        return stored(self, requests)

    monkeypatch.setattr(SqlDirectory, "write_group", write_late)
    chief = given("new", ALGEBRA, "chief")
    error = await refused(write(sqlite_service, chief, person="tess"))
    assert reason_of(error) == "UNKNOWN_ROLE"
    assert str(error.details()).startswith("mutations[0]: unknown role `chief`; known are")
    await write(sqlite_service, chief)


@pytest.mark.parametrize(("count", "more"), [(5, ""), (6, "; and 1 more")])
async def test_a_refusal_names_five_things_and_counts_the_others(
    sqlite_service: Service, count: int, more: str
) -> None:
    await campus(sqlite_service)
    rows = [f"role, chief_{number}, platform, 100, no," for number in range(count)]
    told = str((await refused(publish(sqlite_service, with_rows(*rows), "root"))).details())
    assert told.count("changes the role `chief_") == 5
    assert f"`chief_4`, whose rank is not below 100{more}; a person gives" in told
