"""A call that is made for a person is held to that person's rights and rank, from the outside."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from authz.engine.rights import PersonRights
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import policy_pb2 as ppb
from authz.v1 import watch_pb2 as wpb
from tests.api.test_api import delete, touch
from tests.api.test_policies import active, applied, messages, refused
from tests.policies import with_rows
from tests.service import Service, in_process, info_of, reason_of

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
        ("olga", given("new", ALGEBRA, "owner"), "course:algebra"),
        ("hana", given("new", SEMINAR, "host"), "session:seminar"),
        ("stu", given("new", SEMINAR, "guest"), "session:seminar"),
        ("tess", given("tess", PLATFORM, "platform_admin"), "platform"),
        ("sue", given("new", PLATFORM, "support_agent"), "platform"),
        ("root", given("new", PLATFORM, "platform_admin"), "platform"),
        ("olga", given("new", pb.Scope(course_id="other"), "student"), "course:other"),
    ],
)
async def test_a_membership_that_a_person_may_not_write_is_refused(
    sqlite_service: Service, person: str, mutation: dpb.Mutation, scope: str
) -> None:
    await campus(sqlite_service)
    other = given("new", ALGEBRA, "auditor")
    error = await refused(write(sqlite_service, other, mutation, person=person))
    permission = dict(info_of(error).metadata)["permission"]
    denied(error, permission, dict(info_of(error).metadata)["scope"])
    outcome = await sqlite_service.directory.Import(
        iter([dpb.ImportRequest(mutations=[mutation])]), metadata=acting_for(person)
    )
    assert [each.reason for each in outcome.errors] == ["PERMISSION_MISSING"]
    assert scope in outcome.errors[0].message
    found = await sqlite_service.directory.ReadMemberships(dpb.ReadMembershipsRequest())
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


@pytest.mark.parametrize(
    ("person", "member", "allowed"),
    [("tess", "stu", True), ("tess", "olga", False), ("stu", "tara", False), ("olga", "tess", True)],
)
async def test_a_member_is_removed_by_who_is_above(
    sqlite_service: Service, person: str, member: str, allowed: bool
) -> None:
    await campus(sqlite_service)
    subject = pb.Subject(type=pb.SUBJECT_TYPE_USER, id=member)
    request = dpb.RemoveMemberRequest(subject=subject, scope=ALGEBRA)
    call = sqlite_service.directory.RemoveMember(request, metadata=acting_for(person))
    if allowed:
        await call
    else:
        denied(await refused(call), "manage_members", "course:algebra")


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


def user(name: str) -> pb.Subject:
    return pb.Subject(type=pb.SUBJECT_TYPE_USER, id=name)


def resource(type_name: str, id_: str, owner: str = "", **fields: Any) -> dpb.Mutation:
    made = pb.Resource(type=type_name, id=id_, scope=ALGEBRA, **fields)
    if owner:
        made.owner.CopyFrom(user(owner))
    return touch(resource=made)


def share(with_whom: str) -> dpb.Mutation:
    return touch(
        share=pb.Share(
            resource_type="notebook", resource_id="nb", subject=user(with_whom), level=pb.SHARE_LEVEL_VIEWER
        )
    )


def change(paths: str, **record: Any) -> dpb.Mutation:
    return dpb.Mutation(operation=dpb.OPERATION_UPDATE, update_mask=FieldMask(paths=paths.split()), **record)


def to_archive() -> dpb.Mutation:
    return change("state", course=pb.Course(id="algebra", state=pb.COURSE_STATE_ARCHIVED))


CONTENT = (
    resource("notebook", "nb", "stu", visibility=pb.VISIBILITY_COURSE),
    resource("notebook", "shut", "stu", locked=True),
    resource("material", "m"),
    resource("message", "hello", "stu", visibility=pb.VISIBILITY_COURSE),
)
NOTEBOOK = pb.Resource(type="notebook", id="nb", scope=ALGEBRA)
YOUNG = pb.Resource(type="notebook", id="nb", scope=ALGEBRA, created_at=Timestamp(seconds=1))
SHUT = pb.Resource(type="notebook", id="shut", scope=ALGEBRA)
MATERIAL = pb.Resource(type="material", id="m", scope=ALGEBRA, published=True)
ALLOWED: list[tuple[str, dpb.Mutation]] = [
    ("stu", resource("notebook", "new", "stu")),
    ("stu", resource("notebook", "new")),
    ("stu", change("visibility", resource=NOTEBOOK)),
    ("stu", delete(resource=NOTEBOOK)),
    ("stu", share("tess")),
    ("tess", resource("material", "new")),
    ("tess", change("published", resource=MATERIAL)),
    ("tess", change("locked", resource=SHUT)),
    ("tess", touch(session=pb.Session(id="new", course_id="algebra"))),
    ("tess", touch(session=pb.Session(id="seminar", course_id="algebra"))),
    ("tess", delete(session=pb.Session(id="seminar"))),
    ("tess", change("ai_enabled", course=pb.Course(id="algebra", ai_enabled=True))),
    ("olga", to_archive()),
    ("olga", delete(course=pb.Course(id="algebra"))),
    ("root", touch(course=pb.Course(id="new"))),
    ("root", to_archive()),
    ("root", touch(account=pb.Account(subject=user("stu")))),
]
REFUSED: list[tuple[str, dpb.Mutation, str]] = [
    ("nobody", resource("notebook", "new", "nobody"), "create"),
    ("tess", resource("notebook", "new", "stu"), "create"),
    ("stu", resource("material", "new"), "create"),
    ("tess", resource("material", "new", published=True), "publish"),
    ("stu", resource("notebook", "new", "stu", locked=True), "manage_members"),
    ("tess", change("visibility", resource=NOTEBOOK), "update"),
    ("stu", change("owner", resource=NOTEBOOK), "update"),
    ("stu", change("created_at", resource=YOUNG), "update"),
    ("stu", change("locked", resource=SHUT), "manage_members"),
    ("stu", change("visibility", resource=SHUT), "update"),
    ("stu", change("published", resource=MATERIAL), "publish"),
    ("tess", resource("message", "hello", "tess"), "update"),
    ("tess", delete(resource=NOTEBOOK), "delete"),
    ("stu", delete(resource=pb.Resource(type="notebook", id="no-such")), "delete"),
    ("tess", share("tara"), "share"),
    ("tess", delete(share=share("tara").share), "share"),
    ("stu", touch(session=pb.Session(id="new", course_id="algebra")), "create"),
    ("tess", touch(session=pb.Session(id="alone")), "create"),
    ("stu", touch(session=pb.Session(id="seminar", course_id="algebra")), "update"),
    ("hana", delete(session=pb.Session(id="seminar")), "create"),
    ("tess", to_archive(), "archive"),
    ("root", change("ai_enabled", course=pb.Course(id="algebra", ai_enabled=True)), "update"),
    ("tess", delete(course=pb.Course(id="algebra")), "delete"),
    ("olga", touch(course=pb.Course(id="new")), "create"),
    ("olga", touch(account=pb.Account(subject=user("stu"))), "edit_policy"),
]


@pytest.fixture
async def taught(sqlite_service: Service) -> Service:
    await campus(sqlite_service)
    await write(sqlite_service, *CONTENT)
    return sqlite_service


@pytest.mark.parametrize(("person", "mutation"), ALLOWED)
async def test_a_person_writes_the_records_that_a_check_allows(
    taught: Service, person: str, mutation: dpb.Mutation
) -> None:
    await write(taught, mutation, person=person)


async def test_a_person_writes_no_others(taught: Service) -> None:
    before = (await active(taught)).read_at
    for person, mutation, permission in REFUSED:
        error = await refused(write(taught, mutation, person=person))
        assert (error.code(), reason_of(error)) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "PERMISSION_MISSING",
        ), mutation
        assert info_of(error).metadata["permission"] == permission, mutation
        assert "RESOURCE_UNKNOWN" not in str(error.details())
        outcome = await taught.directory.Import(
            iter([dpb.ImportRequest(mutations=[mutation])]), metadata=acting_for(person)
        )
        assert [each.reason for each in outcome.errors] == ["PERMISSION_MISSING"], mutation
    assert (await active(taught)).read_at == before


def token_of(service: str) -> dpb.Mutation:
    holder = pb.Subject(type=pb.SUBJECT_TYPE_SERVICE, id=service)
    ends_at = Timestamp(seconds=4_000_000_000)
    record = pb.AccessToken(id="0" * 12, subject=holder, digest="0" * 64, ends_at=ends_at)
    return dpb.Mutation(operation=dpb.OPERATION_CREATE, access_token=record)


def suspended(name: str) -> dpb.Mutation:
    return touch(account=pb.Account(subject=user(name), status=pb.ACCOUNT_STATUS_SUSPENDED))


async def test_a_person_reaches_no_role_of_the_own_rank_by_an_account_or_a_token(taught: Service) -> None:
    await write(
        taught,
        given("boss", PLATFORM, "platform_admin"),
        *(
            touch(
                membership=pb.Membership(
                    subject=pb.Subject(type=pb.SUBJECT_TYPE_SERVICE, id=name), scope=PLATFORM, role=role
                )
            )
            for name, role in (("ops", "platform_admin"), ("notebooks", "checker"))
        ),
    )
    for above in (suspended("boss"), token_of("ops")):
        error = await refused(write(taught, above, person="root"))
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
        assert "rank" in (error.details() or "")
    await write(taught, suspended("sue"), token_of("notebooks"), person="root")
    revoked = delete(access_token=token_of("notebooks").access_token)
    await write(taught, revoked, person="root")
    await write(taught, token_of("ops"))
    await refused(write(taught, delete(access_token=token_of("ops").access_token), person="root"))
    await write(taught, suspended("boss"))


RACES = {
    "created": (resource("notebook", "new", "stu"), resource("notebook", "new", "tara")),
    "given to another": (resource("notebook", "nb", "stu"), resource("notebook", "nb", "tara")),
    "deleted": (change("visibility", resource=NOTEBOOK), delete(resource=NOTEBOOK)),
    "a session": (
        touch(session=pb.Session(id="seminar", course_id="algebra")),
        delete(session=pb.Session(id="seminar")),
    ),
}


@in_process
@pytest.mark.parametrize("imports", [False, True])
@pytest.mark.parametrize("race", RACES)
async def test_a_record_that_changes_while_the_right_is_decided_is_not_overwritten(
    taught: Service, monkeypatch: pytest.MonkeyPatch, race: str, imports: bool
) -> None:
    mine, theirs = RACES[race]
    person = "tess" if race == "a session" else "stu"
    permitted = PersonRights.permitted

    async def overtaken(rights: PersonRights, who: Any, mutations: Any) -> Any:
        found = await permitted(rights, who, mutations)
        if who is not None:
            await write(taught, theirs)
        return found

    monkeypatch.setattr(PersonRights, "permitted", overtaken)
    if imports:
        parts = iter([dpb.ImportRequest(mutations=[mine])])
        outcome = await taught.directory.Import(parts, metadata=acting_for(person))
        assert [each.reason for each in outcome.errors] == ["WRITE_CONFLICT"]
    else:
        error = await refused(write(taught, mine, person=person))
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.ABORTED, "WRITE_CONFLICT")


@pytest.mark.parametrize(
    ("person", "mutation"),
    [
        ("stu", resource("notebook", "new", "stu")),
        ("stu", delete(resource=NOTEBOOK)),
        ("olga", delete(course=pb.Course(id="algebra"))),
    ],
    ids=["creates", "deletes", "takes away the right"],
)
async def test_a_repeated_write_for_a_person_gets_the_answer_of_the_first(
    taught: Service, person: str, mutation: dpb.Mutation
) -> None:
    request = dpb.WriteRequest(mutations=[mutation], idempotency_key="k")
    first, again = [await taught.directory.Write(request, metadata=acting_for(person)) for _ in range(2)]
    assert (first.written_at, first.revision) == (again.written_at, again.revision)
    request.idempotency_key = "another"
    if mutation.operation == dpb.OPERATION_DELETE:
        error = await refused(taught.directory.Write(request, metadata=acting_for(person)))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
