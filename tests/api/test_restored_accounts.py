"""Who ends the suspension or the restriction of somebody with a role on the platform gives that role, and so
may give roles."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from authz.domain.errors import ErrorReason
from authz.store.directory import SqlDirectory
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import privacy_pb2 as ppb
from tests.api.test_api import delete, touch
from tests.api.test_long_calls_for_persons import Held
from tests.api.test_policies import refused
from tests.callers import grant, suspend
from tests.databases import create_sqlite
from tests.issuer import Issuer, bearer
from tests.service import Service, in_process, info_of, reason_of, serve

ISSUER = Issuer()
SUSPENDED = pb.ACCOUNT_STATUS_SUSPENDED
CALLERS = ("roster_importer", "privacy_officer", "operator", "platform_admin")
RESTORERS = ("operator", "platform_admin")


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """`user:boss` and `user:maya` are suspended, and `user:boss` has a role on the platform."""
    url = create_sqlite(tmp_path / "authz.db")
    roles = {f"service:{role}": role for role in CALLERS}
    grant(url, {**roles, "user:root": "platform_admin", "user:boss": "platform_admin"})
    for name in ("boss", "maya"):
        suspend(url, f"user:{name}")
    async with serve(url, now=time.time_ns() // 1000, **ISSUER.settings(tmp_path)) as each:
        yield each


def account(name: str, **fields: Any) -> pb.Account:
    return pb.Account(subject=pb.Subject(type=pb.SUBJECT_TYPE_USER, id=name), **fields)


def updated(paths: str, **fields: Any) -> dpb.Mutation:
    mask = FieldMask(paths=paths.split())
    return dpb.Mutation(operation=dpb.OPERATION_UPDATE, update_mask=mask, account=account("boss", **fields))


@pytest.mark.parametrize(
    ("mutation", "restores"),
    [
        (touch(account=account("boss")), True),
        (touch(account=account("boss", status=SUSPENDED, suspended_until=Timestamp(seconds=1))), True),
        (delete(account=account("boss")), True),
        (updated("status", status=pb.ACCOUNT_STATUS_ACTIVE), True),
        (updated("suspended_until", suspended_until=Timestamp(seconds=1)), True),
        (touch(account=account("boss", status=SUSPENDED)), False),
        (updated("status", status=SUSPENDED), False),
        (touch(account=account("root", status=SUSPENDED)), False),
        (touch(account=account("root")), False),
        (touch(account=account("maya")), False),
    ],
)
async def test_a_suspension_of_who_has_a_role_on_the_platform_ends_by_who_gives_roles(
    service: Service, tmp_path: Path, mutation: dpb.Mutation, restores: bool
) -> None:
    maya = touch(account=account("maya"))
    write = dpb.WriteRequest(mutations=[mutation])
    for role in CALLERS:
        refused = restores and role not in RESTORERS
        metadata = bearer(ISSUER.jwt(role))
        if refused:
            with pytest.raises(grpc.aio.AioRpcError, match="user:boss is suspended and has a role") as caught:
                await service.directory.Write(write, metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert info_of(caught.value).metadata["permission"] == "grant_roles"
        parts = iter([dpb.ImportRequest(mutations=[mutation, maya])])
        outcome = await service.directory.Import(parts, metadata=metadata)
        reasons = [each.reason for each in outcome.errors]
        assert reasons == (["PERMISSION_MISSING"] if refused else reasons), role
        assert ("PERMISSION_MISSING" in reasons) == refused, role
        for name in ("boss", "maya"):
            suspend(f"sqlite:///{tmp_path / 'authz.db'}", f"user:{name}")


@in_process
@pytest.mark.parametrize("method", ["write_group", "import_batch"])
async def test_a_suspension_that_is_committed_just_before_a_write_is_not_ended_by_it(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    stored = getattr(SqlDirectory, method)
    held = Held(lambda store: store())
    monkeypatch.setattr(SqlDirectory, method, lambda *given, **named: held(partial(stored, *given, **named)))
    metadata, mutations = bearer(ISSUER.jwt("roster_importer")), [touch(account=account("root"))]

    async def refusal() -> Any:
        if method == "write_group":
            write = dpb.WriteRequest(mutations=mutations)
            return reason_of(await refused(service.directory.Write(write, metadata=metadata)))
        parts = iter([dpb.ImportRequest(mutations=mutations)])
        (error,) = (await service.directory.Import(parts, metadata=metadata)).errors
        return error.reason

    call = asyncio.ensure_future(refusal())
    assert await asyncio.to_thread(held.begun.wait, 20)
    await asyncio.to_thread(suspend, f"sqlite:///{tmp_path / 'authz.db'}", "user:root")
    held.may_end.set()
    assert await call == ErrorReason.PERMISSION_MISSING
    read = dpb.ReadAccountsRequest(subject=account("root").subject)
    found = await service.directory.ReadAccounts(read, metadata=bearer(ISSUER.jwt("platform_admin")))
    assert [each.status for each in found.accounts] == [SUSPENDED]


async def test_an_import_that_would_end_a_suspension_is_logged_as_refused(service: Service) -> None:
    mutations = [touch(account=account("boss")), touch(account=account("maya"))]
    async with service.logged() as lines:
        parts = iter([dpb.ImportRequest(mutations=mutations)])
        await service.directory.Import(parts, metadata=bearer(ISSUER.jwt("roster_importer")))
    (line,) = (line for line in lines if line["event"] == "caller refused")
    assert (line["caller"], line["permission"]) == ("service:roster_importer", "grant_roles")


async def test_who_may_not_end_a_suspension_may_repeat_and_extend_it(service: Service) -> None:
    metadata = bearer(ISSUER.jwt("roster_importer"))

    def until(**when: int) -> dict[str, Any]:
        return {"status": SUSPENDED, **{name: Timestamp(seconds=each) for name, each in when.items()}}

    later = {"suspended_until": 4_000_000_000}
    for fields in (until(**later), until(**later), until(suspended_until=4_000_000_001), until()):
        await service.directory.Write(
            dpb.WriteRequest(mutations=[touch(account=account("root", **fields))]), metadata=metadata
        )
    for fields in (until(**later), {}):
        shortens = dpb.WriteRequest(mutations=[touch(account=account("root", **fields))])
        error = await refused(service.directory.Write(shortens, metadata=metadata))
        assert reason_of(error) == ErrorReason.PERMISSION_MISSING


def about(name: str) -> dict[str, Any]:
    return {"subject": pb.Subject(type=pb.SUBJECT_TYPE_USER, id=name), "reason": "request 2096-21"}


async def test_a_restriction_of_who_has_a_role_on_the_platform_ends_by_who_gives_roles(
    service: Service,
) -> None:
    officer, admin = (bearer(ISSUER.jwt(role)) for role in ("privacy_officer", "platform_admin"))
    for name in ("boss", "maya"):
        await service.privacy.RestrictSubject(ppb.RestrictSubjectRequest(**about(name)), metadata=officer)
    await service.privacy.LiftRestriction(ppb.LiftRestrictionRequest(**about("maya")), metadata=officer)
    lift = ppb.LiftRestrictionRequest(**about("boss"))
    with pytest.raises(grpc.aio.AioRpcError, match="user:boss has a role on the platform") as caught:
        await service.privacy.LiftRestriction(lift, metadata=officer)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert info_of(caught.value).metadata["permission"] == "grant_roles"
    await service.privacy.LiftRestriction(lift, metadata=admin)


async def test_a_restriction_alone_lets_others_write_the_account(service: Service) -> None:
    """It ends by no write of an account."""
    importer, officer = (bearer(ISSUER.jwt(role)) for role in ("roster_importer", "privacy_officer"))
    await service.privacy.RestrictSubject(ppb.RestrictSubjectRequest(**about("root")), metadata=officer)
    request = dpb.WriteRequest(mutations=[touch(account=account("root"))])
    await service.directory.Write(request, metadata=importer)


async def test_what_is_malformed_in_an_import_is_told_to_who_may_not_give_roles(service: Service) -> None:
    mutations = [touch(account=account("no id")), touch(account=account("maya"))]
    parts = iter([dpb.ImportRequest(mutations=mutations)])
    outcome = await service.directory.Import(parts, metadata=bearer(ISSUER.jwt("roster_importer")))
    assert [each.reason for each in outcome.errors] == ["MALFORMED_ID"]
