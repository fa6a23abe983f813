"""Who may take a membership whose role the active policy no longer declares."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from tests.api.test_api import delete, touch
from tests.api.test_policies import applied, refused
from tests.api.test_rights import (
    ALGEBRA,
    PLATFORM,
    SEMINAR,
    SUSPENDED,
    TOMORROW,
    acting_for,
    campus,
    denied,
    given,
    membership,
    write,
)
from tests.policies import SHIPPED, with_rows
from tests.service import Service, info_of, reason_of

SUSPENSION: dict[str, Any] = {"status": SUSPENDED}
YESTERDAY = Timestamp(seconds=1_000_000_000)


def changed(name: str, role: str, /, **fields: Any) -> dpb.Mutation:
    return dpb.Mutation(
        operation=dpb.OPERATION_UPDATE,
        update_mask=FieldMask(paths=fields),
        membership=membership(name, ALGEBRA, role, **fields),
    )


async def with_retired_roles(service: Service) -> None:
    """A campus after versions that declared other roles, the last of them before the active one."""
    await campus(service)
    await applied(service, with_rows("role, dean, course, 10, no,", "role, chief, platform, 95, no,"))
    roles = ("dean, course, 60", "grader, course, 25", "speaker, session, 45", "chief, platform, 95")
    retired = with_rows(*(f"role, {role}, no," for role in roles))
    await applied(service, retired, weaken_invariants=True)
    await write(
        service,
        *(given(name, ALGEBRA, "grader") for name in ("stu", "gus", "olga")),
        given("dora", ALGEBRA, "dean"),
        given("gus", SEMINAR, "speaker"),
        given("rob", PLATFORM, "chief"),
        given("sue", PLATFORM, "chief"),
    )
    await applied(service, SHIPPED)
    await applied(service, with_rows("# later"))


@pytest.mark.parametrize(
    "fields", [SUSPENSION, {"suspended_until": TOMORROW}, {"ends_at": YESTERDAY}], ids=str
)
async def test_who_was_above_a_role_suspends_and_ends_it(
    sqlite_service: Service, fields: dict[str, Any]
) -> None:
    await with_retired_roles(sqlite_service)
    both = (changed("stu", "student", **fields), changed("stu", "grader", **fields))
    await write(sqlite_service, *both, person="tess")
    outcome = await sqlite_service.directory.Import(
        iter([dpb.ImportRequest(mutations=[changed("gus", "grader", **fields)])]),
        metadata=acting_for("olga"),
    )
    assert (outcome.written, outcome.failed) == (1, 0)


async def test_who_suspended_a_retired_role_ends_that(sqlite_service: Service) -> None:
    await with_retired_roles(sqlite_service)
    await write(sqlite_service, changed("stu", "grader", **SUSPENSION), person="tess")
    active: dict[str, Any] = {"status": pb.MEMBERSHIP_STATUS_ACTIVE}
    await write(sqlite_service, changed("stu", "grader", **active), person="tess")
    await write(sqlite_service, delete(membership=membership("stu", ALGEBRA, "grader")), person="tess")


@pytest.mark.parametrize(
    ("person", "mutation", "scope"),
    [
        ("stu", changed("gus", "grader", **SUSPENSION), "course:algebra"),
        ("tess", changed("olga", "grader", **SUSPENSION), "course:algebra"),
        ("tess", changed("dora", "dean", **SUSPENSION), "course:algebra"),
        ("olga", changed("dora", "dean", ends_at=YESTERDAY), "course:algebra"),
        ("olga", delete(membership=membership("dora", ALGEBRA, "dean")), "course:algebra"),
        ("tess", changed("gus", "grader", **SUSPENSION), "session:seminar"),
        ("hana", delete(membership=membership("gus", SEMINAR, "speaker")), "session:seminar"),
        ("sue", touch(account=pb.Account(subject=membership("rob", PLATFORM, "chief").subject)), "platform"),
    ],
)
async def test_a_retired_role_is_taken_by_nobody_who_was_not_above_it(
    sqlite_service: Service, person: str, mutation: dpb.Mutation, scope: str
) -> None:
    await with_retired_roles(sqlite_service)
    error = await refused(write(sqlite_service, mutation, person=person))
    assert reason_of(error) == "PERMISSION_MISSING"
    assert dict(info_of(error).metadata)["scope"] == scope
    outcome = await sqlite_service.directory.Import(
        iter([dpb.ImportRequest(mutations=[mutation])]), metadata=acting_for(person)
    )
    assert [each.reason for each in outcome.errors] == ["PERMISSION_MISSING"]
    await write(sqlite_service, mutation)


async def test_nobody_removes_who_had_a_higher_rank_by_a_retired_role(sqlite_service: Service) -> None:
    await with_retired_roles(sqlite_service)

    async def remove(name: str) -> None:
        subject = pb.Subject(type=pb.SUBJECT_TYPE_USER, id=name)
        request = dpb.RemoveMemberRequest(subject=subject, scope=ALGEBRA)
        await sqlite_service.directory.RemoveMember(request, metadata=acting_for("tess"))

    denied(await refused(remove("dora")), "manage_members", "course:algebra")
    denied(await refused(remove("gus")), "manage_members", "session:seminar")
    await remove("stu")


async def test_a_role_that_no_version_has_declared_is_an_error_and_no_right(sqlite_service: Service) -> None:
    await with_retired_roles(sqlite_service)
    misspelt = delete(membership=membership("gus", ALGEBRA, "gradr"))
    error = await refused(write(sqlite_service, misspelt, person="tess"))
    assert reason_of(error) == "UNKNOWN_ROLE"


async def test_nobody_gives_a_retired_role(sqlite_service: Service) -> None:
    await with_retired_roles(sqlite_service)
    for person in ("", "tess"):
        for name in ("new", "tara"):
            error = await refused(write(sqlite_service, given(name, ALGEBRA, "grader"), person=person))
            assert reason_of(error) == "UNKNOWN_ROLE"
