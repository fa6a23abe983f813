"""What a watch leaves out: of one history of a campus, each filter tells what matches, and nothing else.

The filters are of the engine, after the log was read, so one database is enough.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import pytest
import pytest_asyncio

from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import watch_pb2 as wpb
from tests.api.test_api import delete, written
from tests.api.watching import CAMPUS, SCOPES, mutations_of, revision_of, told, without_version, write_campus
from tests.service import Service

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
