"""The platform stays administrable: no write leaves nobody who may edit the policy."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import policy_pb2 as ppb
from tests.api.test_api import delete, touch
from tests.api.test_policies import applied, messages, refused
from tests.policies import SHIPPED, with_rows
from tests.service import START, Service, info_of, reason_of, serve

PLATFORM = pb.Scope(platform=pb.Platform())
LATER = Timestamp(seconds=START // 1_000_000 + 3600)
EARLIER = Timestamp(seconds=START // 1_000_000 - 3600)
SUSPENDED = pb.ACCOUNT_STATUS_SUSPENDED
Mutations = list[dpb.Mutation]


def person(name: str) -> pb.Subject:
    return pb.Subject(type=pb.SUBJECT_TYPE_USER, id=name)


def membership(name: str, role: str = "platform_admin", **fields: Any) -> pb.Membership:
    return pb.Membership(subject=person(name), scope=PLATFORM, role=role, **fields)


def admin(name: str, **fields: Any) -> dpb.Mutation:
    return touch(membership=membership(name, **fields))


def leaves(name: str) -> dpb.Mutation:
    return delete(membership=membership(name))


def account(name: str, **fields: Any) -> dpb.Mutation:
    return touch(account=pb.Account(subject=person(name), **fields))


TAKES = {
    "a deletion": [leaves("root")],
    "an end": [admin("root", ends_at=EARLIER)],
    "an end to come": [admin("root", ends_at=LATER)],
    "a start to come": [admin("root", starts_at=LATER)],
    "a suspension": [admin("root", status=pb.MEMBERSHIP_STATUS_SUSPENDED)],
    "a suspension in another role": [
        touch(membership=membership("root", "support_agent", status=pb.MEMBERSHIP_STATUS_SUSPENDED))
    ],
    "a suspended account": [account("root", status=SUSPENDED)],
    "an account suspended for a time": [account("root", status=SUSPENDED, suspended_until=LATER)],
    "another role": [leaves("root"), touch(membership=membership("root", "support_agent"))],
    "one with a suspended account": [
        leaves("root"),
        admin("next"),
        account("next", status=SUSPENDED),
    ],
}


async def write(service: Service, *mutations: dpb.Mutation) -> None:
    await service.directory.Write(dpb.WriteRequest(mutations=mutations))


async def imported(service: Service, *mutations: dpb.Mutation) -> Any:
    return await service.directory.Import(iter([dpb.ImportRequest(mutations=mutations)]))


async def administrators(service: Service) -> list[str]:
    request = dpb.ReadMembershipsRequest(scope=PLATFORM, role="platform_admin")
    return [each.subject.id for each in (await service.directory.ReadMemberships(request)).memberships]


@pytest.mark.parametrize("takes", TAKES.values(), ids=TAKES)
async def test_no_write_takes_the_last_administrator_away(sqlite_service: Service, takes: Mutations) -> None:
    await write(sqlite_service, admin("root"))
    error = await refused(write(sqlite_service, *takes))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_ADMINISTRATOR")
    assert "first make somebody else `platform_admin`" in str(error.details())
    await write(sqlite_service, admin("third"))
    await write(sqlite_service, *takes)


@pytest.mark.parametrize("takes", TAKES.values(), ids=TAKES)
async def test_no_import_does(sqlite_service: Service, takes: Mutations) -> None:
    await write(sqlite_service, admin("root"))
    report = await imported(sqlite_service, *takes)
    assert "LAST_ADMINISTRATOR" in [error.reason for error in report.errors]
    assert "root" in await administrators(sqlite_service)
    await write(sqlite_service, admin("third"))
    assert not (await imported(sqlite_service, leaves("root"))).errors


async def test_an_administrator_hands_over_in_one_write(service: Service) -> None:
    await write(service, admin("root"))
    await write(service, leaves("root"), admin("next"))
    assert await administrators(service) == ["next"]


async def test_of_two_who_leave_at_once_one_stays(service: Service) -> None:
    for _ in range(5):
        await write(service, admin("root"), admin("next"))
        outcomes = await asyncio.gather(
            write(service, leaves("root")), write(service, leaves("next")), return_exceptions=True
        )
        assert sorted(map(reason, outcomes)) == ["", "LAST_ADMINISTRATOR"]
        assert len(await administrators(service)) == 1


async def test_of_two_who_leave_by_two_servers_one_stays(store_url: str) -> None:
    async with serve(store_url) as one, serve(store_url) as other:
        for _ in range(5):
            await write(one, admin("root"), admin("next"))
            outcomes = await asyncio.gather(
                write(one, leaves("root")), write(other, leaves("next")), return_exceptions=True
            )
            assert sorted(map(reason, outcomes)) == ["", "LAST_ADMINISTRATOR"]


def reason(outcome: object) -> str:
    return reason_of(outcome) if isinstance(outcome, grpc.aio.AioRpcError) else ""


async def test_a_policy_by_which_nobody_could_edit_it_is_refused(sqlite_service: Service) -> None:
    service = sqlite_service
    without = with_rows()
    without["default.csv"] = without["default.csv"].replace(
        "p, platform_admin, *, course, edit_policy, , allow\n", ""
    )
    await applied(service, without)  # nobody administers the platform yet
    await applied(service, SHIPPED)
    await write(service, admin("root"))
    error = await refused(applied(service, without))
    assert reason_of(error) == "LAST_ADMINISTRATOR"
    left = "would leave nobody on the platform who may edit its policy; keep a row of the policy that lets"
    assert left in str(error.details())
    found = await service.policy.ValidatePolicy(ppb.ValidatePolicyRequest(files=messages(without)))
    assert [each.where for each in found.warnings] == ["default.csv"]
    assert "lets no role on the platform `edit_policy` any more" in found.warnings[0].message


async def test_where_nobody_administers_the_platform_writes_go_on(service: Service) -> None:
    await write(service, admin("root", ends_at=EARLIER), account("root", status=SUSPENDED))
    await write(service, leaves("root"))
    await write(service, account("other", status=SUSPENDED))


def operator(name: str, **fields: Any) -> dpb.Mutation:
    subject = pb.Subject(type=pb.SUBJECT_TYPE_SERVICE, id=name)
    return touch(membership=pb.Membership(subject=subject, scope=PLATFORM, role="operator", **fields))


def without_operator(name: str) -> dpb.Mutation:
    subject = pb.Subject(type=pb.SUBJECT_TYPE_SERVICE, id=name)
    return delete(membership=pb.Membership(subject=subject, scope=PLATFORM, role="operator"))


CLOSES = {
    "a deletion": [without_operator("gate")],
    "an end to come": [operator("gate", ends_at=LATER)],
    "a suspension": [operator("gate", status=pb.MEMBERSHIP_STATUS_SUSPENDED)],
    "a suspended account": [
        touch(
            account=pb.Account(subject=pb.Subject(type=pb.SUBJECT_TYPE_SERVICE, id="gate"), status=SUSPENDED)
        )
    ],
}


@pytest.mark.parametrize("closes", CLOSES.values(), ids=CLOSES)
async def test_the_last_caller_that_may_give_roles_stays(sqlite_service: Service, closes: Mutations) -> None:
    # A person who may edit the policy is not enough: no person is a caller.
    await write(sqlite_service, admin("root"), operator("gate"))
    error = await refused(write(sqlite_service, *closes))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_ADMINISTRATOR")
    assert info_of(error).metadata["permission"] == "grant_roles"
    assert "another service `operator` or `platform_admin`" in str(error.details())
    assert [each.reason for each in (await imported(sqlite_service, *closes)).errors] == [
        "LAST_ADMINISTRATOR"
    ]
    await write(sqlite_service, operator("next"))
    await write(sqlite_service, *closes)


async def test_no_version_of_the_policy_takes_the_roles_of_callers_out_of_all_hands(
    sqlite_service: Service,
) -> None:
    await write(sqlite_service, admin("root"), operator("gate"))
    closed = {name: text for name, text in SHIPPED.items() if name != "tests/callers.toml"}
    closed["default.csv"] = closed["default.csv"].replace("p, operator, *, api, grant_roles, , allow\n", "")
    error = await refused(applied(sqlite_service, closed))
    assert (reason_of(error), info_of(error).metadata["permission"]) == ("LAST_ADMINISTRATOR", "grant_roles")
