"""A call that is made for a person is held to that person's rights and rank, from the outside."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import policy_pb2 as ppb
from authz.v1 import watch_pb2 as wpb
from tests.api.test_api import delete, touch
from tests.api.test_policies import active, applied, messages, refused
from tests.policies import with_rows
from tests.service import Service, info_of, reason_of

SUSPENDED = pb.MEMBERSHIP_STATUS_SUSPENDED
TOMORROW = Timestamp(seconds=4_000_000_000)
PLATFORM = pb.Scope(platform=pb.Platform())
ALGEBRA = pb.Scope(course_id="algebra")
SEMINAR = pb.Scope(session_id="seminar")
CAMPUS = {
    "olga": (ALGEBRA, "owner"),
    "tess": (ALGEBRA, "teacher"),
    "tara": (ALGEBRA, "teaching_assistant"),
    "stu": (ALGEBRA, "student"),
    "hana": (SEMINAR, "host"),
    "root": (PLATFORM, "platform_admin"),
    "sue": (PLATFORM, "support_agent"),
}


def membership(name: str, scope: pb.Scope, role: str, **fields: Any) -> pb.Membership:
    subject = pb.Subject(type=pb.SUBJECT_TYPE_USER, id=name)
    return pb.Membership(subject=subject, scope=scope, role=role, **fields)


def given(name: str, scope: pb.Scope, role: str, **fields: Any) -> dpb.Mutation:
    return touch(membership=membership(name, scope, role, **fields))


def acting_for(person: str) -> tuple[tuple[str, str], ...]:
    return (("authz-acting-for", f"user:{person}"),) if person else ()


async def write(service: Service, *mutations: dpb.Mutation, person: str = "") -> Any:
    request = dpb.WriteRequest(mutations=mutations)
    return await service.directory.Write(request, metadata=acting_for(person))


async def campus(service: Service) -> None:
    await write(
        service,
        touch(course=pb.Course(id="algebra", state=pb.COURSE_STATE_ACTIVE)),
        touch(session=pb.Session(id="seminar", course_id="algebra", state=pb.SESSION_STATE_LIVE)),
        *(given(name, *where) for name, where in CAMPUS.items()),
    )


async def publish(service: Service, files: dict[str, str], person: str, **fields: Any) -> Any:
    request = ppb.ApplyPolicyRequest(files=messages(files), **fields)
    return await service.policy.ApplyPolicy(request, metadata=acting_for(person))


def denied(error: grpc.aio.AioRpcError, permission: str, scope: str) -> None:
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
    assert dict(info_of(error).metadata) == {"permission": permission, "scope": scope}


@pytest.mark.parametrize(
    ("person", "mutation", "scope"),
    [
        ("stu", given("new", ALGEBRA, "student"), "course:algebra"),
        ("tara", given("new", ALGEBRA, "student"), "course:algebra"),
        ("nobody", given("new", ALGEBRA, "student"), "course:algebra"),
        ("root", given("new", ALGEBRA, "student"), "course:algebra"),
        ("tess", given("new", ALGEBRA, "teacher"), "course:algebra"),
        ("tess", given("tess", ALGEBRA, "owner"), "course:algebra"),
        ("tess", delete(membership=membership("olga", ALGEBRA, "owner")), "course:algebra"),
        ("tess", given("olga", ALGEBRA, "owner", status=pb.MEMBERSHIP_STATUS_SUSPENDED), "course:algebra"),
        ("tess", given("olga", ALGEBRA, "student", status=SUSPENDED), "course:algebra"),
        ("tess", given("olga", ALGEBRA, "student", suspended_until=TOMORROW), "course:algebra"),
        ("tess", given("olga", SEMINAR, "guest", status=SUSPENDED), "course:algebra"),
        ("tess", given("tess", ALGEBRA, "student", status=SUSPENDED), "course:algebra"),
        ("hana", given("tess", SEMINAR, "guest", status=SUSPENDED), "course:algebra"),
        ("root", given("root", PLATFORM, "support_agent", status=SUSPENDED), "platform"),
        ("olga", given("new", ALGEBRA, "owner"), "course:algebra"),
        ("hana", given("new", SEMINAR, "host"), "session:seminar"),
        ("stu", given("new", SEMINAR, "guest"), "session:seminar"),
        ("tess", given("tess", PLATFORM, "platform_admin"), "platform"),
        ("sue", given("new", PLATFORM, "support_agent"), "platform"),
        ("root", given("new", PLATFORM, "platform_admin"), "platform"),
        ("olga", given("new", pb.Scope(course_id="other"), "student"), "course:other"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_membership_that_a_person_may_not_write_is_refused(
    shared_sqlite_service: Service, person: str, mutation: dpb.Mutation, scope: str
) -> None:
    await campus(shared_sqlite_service)
    other = given("new", ALGEBRA, "auditor")
    error = await refused(write(shared_sqlite_service, other, mutation, person=person))
    permission = dict(info_of(error).metadata)["permission"]
    denied(error, permission, dict(info_of(error).metadata)["scope"])
    assert str(error.details()).startswith("mutations[")
    outcome = await shared_sqlite_service.directory.Import(
        iter([dpb.ImportRequest(mutations=[mutation])]), metadata=acting_for(person)
    )
    assert [each.reason for each in outcome.errors] == ["PERMISSION_MISSING"]
    assert scope in outcome.errors[0].message
    found = await shared_sqlite_service.directory.ReadMemberships(dpb.ReadMembershipsRequest())
    assert len(found.memberships) == len(CAMPUS)


@pytest.mark.parametrize(
    ("person", "mutation"),
    [
        ("tess", given("new", ALGEBRA, "student")),
        ("tess", given("new", ALGEBRA, "teaching_assistant")),
        ("tess", delete(membership=membership("stu", ALGEBRA, "student"))),
        ("olga", given("new", ALGEBRA, "teacher")),
        ("olga", delete(membership=membership("tess", ALGEBRA, "teacher"))),
        ("hana", given("new", SEMINAR, "attendee")),
        ("tess", given("new", SEMINAR, "host")),
        ("root", given("new", PLATFORM, "support_agent")),
        ("", given("new", PLATFORM, "platform_admin")),
        ("root", touch(course=pb.Course(id="other", state=pb.COURSE_STATE_ACTIVE))),
    ],
)
async def test_what_a_person_may_write_is_written_and_the_log_names_both(
    sqlite_service: Service, person: str, mutation: dpb.Mutation
) -> None:
    await campus(sqlite_service)
    after = (await active(sqlite_service)).read_at
    await write(sqlite_service, mutation, person=person)
    watch = sqlite_service.watch.Watch(wpb.WatchRequest(after=after))
    async for response in watch:
        if response.HasField("change"):
            break
    watch.cancel()
    assert response.change.actor == ("unauthenticated" + (f" for user:{person}" if person else ""))


async def test_the_rank_is_the_highest_of_the_roles_that_give_the_right(sqlite_service: Service) -> None:
    await campus(sqlite_service)
    await applied(
        sqlite_service,
        with_rows(
            "role, dean, course, 60, no,",
            "role, chair, session, 45, no,",
            "p, chair, *, session, manage_members, session_ended, allow",
        ),
    )
    await write(
        sqlite_service,
        given("tess", ALGEBRA, "dean"),  # which gives no right
        given("tess", ALGEBRA, "owner", ends_at=Timestamp(seconds=1)),
        given("tess", SEMINAR, "host"),
        given("hana", SEMINAR, "chair"),  # which gives the right only once the session has ended
    )
    for person, scope, gives, not_gives in (
        ("tess", ALGEBRA, "teaching_assistant", "teacher"),
        ("tess", SEMINAR, "host", "chair"),
        ("hana", SEMINAR, "attendee", "host"),
    ):
        await write(sqlite_service, given("new", scope, gives), person=person)
        error = await refused(write(sqlite_service, given("new", scope, not_gives), person=person))
        assert f"user:{person} may not give or take `{not_gives}`" in str(error.details())


async def test_a_right_of_everybody_gives_each_the_own_rank(sqlite_service: Service) -> None:
    await campus(sqlite_service)
    everybody = with_rows("p, *, *, session, manage_members, , allow")
    everybody["invariants.toml"] = (
        '[never.ended]\nsays = "over"\nactions = ["join"]\nwhen = "session_ended"\n'
    )
    await publish(sqlite_service, everybody, "", weaken_invariants=True)
    await write(sqlite_service, given("anna", SEMINAR, "attendee"))
    await write(sqlite_service, given("new", SEMINAR, "guest"), person="anna")
    await refused(write(sqlite_service, given("new", SEMINAR, "attendee"), person="anna"))


@pytest.mark.parametrize("fields", [{"status": SUSPENDED}, {"suspended_until": TOMORROW}], ids=str)
async def test_a_suspension_by_an_update_is_made_by_who_is_above_all_that_it_takes(
    sqlite_service: Service, fields: dict[str, Any]
) -> None:
    await campus(sqlite_service)
    await write(sqlite_service, *(given(name, ALGEBRA, "auditor") for name in ("stu", "olga")))
    updates = {
        name: dpb.Mutation(
            operation=dpb.OPERATION_UPDATE,
            update_mask=FieldMask(paths=fields),
            membership=membership(name, ALGEBRA, "auditor", **fields),
        )
        for name in ("stu", "olga")
    }
    denied(
        await refused(write(sqlite_service, updates["olga"], person="tess")),
        "manage_members",
        "course:algebra",
    )
    await write(sqlite_service, updates["stu"], person="tess")


async def test_a_suspension_is_ended_by_who_is_above_all_that_it_takes(sqlite_service: Service) -> None:
    await campus(sqlite_service)
    await write(
        sqlite_service,
        given("tess", ALGEBRA, "student", status=SUSPENDED),
        given("tom", ALGEBRA, "teacher"),
    )
    row = membership("tess", ALGEBRA, "student")
    for mutation in (touch(membership=row), delete(membership=row)):
        denied(
            await refused(write(sqlite_service, mutation, person="tom")), "manage_members", "course:algebra"
        )
    await write(sqlite_service, given("tess", ALGEBRA, "auditor"), person="tom")  # ends no suspension
    await write(sqlite_service, touch(membership=row), person="olga")
    await write(sqlite_service, delete(membership=row), person="tom")


@pytest.mark.parametrize(
    ("person", "member", "allowed"),
    [("tess", "stu", True), ("tess", "olga", False), ("stu", "tara", False), ("olga", "tess", True)],
)
async def test_a_member_is_removed_by_who_is_above(
    sqlite_service: Service, person: str, member: str, allowed: bool
) -> None:
    """What somebody is in other courses neither keeps nor removes them."""
    await campus(sqlite_service)
    for course in ("aaa", "algebra-2"):
        elsewhere = given(member, pb.Scope(course_id=course), "owner")
        await write(
            sqlite_service, touch(course=pb.Course(id=course, state=pb.COURSE_STATE_ACTIVE)), elsewhere
        )
    subject = pb.Subject(type=pb.SUBJECT_TYPE_USER, id=member)
    request = dpb.RemoveMemberRequest(subject=subject, scope=ALGEBRA)
    call = sqlite_service.directory.RemoveMember(request, metadata=acting_for(person))
    if allowed:
        await call
    else:
        denied(await refused(call), "manage_members", "course:algebra")


async def test_a_role_on_the_platform_keeps_nobody_in_a_course(sqlite_service: Service) -> None:
    """It stays, so who takes a member out of a course need not be above it."""
    await campus(sqlite_service)
    await write(sqlite_service, given("sue", ALGEBRA, "student"), given("root", ALGEBRA, "student"))
    await write(sqlite_service, given("sue", ALGEBRA, "student", status=SUSPENDED), person="tess")
    subject = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="root")
    request = dpb.RemoveMemberRequest(subject=subject, scope=ALGEBRA)
    await sqlite_service.directory.RemoveMember(request, metadata=acting_for("tess"))
    found = await sqlite_service.directory.ReadMemberships(dpb.ReadMembershipsRequest(scope=PLATFORM))
    assert {each.subject.id for each in found.memberships} == {"root", "sue"}


async def test_nobody_removes_who_has_a_higher_rank_in_a_session_of_the_course(
    sqlite_service: Service,
) -> None:
    await campus(sqlite_service)
    rows = with_rows("role, speaker, session, 45, no,")
    await applied(sqlite_service, rows)
    await write(sqlite_service, given("stu", SEMINAR, "speaker"))
    subject = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="stu")
    request = dpb.RemoveMemberRequest(subject=subject, scope=ALGEBRA)
    error = await refused(sqlite_service.directory.RemoveMember(request, metadata=acting_for("tess")))
    denied(error, "manage_members", "session:seminar")
    await sqlite_service.directory.RemoveMember(request, metadata=acting_for("olga"))


async def test_the_policy_is_edited_by_who_may_and_gives_nothing_that_its_author_lacks(
    service: Service,
) -> None:
    await campus(service)
    stricter = with_rows("p, auditor, *, material, read, , deny")
    for person in ("sue", "olga", "nobody"):
        denied(await refused(publish(service, stricter, person)), "edit_policy", "platform")
    published = await publish(service, stricter, "root")
    assert (published.active.number, published.active.author) == (2, "unauthenticated for user:root")
    for row, says in (
        (
            "p, teaching_assistant, *, material, publish, , allow",
            "gives publish on material to `teaching_assis",
        ),
        ("p, platform_admin, *, course, read, , allow", "to `platform_admin`, whose rank is not below 100"),
        ("role, chief, platform, 100, no,", "changes the role `chief`, whose rank is not below 100"),
    ):
        error = await refused(publish(service, with_rows(row), "root"))
        denied(error, "edit_policy", "platform")
        assert says in str(error.details())
    back = ppb.RollBackPolicyRequest(number=1)
    error = await refused(service.policy.RollBackPolicy(back, metadata=acting_for("root")))
    assert "gives read on material to `auditor`, when published" in str(error.details())
    more = with_rows("p, auditor, *, material, read, , deny", "p, support_agent, *, course, create, , allow")
    assert (await publish(service, more, "root")).active.number == 3
    assert (await service.policy.RollBackPolicy(back)).active.number == 4
    from_admins = with_rows("p, platform_admin, *, course, archive, , deny")
    assert (await publish(service, from_admins, "root")).active.number == 5


@pytest.mark.parametrize(
    "declared",
    [
        "role, auditor, course, 50, no, owner",
        "role, auditor, course, 15, yes,",
        "role, student, course, 20, no,",  # who then stays one in a course that is over
    ],
)
async def test_no_role_gets_by_its_declaration_what_its_author_lacks(
    sqlite_service: Service, declared: str
) -> None:
    await campus(sqlite_service)
    files, start = with_rows(), declared[: declared.index(", ", len("role, "))]
    rows = files["default.csv"].splitlines()
    files["default.csv"] = "\n".join(declared if row.startswith(f"{start},") else row for row in rows)
    error = await refused(publish(sqlite_service, files, "root"))
    denied(error, "edit_policy", "platform")
    assert f"changes how `{declared.split(', ')[1]}` is declared" in str(error.details())
    assert (await publish(sqlite_service, files, "", weaken_invariants=True)).active.number == 2


async def test_an_owner_edits_the_policy_of_the_own_course_within_the_own_rights(
    sqlite_service: Service,
) -> None:
    service = sqlite_service
    await campus(service)
    await write(service, touch(course=pb.Course(id="poetry", state=pb.COURSE_STATE_ACTIVE)))

    async def course(row: str, person: str, course_id: str = "algebra") -> Any:
        return await publish(service, {"course.csv": f"{row}\n"}, person, course_id=course_id)

    row = "p, teaching_assistant, course:algebra, material, publish, , allow"
    denied(await refused(course(row, "tess")), "edit_policy", "course:algebra")
    elsewhere = row.replace("algebra", "poetry")
    denied(await refused(course(elsewhere, "olga", "poetry")), "edit_policy", "course:poetry")
    assert (await course(row, "olga")).active.number == 1
    for row, says in (
        ("p, student, course:algebra, notebook, read, session_visible, allow", "`student`, when "),
        ("p, owner, course:algebra, notebook, delete, , allow", "`owner`, whose rank is not below 50"),
        *(
            (f"p, {role}, course:algebra, material, update, , deny", "takes update on material from `owner`")
            for role in ("owner", "teacher", "*")
        ),
    ):
        error = await refused(course(row, "olga"))
        denied(error, "edit_policy", "course:algebra")
        assert says in str(error.details())
    assert (await course("# nothing", "olga")).active.number == 2


async def test_drafts_are_edited_and_published_by_who_may(sqlite_service: Service) -> None:
    service, policy = sqlite_service, sqlite_service.policy
    await campus(service)
    create = ppb.CreatePolicyDraftRequest(id="mine")
    denied(
        await refused(policy.CreatePolicyDraft(create, metadata=acting_for("olga"))),
        "edit_policy",
        "platform",
    )
    draft = (await policy.CreatePolicyDraft(create, metadata=acting_for("root"))).draft
    wide = ppb.PolicyEdit(add_row="p, teaching_assistant, *, material, publish, , allow")
    edit = ppb.EditPolicyDraftRequest(
        id="mine", etag=draft.etag, edits=[wide, ppb.PolicyEdit(delete_file="tests/course.toml")]
    )
    delete_it = ppb.DeletePolicyDraftRequest(id="mine", etag=draft.etag)
    for call in (
        policy.EditPolicyDraft(edit, metadata=acting_for("stu")),
        policy.DeletePolicyDraft(delete_it, metadata=acting_for("stu")),
    ):
        denied(await refused(call), "edit_policy", "platform")
    draft = (await policy.EditPolicyDraft(edit, metadata=acting_for("root"))).draft
    request = ppb.PublishPolicyDraftRequest(id="mine", etag=draft.etag)
    error = await refused(policy.PublishPolicyDraft(request, metadata=acting_for("root")))
    assert "gives publish on material to `teaching_assistant`" in str(error.details())
    assert (await policy.PublishPolicyDraft(request)).active.number == 2


@pytest.mark.parametrize("stated", [("",), ("root",), ("service:root",), ("user:root", "user:sue")])
async def test_a_person_that_is_badly_stated_does_not_pass_for_none(
    sqlite_service: Service, stated: tuple[str, ...]
) -> None:
    metadata = tuple(("authz-acting-for", each) for each in stated)
    course = touch(course=pb.Course(id="algebra", state=pb.COURSE_STATE_ACTIVE))
    call = sqlite_service.directory.Write(dpb.WriteRequest(mutations=[course]), metadata=metadata)
    error = await refused(call)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "authz-acting-for" in str(error.details())


async def test_rights_end_with_the_membership_that_gave_them(service: Service) -> None:
    await campus(service)
    await write(service, given("new", ALGEBRA, "student"), person="tess")
    await write(service, given("tess", ALGEBRA, "teacher", status=pb.MEMBERSHIP_STATUS_SUSPENDED))
    error = await refused(write(service, given("late", ALGEBRA, "student"), person="tess"))
    denied(error, "manage_members", "course:algebra")
