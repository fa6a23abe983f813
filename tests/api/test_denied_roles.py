"""A role that a deny names takes what other roles give, so it is given and taken by who is above these."""

from __future__ import annotations

from authz.policy.invariants import INVARIANTS_FILE
from authz.v1 import common_pb2 as pb
from tests.api.test_api import delete, touch
from tests.api.test_policies import applied, refused
from tests.api.test_rights import (
    ALGEBRA,
    PLATFORM,
    SEMINAR,
    campus,
    denied,
    given,
    membership,
    publish,
    write,
)
from tests.policies import SHIPPED, with_rows
from tests.service import Service

OTHER = pb.Scope(course_id="other")
ROWS = (
    "role, trap, platform, 10, no,",
    "role, trainee, course, 25, no,",
    "role, visitor, course, 16, no, auditor",
    "g, trainee, auditor",
    "p, trap, *, course, edit_policy, , deny",
    "p, auditor, *, course, manage_members, , deny",
    "p, guest, *, session, manage_members, , deny",
)


async def denying(service: Service) -> None:
    """A policy whose denies name roles; only in `algebra` one names students."""
    await campus(service)
    await applied(service, with_rows(*ROWS))
    row = "p, student, course:algebra, notebook, read, !own & !shared_view, deny"
    await publish(service, {"course.csv": f"{row}\n"}, "", course_id="algebra")
    other = pb.Course(id="other", state=pb.COURSE_STATE_ACTIVE)
    taught = [given("tess", OTHER, "teacher"), given("olga", OTHER, "owner")]
    await write(service, touch(course=other), given("boss", PLATFORM, "platform_admin"), *taught)


async def test_a_denied_role_is_given_by_who_is_above_all_that_it_takes(sqlite_service: Service) -> None:
    await denying(sqlite_service)
    for person, mutation, above in (
        ("root", given("boss", PLATFORM, "trap"), "`platform_admin` in platform"),
        ("tess", given("olga", ALGEBRA, "auditor"), "`owner` in course:algebra"),
        ("tess", given("olga", ALGEBRA, "trainee"), "`owner` in course:algebra"),
        ("tess", given("olga", ALGEBRA, "visitor"), "`owner` in course:algebra"),
        ("tess", given("olga", ALGEBRA, "student"), "`owner` in course:algebra"),
        ("hana", given("tess", SEMINAR, "guest"), "`teacher` in course:algebra"),
    ):
        error = await refused(write(sqlite_service, mutation, person=person))
        assert f"user:{person} may not give or take {above}" in str(error.details()), mutation
    for person, mutation in (
        ("root", given("sue", PLATFORM, "trap")),
        ("root", given("boss", PLATFORM, "checker")),
        ("tess", given("olga", OTHER, "student")),
        ("tess", given("olga", ALGEBRA, "alumni")),
        ("tess", given("tara", ALGEBRA, "auditor")),
        ("tess", given("new", ALGEBRA, "student")),
        ("hana", given("tess", SEMINAR, "attendee")),
    ):
        await write(sqlite_service, mutation, person=person)


async def test_a_denied_role_is_taken_by_who_is_above_all_that_it_gives_back(sqlite_service: Service) -> None:
    await denying(sqlite_service)
    await write(sqlite_service, given("tess", ALGEBRA, "auditor"), given("tom", ALGEBRA, "teacher"))
    taken = delete(membership=membership("tess", ALGEBRA, "auditor"))
    denied(await refused(write(sqlite_service, taken, person="tom")), "manage_members", "course:algebra")
    await write(sqlite_service, taken, person="olga")


def for_stewards(*rows: str) -> dict[str, str]:
    """A policy by which people of rank 70 edit policies, too."""
    steward = ("role, steward, platform, 70, no,", "p, steward, *, course, edit_policy, , allow")
    closers = 'except_roles = ["owner", "platform_admin"'
    invariants = SHIPPED[INVARIANTS_FILE].replace(closers, f'{closers}, "steward"')
    return with_rows(*steward, *rows) | {INVARIANTS_FILE: invariants}


async def test_a_new_role_that_takes_from_who_holds_it_already_is_published_by_who_is_above_them(
    sqlite_service: Service,
) -> None:
    """A membership keeps a role that the policy no longer declares."""
    service = sqlite_service
    await campus(service)
    gag = "role, gag, platform, 1, no,"
    gagging = for_stewards(gag, "p, gag, *, course, edit_policy, , deny")
    await applied(service, for_stewards(gag), weaken_invariants=True)
    await write(service, given("sten", PLATFORM, "steward"), given("root", PLATFORM, "gag"))
    await applied(service, for_stewards())
    error = await refused(publish(service, gagging, "sten"))
    denied(error, "edit_policy", "platform")
    assert "denies edit_policy on course to each `platform_admin` who is also `gag`" in str(error.details())
    assert (await publish(service, for_stewards(gag), "sten")).active.number == 4
    await publish(service, for_stewards(), "root")
    await publish(service, gagging, "")
    denied(await refused(publish(service, for_stewards(), "root")), "edit_policy", "platform")
