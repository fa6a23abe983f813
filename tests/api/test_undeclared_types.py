"""Who deletes resources of a type that the active policy no longer declares, and what else reaches them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import privacy_pb2 as prpb
from tests.api.test_api import delete, touch
from tests.api.test_policies import applied, refused
from tests.api.test_rights import ALGEBRA, PLATFORM, SEMINAR, acting_for, campus, membership, write
from tests.databases import create_sqlite
from tests.issuer import Issuer, bearer
from tests.policies import SHIPPED, with_rows
from tests.service import Service, info_of, reason_of, serve

ISSUER = Issuer()
STU = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="stu")
TARA = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="tara")
IN_COURSE = pb.Resource(type="quiz", id="q-1", scope=ALGEBRA, owner=STU)
IN_SESSION = pb.Resource(type="quiz", id="q-2", scope=SEMINAR)
SHARE = pb.Share(resource_type="quiz", resource_id="q-1", subject=TARA, level=pb.SHARE_LEVEL_VIEWER)
WRITERS = ("notebook_service", "message_service", "material_service", "session_note_service")
CALLERS = {
    "admin": ("platform_admin",),
    "writers": (*WRITERS, "watcher"),
    "three": (*WRITERS[:3], "roster_importer"),
    "notebooks": WRITERS[:1],
    "officer": ("privacy_officer",),
    "enrolment": ("enrolment_service",),
}


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A server that authenticates its callers, by a policy that has dropped the type of three records."""
    url = create_sqlite(tmp_path / "authz.db")
    async with serve(url) as each:
        await campus(each)
        await applied(each, with_rows("type, quiz, create|read|delete|share"))
        await write(each, *(touch(resource=quiz) for quiz in (IN_COURSE, IN_SESSION)), touch(share=SHARE))
        for caller, roles in CALLERS.items():
            held = [membership(caller, PLATFORM, role) for role in roles]
            for each_held in held:
                each_held.subject.type = pb.SUBJECT_TYPE_SERVICE
            await write(each, *(touch(membership=each_held) for each_held in held))
        await applied(each, SHIPPED)
    async with serve(url, now=time.time_ns() // 1000, **ISSUER.settings(tmp_path)) as each:
        yield each


def by(caller: str, person: str = "") -> Any:
    return bearer(ISSUER.jwt(caller)) + acting_for(person)


async def made(service: Service, mutation: dpb.Mutation, caller: str, person: str = "") -> None:
    request = dpb.WriteRequest(mutations=[mutation])
    await service.directory.Write(request, metadata=by(caller, person))


async def left(service: Service) -> list[str]:
    resources, shares = dpb.ReadResourcesRequest(), dpb.ReadSharesRequest()
    found = (await service.directory.ReadResources(resources, metadata=by("admin"))).resources
    shared = (await service.directory.ReadShares(shares, metadata=by("admin"))).shares
    return [each.id for each in found] + [f"share of {each.resource_id}" for each in shared]


EVERYTHING = ["q-1", "q-2", "share of q-1"]


@pytest.mark.parametrize("caller", ["admin", "writers"])
async def test_who_may_write_every_declared_type_deletes_what_has_another(
    service: Service, caller: str
) -> None:
    assert await left(service) == EVERYTHING
    await made(service, delete(share=SHARE), caller)
    requests = iter([dpb.ImportRequest(mutations=[delete(resource=IN_SESSION)])])
    outcome = await service.directory.Import(requests, metadata=by(caller))
    assert (outcome.written, outcome.failed) == (1, 0)
    assert await left(service) == ["q-1"]
    exists = dpb.Precondition(expectation=dpb.EXPECTATION_EXISTS, resource=IN_COURSE)
    request = dpb.WriteRequest(mutations=[delete(resource=IN_COURSE)], preconditions=[exists])
    await service.directory.Write(request, metadata=by(caller))
    assert await left(service) == []


@pytest.mark.parametrize(
    ("caller", "mutation"),
    [
        ("three", delete(resource=IN_COURSE)),
        ("three", delete(share=SHARE)),
        ("notebooks", delete(resource=IN_COURSE)),
        ("officer", delete(resource=IN_COURSE)),
        ("admin", touch(resource=IN_COURSE)),
        ("admin", touch(share=SHARE)),
        ("writers", touch(resource=IN_COURSE)),
    ],
)
async def test_nothing_else_is_written_of_an_undeclared_type_and_the_refusal_says_who_may_what(
    service: Service, caller: str, mutation: dpb.Mutation
) -> None:
    error = await refused(made(service, mutation, caller))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
    assert info_of(error).metadata["permission"] == "write_quiz"
    says = str(error.details())
    assert "the active policy declares no resource type `quiz`" in says
    assert ("in the default policy a `platform_admin`, may delete" in says) is (
        caller in ("three", "notebooks", "officer")
    )
    assert ("publish a version that declares it" in says) is (caller in ("admin", "writers"))
    assert await left(service) == EVERYTHING


@pytest.mark.parametrize(
    ("person", "mutation", "scope"),
    [
        ("stu", delete(resource=IN_COURSE), "course:algebra"),  # its owner
        ("tess", delete(resource=IN_COURSE), "course:algebra"),
        ("tess", delete(share=SHARE), "course:algebra"),
        ("hana", delete(resource=IN_SESSION), "course:algebra"),
    ],
)
async def test_a_person_who_may_not_delete_where_it_is_deletes_nothing(
    service: Service, person: str, mutation: dpb.Mutation, scope: str
) -> None:
    error = await refused(made(service, mutation, "admin", person))
    assert reason_of(error) == "PERMISSION_MISSING"
    assert info_of(error).metadata["scope"] == scope
    assert await left(service) == EVERYTHING


async def test_a_person_deletes_what_would_go_with_its_course_or_session(service: Service) -> None:
    error = await refused(made(service, delete(resource=IN_COURSE), "notebooks", "olga"))
    assert info_of(error).metadata["permission"] == "write_quiz"  # the caller has no right
    await made(service, delete(share=SHARE), "admin", "olga")
    await made(service, delete(resource=IN_COURSE), "admin", "olga")
    await made(service, delete(resource=IN_SESSION), "admin", "tess")
    assert await left(service) == []
    error = await refused(made(service, delete(resource=IN_COURSE), "admin", "olga"))
    assert reason_of(error) == "UNKNOWN_TYPE"


async def test_an_export_an_erasure_and_a_removal_reach_it(service: Service) -> None:
    export = service.privacy.ExportSubject(prpb.ExportSubjectRequest(subject=STU), metadata=by("officer"))
    assert [part async for part in export if "q-1" in str(part)]
    removal = dpb.RemoveMemberRequest(subject=TARA, scope=ALGEBRA)
    await service.directory.RemoveMember(removal, metadata=by("enrolment"))
    erasure = prpb.EraseSubjectRequest(subject=STU, reason="asked", orphan_resources=True)
    await service.privacy.EraseSubject(erasure, metadata=by("officer"), timeout=60)
    request = dpb.ReadResourcesRequest(type="quiz")
    found = (await service.directory.ReadResources(request, metadata=by("admin"))).resources
    assert [(each.id, each.owner.id == "stu") for each in found] == [("q-1", False), ("q-2", False)]
    assert await left(service) == ["q-1", "q-2"]
