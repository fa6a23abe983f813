"""A person writes the records that a check allows, and none that changes meanwhile or is of a higher rank."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from authz.engine.rights import PersonRights
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from tests.api.test_api import delete, touch
from tests.api.test_policies import active, applied, refused
from tests.api.test_rights import ALGEBRA, PLATFORM, SEMINAR, acting_for, campus, denied, given, write
from tests.policies import with_rows
from tests.service import START, Service, in_process, info_of, reason_of


def user(name: str) -> pb.Subject:
    return pb.Subject(type=pb.SUBJECT_TYPE_USER, id=name)


def resource(type_name: str, id_: str, owner: str = "", **fields: Any) -> dpb.Mutation:
    made = pb.Resource(type=type_name, id=id_, scope=ALGEBRA, **fields)
    if owner:
        made.owner.CopyFrom(user(owner))
    return touch(resource=made)


def share(with_whom: str, type_name: str = "notebook", id_: str = "nb") -> dpb.Mutation:
    record = pb.Share(
        resource_type=type_name, resource_id=id_, subject=user(with_whom), level=pb.SHARE_LEVEL_VIEWER
    )
    return touch(share=record)


def note(**fields: Any) -> dpb.Mutation:
    return touch(resource=pb.Resource(type="session_note", id="new", scope=SEMINAR, **fields))


def message(created_after_us: int) -> dpb.Mutation:
    created_at = Timestamp()
    created_at.FromMicroseconds(START + created_after_us)
    return resource("message", "new", "stu", created_at=created_at)


def change(paths: str, **record: Any) -> dpb.Mutation:
    return dpb.Mutation(operation=dpb.OPERATION_UPDATE, update_mask=FieldMask(paths=paths.split()), **record)


SHUT_WITH_AI = pb.Course(id="algebra", state=pb.COURSE_STATE_ARCHIVED, ai_enabled=True)


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
SHOWN = pb.Resource(type="notebook", id="nb", scope=ALGEBRA, published=True)
UNKNOWN = pb.Resource(type="notebook", id="no-such", scope=ALGEBRA, locked=True)
OVER = pb.Course(id="algebra", state=pb.COURSE_STATE_CONCLUDED)
ALLOWED: list[tuple[str, dpb.Mutation]] = [
    ("stu", resource("notebook", "new", "stu")),
    ("stu", resource("notebook", "new")),
    ("stu", resource("message", "new", "stu", created_at=Timestamp(seconds=1))),
    ("stu", message(created_after_us=5_000_000)),
    ("stu", resource("notebook", "new", "stu", published=True)),
    ("hana", note()),
    ("hana", note(locked=True)),
    ("stu", change("visibility", resource=NOTEBOOK)),
    ("stu", resource("notebook", "nb", "stu", published=True)),
    ("stu", delete(resource=NOTEBOOK)),
    ("stu", share("tess")),
    ("tess", share("tara", "material", "m")),
    ("tess", resource("material", "new")),
    ("tess", change("published", resource=MATERIAL)),
    ("tess", change("locked", resource=SHUT)),
    ("tess", touch(session=pb.Session(id="new", course_id="algebra"))),
    ("tess", touch(session=pb.Session(id="seminar", course_id="algebra"))),
    ("tess", delete(session=pb.Session(id="seminar"))),
    ("tess", change("ai_enabled", course=pb.Course(id="algebra", ai_enabled=True))),
    ("tess", change("state", course=OVER)),
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
    ("stu", resource("message", "new", "stu", created_at=Timestamp(seconds=4_000_000_000)), "create"),
    ("stu", message(created_after_us=5_000_001), "create"),
    ("tara", note(locked=True), "manage_members"),
    ("tess", resource("material", "new", published=True), "publish"),
    ("stu", resource("notebook", "new", "stu", locked=True), "manage_members"),
    ("tess", change("visibility", resource=NOTEBOOK), "share"),
    ("stu", change("owner", resource=NOTEBOOK), "update"),
    ("stu", change("created_at", resource=YOUNG), "update"),
    ("stu", resource("notebook", "nb", "tess", visibility=pb.VISIBILITY_COURSE), "update"),
    ("stu", change("visibility", resource=UNKNOWN), "update"),
    ("stu", change("locked", resource=UNKNOWN), "update"),
    ("stu", change("locked", resource=SHUT), "manage_members"),
    ("stu", resource("notebook", "nb", "stu", locked=True), "manage_members"),
    ("stu", change("visibility", resource=SHUT), "update"),
    ("stu", change("published", resource=MATERIAL), "publish"),
    ("tess", change("published", resource=SHOWN), "update"),
    ("tess", resource("message", "hello", "tess"), "update"),
    ("tess", delete(resource=NOTEBOOK), "delete"),
    ("stu", delete(resource=pb.Resource(type="notebook", id="no-such")), "delete"),
    ("tess", share("tara"), "share"),
    ("tess", delete(share=share("tara").share), "share"),
    ("stu", share("tara", "material", "m"), "update"),
    ("stu", touch(session=pb.Session(id="new", course_id="algebra")), "create"),
    ("tess", touch(session=pb.Session(id="alone")), "create"),
    ("stu", touch(session=pb.Session(id="seminar", course_id="algebra")), "update"),
    ("hana", delete(session=pb.Session(id="seminar")), "create"),
    ("tess", delete(session=pb.Session(id="no-such")), "update"),
    ("stu", change("state", course=OVER), "update"),
    ("stu", touch(course=pb.Course(id="algebra", state=pb.COURSE_STATE_ACTIVE)), "update"),
    ("tess", to_archive(), "archive"),
    ("tess", touch(course=pb.Course(id="algebra", state=pb.COURSE_STATE_ARCHIVED)), "archive"),
    ("root", change("state ai_enabled", course=SHUT_WITH_AI), "update"),
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


@pytest.mark.parametrize(
    ("person", "mutation", "text", "scope"),
    [
        (
            "stu",
            resource("material", "new"),
            "user:stu has no create on material in course:algebra (NO_RULE); ask somebody who has it",
            "course:algebra",
        ),
        ("olga", touch(course=pb.Course(id="new")), "create on course in platform; ask", "platform"),
        (
            "olga",
            touch(account=pb.Account(subject=user("stu"))),
            "has no edit_policy on platform; ask",
            "platform",
        ),
        (
            "stu",
            change("visibility", resource=UNKNOWN),
            "update on notebook:no-such; ask",
            "notebook:no-such",
        ),
        ("tess", resource("material", "new", published=True), "create it, then publish it", "material:new"),
    ],
)
async def test_a_refusal_says_what_is_missing_where_and_why(
    taught: Service, person: str, mutation: dpb.Mutation, text: str, scope: str
) -> None:
    error = await refused(write(taught, mutation, person=person))
    assert text in (error.details() or "")
    assert info_of(error).metadata["scope"] == scope


async def test_an_import_says_of_each_record_why_its_person_may_not_write_it(taught: Service) -> None:
    mutations = [
        touch(course=pb.Course(id="not an id")),
        given("new", ALGEBRA, "owner"),
        resource("notebook", "new", "stu"),
        change("visibility", resource=pb.Resource(type="quiz", id="q")),
        given("new", ALGEBRA, "student"),
        resource("notebook", "new", "tess"),
    ]
    parts = iter([dpb.ImportRequest(mutations=mutations)])
    outcome = await taught.directory.Import(parts, metadata=acting_for("tess"))
    assert [each.reason for each in outcome.errors] == [
        "MALFORMED_ID",
        "PERMISSION_MISSING",
        "PERMISSION_MISSING",
        "UNKNOWN_TYPE",
    ]
    assert outcome.written == 2


async def test_a_course_is_opened_again_by_who_may_archive_it(taught: Service) -> None:
    await write(taught, to_archive())
    opened = pb.Course(id="algebra", state=pb.COURSE_STATE_ACTIVE)
    for mutation in (touch(course=opened), change("state", course=opened)):
        denied(await refused(write(taught, mutation, person="tess")), "archive", "course:algebra")
    await write(taught, change("state", course=opened), person="root")


@pytest.mark.parametrize(
    ("person", "fields", "missing"),
    [
        ("tara", "published", ""),
        ("tara", "visibility", "update"),
        ("tara", "published visibility", "update"),
        ("ed", "visibility", ""),
        ("ed", "available_from", "publish"),
        ("ed", "published visibility", "publish"),
    ],
)
async def test_to_publish_and_to_update_are_rights_of_their_own(
    taught: Service, person: str, fields: str, missing: str
) -> None:
    rows = with_rows(
        "role, editor, course, 30, no,",
        "p, editor, *, material, update, , allow",
        "p, teaching_assistant, *, material, publish, , allow",
    )
    await applied(taught, rows)
    await write(taught, given("ed", ALGEBRA, "editor"))
    material = pb.Resource(type="material", id="m", published=True, visibility=pb.VISIBILITY_COURSE)
    material.available_from.FromSeconds(1)
    changed = write(taught, change(fields, resource=material), person=person)
    if missing:
        assert info_of(await refused(changed)).metadata["permission"] == missing
    else:
        await changed


@pytest.mark.parametrize(
    ("person", "fields", "missing"),
    [
        ("tara", "ai_allowed", "share"),
        ("tara", "visibility", "share"),
        ("tara", "ai_allowed visibility", "share"),
        ("stu", "ai_allowed", ""),
        ("stu", "ai_allowed visibility", ""),
    ],
)
async def test_an_editor_opens_to_nobody_what_only_its_owner_may_share(
    taught: Service, person: str, fields: str, missing: str
) -> None:
    to_edit = share("tara").share
    to_edit.level = pb.SHARE_LEVEL_EDITOR
    await write(taught, touch(share=to_edit))
    changes = pb.Resource(type="notebook", id="nb", visibility=pb.VISIBILITY_PRIVATE, ai_allowed=True)
    changed = write(taught, change(fields, resource=changes), person=person)
    if missing:
        denied(await refused(changed), missing, "notebook:nb")
    else:
        await changed


def token_of(service: str) -> dpb.Mutation:
    holder = pb.Subject(type=pb.SUBJECT_TYPE_SERVICE, id=service)
    ends_at = Timestamp(seconds=4_000_000_000)
    record = pb.AccessToken(id="0" * 12, subject=holder, digest="0" * 64, ends_at=ends_at)
    return dpb.Mutation(operation=dpb.OPERATION_CREATE, access_token=record)


def suspended(name: str) -> dpb.Mutation:
    return touch(account=pb.Account(subject=user(name), status=pb.ACCOUNT_STATUS_SUSPENDED))


async def refuse_to_move_the_token(service: str, taught: Service) -> None:
    """Of two holders of the token, one has a role of the person's own rank."""
    moved = token_of(service).access_token
    for mutation in (touch(access_token=moved), change("subject", access_token=moved)):
        error = await refused(write(taught, mutation, person="root"))
        assert reason_of(error) == "PERMISSION_MISSING"
        assert "rank" in (error.details() or "")


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
    later = token_of("notebooks").access_token
    later.ends_at.FromSeconds(4_100_000_000)
    await write(taught, change("ends_at", access_token=later), person="root")
    await refuse_to_move_the_token("ops", taught)
    revoked = delete(access_token=token_of("notebooks").access_token)
    await write(taught, revoked, person="root")
    await write(taught, token_of("ops"))
    for named in ("ops", "notebooks"):
        await refused(write(taught, delete(access_token=token_of(named).access_token), person="root"))
    await refuse_to_move_the_token("notebooks", taught)
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
