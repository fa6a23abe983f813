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
from tests.api.test_policies import active, refused
from tests.api.test_rights import ALGEBRA, PLATFORM, acting_for, campus, given, write
from tests.service import Service, in_process, info_of, reason_of


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
ALLOWED: list[tuple[str, dpb.Mutation]] = [
    ("stu", resource("notebook", "new", "stu")),
    ("stu", resource("notebook", "new")),
    ("stu", resource("message", "new", "stu", created_at=Timestamp(seconds=1))),
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
    ("stu", resource("message", "new", "stu", created_at=Timestamp(seconds=4_000_000_000)), "create"),
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
