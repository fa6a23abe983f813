"""Retention periods by call and by command, and the purge that a server runs by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial

import grpc
import pytest

from authz.client import CallError, Client
from authz.domain.entities import EntityKind, Membership, RetainedData, RetentionRule
from authz.domain.errors import ErrorReason
from authz.domain.ids import PLATFORM, parse_subject
from authz.domain.instants import DAY_US
from authz.domain.mutations import Mutation, Operation
from authz.domain.retention import LIMITS
from authz.engine import retention
from authz.telemetry.metrics import REGISTRY
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import privacy_pb2 as ppb
from authz.v1 import watch_pb2 as wpb
from tests.api.test_tombstones import described, message, write
from tests.cli.commands import run
from tests.service import Service, in_process, reason_of, serve
from tests.serving import served

DECISIONS = RetainedData.DECISIONS
ALGEBRA = pb.Scope(course_id="algebra")
MAYA = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="maya")


@pytest.fixture(scope="module")
def address(shared_sqlite_url: str) -> Iterator[str]:
    with served(shared_sqlite_url) as found:
        yield found


def rule_of(client: Client, data: RetainedData) -> RetentionRule:
    return next(each.entity for each in client.privacy.retention() if each.entity.data is data)


def test_every_kind_of_data_has_a_period_until_somebody_sets_another(client: Client) -> None:
    assert {each.entity.data for each in client.privacy.retention()} == set(RetainedData)
    assert rule_of(client, RetainedData.MEMBERSHIPS).days == 1095
    client.privacy.set_retention(RetainedData.MEMBERSHIPS, 400, reason="the board")
    assert rule_of(client, RetainedData.MEMBERSHIPS).days == 400


def test_a_period_is_set_and_shown_by_command_and_is_a_change_with_its_reason(
    client: Client, address: str
) -> None:
    done = run(
        *("privacy", "retention", "set", "decisions", "730"),
        *("--reason", "disclosures of two years", "--address", address),
    )
    assert (done.returncode, done.stdout) == (0, "decisions are kept 730 days\n"), done.stderr
    shown = run("privacy", "retention", "show", "--address", address).stdout
    assert ["decisions", "730", "days"] in [line.split()[:3] for line in shown.splitlines()]
    change = next(iter(client.audit.changes(kinds=[EntityKind.RETENTION_RULE])))
    assert (change.after, change.reason) == (RetentionRule(DECISIONS, 730), "disclosures of two years")
    forever = run(
        *("privacy", "retention", "set", "decisions", "forever", "--reason", "a school", "--address", address)
    )
    assert forever.stdout == "decisions are kept forever\n"
    change = next(iter(client.audit.changes(kinds=[EntityKind.RETENTION_RULE])))
    assert (change.before, change.after) == (RetentionRule(DECISIONS, 730), RetentionRule(DECISIONS))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("changes", "89"), "days is 89; keep changes for at least 90 days, because an audit"),
        (("idempotency_keys", "forever"), "set a period in days"),
        (("decision", "90"), "'decision' is not one of 'changes', 'memberships', 'decisions'"),
        (("decisions", "a year"), "DAYS is `a year`; name a number of days, or `forever`"),
    ],
)
def test_a_period_that_cannot_be_is_refused_with_what_to_do(
    address: str, given: tuple[str, str], told: str
) -> None:
    refused = run("privacy", "retention", "set", *given, "--reason", "x", "--address", address)
    assert refused.returncode == 2
    assert told in refused.stderr


def test_a_period_that_somebody_else_has_set_meanwhile_is_not_overwritten(client: Client) -> None:
    read = next(each for each in client.privacy.retention() if each.entity.data is RetainedData.TOMBSTONES)
    client.privacy.set_retention(RetainedData.TOMBSTONES, 400, reason="first", revision=read.revision)
    with pytest.raises(CallError, match="read it again") as refused:
        client.privacy.set_retention(RetainedData.TOMBSTONES, 500, reason="second", revision=read.revision)
    assert refused.value.reason == ErrorReason.PRECONDITION_FAILED


def test_only_a_privacy_officer_sets_a_period(client: Client) -> None:
    people = {"user:dpo": "privacy_officer", "user:auditor": "compliance_auditor"}
    client.write(
        [
            Mutation(Operation.TOUCH, Membership(parse_subject(name), PLATFORM, role))
            for name, role in people.items()
        ]
    )
    for name in people:
        assert client.with_options(acting_for=name).privacy.retention()
    client.with_options(acting_for="user:dpo").privacy.set_retention(DECISIONS, 90, reason="x")
    with pytest.raises(CallError, match="user:auditor has no set_retention on api"):
        client.with_options(acting_for="user:auditor").privacy.set_retention(DECISIONS, 91, reason="x")
    with pytest.raises(CallError, match="reason"):
        client.privacy.set_retention(DECISIONS, 91, reason="")


def test_no_write_sets_a_rule_around_the_call(client: Client) -> None:
    with pytest.raises(CallError, match="which only PrivacyService writes"):
        client.write([Mutation(Operation.TOUCH, RetentionRule(DECISIONS, 1))])


async def test_a_request_names_a_period_and_data(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        privacy = Service(channel, address).privacy
        for request, told in (
            (ppb.SetRetentionRequest(data=pb.RETAINED_DATA_DECISIONS, reason="x"), "days"),
            (ppb.SetRetentionRequest(days=90, reason="x"), "data"),
            (
                ppb.SetRetentionRequest(data=pb.RETAINED_DATA_DECISIONS, for_ever=False, reason="x"),
                "for_ever",
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=told) as refused:
                await privacy.SetRetention(request)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
async def service(store_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """A server that looks often for what is due, at a time that leaves room before that of the database."""
    monkeypatch.setattr(retention, "_INTERVAL_S", 0.02)
    begun = time.time_ns() // 1000 - 10 * 365 * DAY_US
    async with serve(store_url, inline_types="message", now=begun) as each:
        yield each


async def purged(service: Service, data: int, removed: int) -> ppb.RetentionPeriod:
    """The rule once so much is purged."""
    while True:
        read = await service.privacy.ReadRetention(ppb.ReadRetentionRequest())
        (found,) = (each for each in read.periods if each.rule.data == data)
        if found.rule.removed >= removed:
            return found  # type: ignore[no-any-return]  # the stub is untyped
        await asyncio.sleep(0.01)


@in_process
async def test_a_server_purges_by_itself_and_all_that_reads_the_log_agrees(service: Service) -> None:
    written = await service.directory.Write(dpb.WriteRequest(mutations=[touch_course(ai_enabled=False)]))
    member = pb.Membership(subject=MAYA, scope=ALGEBRA, role="student", status=pb.MEMBERSHIP_STATUS_ACTIVE)
    await write(service, membership=member)
    await write(service, resource=message(ALGEBRA))
    await write(service, dpb.OPERATION_DELETE, resource=message(ALGEBRA))
    await service.directory.Write(dpb.WriteRequest(mutations=[touch_course(ai_enabled=True)]))
    count = partial(REGISTRY.get_sample_value, "authz_retention_purged_total", {"data": "changes"})
    before = count() or 0
    assert not (await described(service, ALGEBRA)).allowed
    service.now += (LIMITS[RetainedData.CHANGES].default_days or 0) * DAY_US + 2 * DAY_US
    rule = (await purged(service, pb.RETAINED_DATA_CHANGES, 3)).rule
    while (count() or 0) < before + 3:  # noqa: ASYNC110  it is counted once it is committed
        await asyncio.sleep(0.01)
    assert count() == before + 3
    await purged(service, pb.RETAINED_DATA_TOMBSTONES, 1)
    while not (await described(service, ALGEBRA)).allowed:  # noqa: ASYNC110  the replica follows
        await asyncio.sleep(0.01)
    watching = service.watch.Watch(wpb.WatchRequest(after=written.written_at))
    with pytest.raises(grpc.aio.AioRpcError, match="retention has purged") as expired:
        await watching.read()
    assert reason_of(expired.value) == "TOKEN_EXPIRED"
    request = apb.ListSubjectsRequest(resource=apb.ResourceQuery(type="course", id="algebra"), action="read")
    request.as_of.CopyFrom(rule.complete_since)
    assert [each.subject.id for each in (await service.authorization.ListSubjects(request)).subjects] == [
        "maya"
    ]
    request.as_of.seconds -= 1
    with pytest.raises(grpc.aio.AioRpcError, match="retention has purged what was before") as refused:
        await service.authorization.ListSubjects(request)
    assert reason_of(refused.value) == "TOKEN_EXPIRED"


def touch_course(*, ai_enabled: bool) -> dpb.Mutation:
    course = pb.Course(id="algebra", state=pb.COURSE_STATE_ACTIVE, ai_enabled=ai_enabled)
    return dpb.Mutation(operation=dpb.OPERATION_TOUCH, course=course)
