"""What a watch leaves out: of one history of a campus, each filter tells what matches, and nothing else.

The filters are of the engine, after the log was read, so one database is enough.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from authz.api.permissions import permission_to_read
from authz.domain.entities import EntityKind
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import policy_pb2 as ppb
from authz.v1 import watch_pb2 as wpb
from tests.api.test_api import delete, touch, written
from tests.api.test_policies import messages
from tests.api.watching import CAMPUS, SCOPES, mutations_of, revision_of, told, without_version, write_campus
from tests.callers import grant
from tests.issuer import Issuer, bearer
from tests.policies import with_rows
from tests.service import Service, serve

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def states(shared_sqlite_service: Service) -> AsyncIterator[tuple[pb.ConsistencyToken, ...]]:
    """The states before the campus was written, after that, and after its deletion."""
    before, after = await write_campus(shared_sqlite_service)
    gone = await written(
        shared_sqlite_service,
        delete(course=pb.Course(id="algebra")),
        delete(course=pb.Course(id="poetry")),
        delete(session=pb.Session(id="alone")),
        delete(membership=CAMPUS["officer"].membership),
        delete(account=CAMPUS["account"].account),
    )
    yield before, after, gone


OF_ALGEBRA = ("course", "session", "student", "guest", "material", "note", "share", "note share")


async def test_a_kind_needs_a_permission_to_be_watched_unless_it_is_for_every_watcher() -> None:
    open_to_all = {kind for kind in EntityKind if not permission_to_read(kind)}
    assert open_to_all == {"policy_version", "policy_activation", "erasure", "retention_rule"}


@pytest.mark.parametrize(
    ("scopes", "kinds", "expected"),
    [
        ((), (), tuple(CAMPUS)),
        (("algebra",), (), OF_ALGEBRA),
        (("live",), (), ("session", "guest", "note", "note share")),
        (("alone",), (), ("alone", "host")),
        (("platform",), (), ("officer", "account")),
        (("poetry",), (), ("poetry", "poet")),
        (("none",), (), ()),
        (
            ("live", "platform", "poetry"),
            (),
            ("session", "guest", "note", "note share", "officer", "poetry", "poet", "account"),
        ),
        ((), ("COURSE",), ("course", "poetry")),
        ((), ("SESSION",), ("session", "alone")),
        ((), ("MEMBERSHIP",), ("student", "guest", "officer", "host", "poet")),
        ((), ("RESOURCE", "SHARE"), ("material", "note", "share", "note share")),
        ((), ("ACCOUNT",), ("account",)),
        (("algebra",), ("ACCOUNT",), ()),
        (("algebra",), ("MEMBERSHIP",), ("student", "guest")),
        (("algebra", "alone"), ("SHARE", "SESSION"), ("session", "share", "note share", "alone")),
        (("platform",), ("COURSE",), ()),
    ],
)
async def test_a_watch_tells_only_what_matches_when_it_comes_and_when_it_goes(
    shared_sqlite_service: Service,
    states: tuple[pb.ConsistencyToken, ...],
    scopes: Iterable[str],
    kinds: Iterable[str],
    expected: tuple[str, ...],
) -> None:
    asked = {
        "scopes": [SCOPES[name] for name in scopes],
        "kinds": [wpb.EntityKind.Value(f"ENTITY_KIND_{name}") for name in kinds],
    }
    before, after, gone = states
    changes = await told(shared_sqlite_service, gone, after=before, **asked)
    wanted = [CAMPUS[name] for name in expected]
    came = [change for change in changes if revision_of(change.written_at) <= revision_of(after)]
    assert [without_version(m) for m in mutations_of(came)] == wanted
    assert all(change.last for change in came)
    went = mutations_of(await told(shared_sqlite_service, gone, after=after, **asked))
    assert went == mutations_of(changes[len(came) :])
    assert {m.operation for m in went} <= {dpb.OPERATION_DELETE}
    for mutation in went:
        mutation.operation = dpb.OPERATION_TOUCH
    assert sorted(map(str, went)) == sorted(map(str, wanted))


READABLE_BY = {
    wpb.ENTITY_KIND_COURSE: "read_courses",
    wpb.ENTITY_KIND_SESSION: "read_sessions",
    wpb.ENTITY_KIND_MEMBERSHIP: "read_memberships",
    wpb.ENTITY_KIND_RESOURCE: "read_resources",
    wpb.ENTITY_KIND_SHARE: "read_shares",
    wpb.ENTITY_KIND_ACCOUNT: "read_accounts",
    wpb.ENTITY_KIND_RESTRICTION: "read_accounts",
    wpb.ENTITY_KIND_ACCESS_TOKEN: "read_access_tokens",
    wpb.ENTITY_KIND_HOLD: "erase_subject",
}


async def test_who_may_only_watch_is_told_of_the_policy_and_of_no_record(
    sqlite_url: str, tmp_path: Path
) -> None:
    issuer = Issuer()
    root, mirror = (bearer(issuer.jwt(caller)) for caller in ("root", "mirror"))
    grant(sqlite_url, {"service:root": "platform_admin"})
    async with serve(sqlite_url, now=time.time_ns() // 1000, **issuer.settings(tmp_path)) as service:
        rows = with_rows("role, mirror, platform, 60, no,", "p, mirror, *, api, watch, , allow")
        before = (
            await service.policy.ReadPolicyVersion(ppb.ReadPolicyVersionRequest(number=1), metadata=root)
        ).read_at
        await service.policy.ApplyPolicy(ppb.ApplyPolicyRequest(files=messages(rows)), metadata=root)
        subject = pb.Subject(type=pb.SUBJECT_TYPE_SERVICE, id="mirror")
        membership = pb.Membership(subject=subject, scope=pb.Scope(platform=pb.Platform()), role="mirror")
        request = dpb.WriteRequest(mutations=[touch(membership=membership)])
        await service.directory.Write(request, metadata=root)
        for kind, permission in READABLE_BY.items():
            watch = service.watch.Watch(wpb.WatchRequest(after=before, kinds=[kind]), metadata=mirror)
            with pytest.raises(grpc.aio.AioRpcError, match=f"none of its roles permits `{permission}`"):
                await watch.read()
        for kind in (wpb.ENTITY_KIND_POLICY_VERSION, wpb.ENTITY_KIND_POLICY_ACTIVATION):
            asked = wpb.WatchRequest(after=before, kinds=[kind])
            watch = service.watch.Watch(asked, metadata=mirror, timeout=30)
            while not (await watch.read()).HasField("change"):
                pass
            watch.cancel()
