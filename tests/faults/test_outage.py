"""While the database is away checks go on, for as long as the operator allows; then all comes back."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from authz.client import check_request
from authz.client.errors import CallError, error_of
from authz.domain.ids import parse_subject
from authz.v1 import authorization_pb2, common_pb2, directory_pb2
from authz.wire.entities import mutation_message
from authz.wire.values import subject_message
from tests.databases import create_sqlite
from tests.faults.load import Stubs
from tests.faults.postgresql import Clusters
from tests.faults.processes import AUTHORIZATION, DIRECTORY, Node, running
from tests.runtime.test_server import campus_of
from tests.serving import both_transports, over_grpc
from tests.waiting import until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
FULLY = common_pb2.Consistency(fully_consistent=True)
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@contextmanager
def connected(node: Node) -> Iterator[Stubs]:
    """A connection to a server."""
    stubs = Stubs(node.name, node.address)
    with stubs.channel:
        yield stubs


def allowed(stubs: Stubs, number: int, consistency: common_pb2.Consistency | None = None) -> bool:
    """Whether Maya may read the material of a campus."""
    request = check_request("user:maya", "read", f"material:m{number}")
    if consistency is not None:
        request.consistency.CopyFrom(consistency)
    return bool(stubs.authorization.Check(request, timeout=15).allowed)


def listed(stubs: Stubs) -> tuple[list[str], list[str]]:
    """The materials that Maya may read, and who may read the first."""
    maya = subject_message(parse_subject("user:maya"))
    request = authorization_pb2.ListResourcesRequest(subject=maya, action="read", types=["material"])
    resources = stubs.authorization.ListResources(request, timeout=15).resources
    asked = authorization_pb2.ResourceQuery(type="material", id=resources[0].id)
    who = authorization_pb2.ListSubjectsRequest(action="read", resource=asked)
    subjects = stubs.authorization.ListSubjects(who, timeout=15).subjects
    return [each.id for each in resources], [each.subject.id for each in subjects]


def write(stubs: Stubs, number: int) -> common_pb2.ConsistencyToken:
    """Register a campus."""
    request = directory_pb2.WriteRequest(mutations=map(mutation_message, campus_of(number)))
    token: common_pb2.ConsistencyToken = stubs.directory.Write(request, timeout=15).written_at
    return token


def refused(call: Callable[[], Any]) -> CallError:
    """How a call fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return error_of(caught.value)


def answered(call: Callable[[], Any]) -> bool:
    """Whether a call succeeds."""
    try:
        call()
    except grpc.RpcError:
        return False
    return True


def calls_that_need_the_database(stubs: Stubs) -> list[tuple[Any, Any]]:
    """Methods, and a request for each."""
    check = check_request("user:maya", "read", "material:m1")
    check.consistency.CopyFrom(FULLY)
    past = authorization_pb2.ExplainRequest(
        subject=check.subject, action=check.action, resource=check.resource
    )
    past.as_of.GetCurrentTime()
    directory = stubs.directory
    return [
        (stubs.authorization.Check, check),
        (stubs.authorization.Explain, past),
        (directory.Write, directory_pb2.WriteRequest(mutations=map(mutation_message, campus_of(99)))),
        (directory.Import, iter([directory_pb2.ImportRequest()])),
        (directory.ReadCourses, directory_pb2.ReadCoursesRequest()),
        (directory.ReadSessions, directory_pb2.ReadSessionsRequest()),
        (directory.ReadMemberships, directory_pb2.ReadMembershipsRequest()),
        (directory.ReadResources, directory_pb2.ReadResourcesRequest()),
        (directory.ReadShares, directory_pb2.ReadSharesRequest()),
    ]


@both_transports
def test_an_outage_from_its_beginning_to_its_end(clusters: Clusters, tmp_path: Path) -> None:
    database = clusters.migrated()
    # Long enough for the calls at the beginning of the outage, however slow the machine.
    node = Node("one", database.url, tmp_path, AUTHZ_MAX_STALENESS_S="10")
    with running(node), connected(node) as stubs:
        seen = common_pb2.Consistency(at_least_as_fresh=write(stubs, 1))
        node.await_health(DIRECTORY, SERVING)
        database.stop("immediate")
        assert allowed(stubs, 1)
        assert allowed(stubs, 1, seen)
        assert listed(stubs) == (["m1"], ["maya"])
        for method, request in calls_that_need_the_database(stubs):
            failure = refused(partial(method, request, timeout=15))
            assert (failure.code, failure.reason) == (UNAVAILABLE, "STORE_UNAVAILABLE")
        node.await_health(DIRECTORY, NOT_SERVING)
        node.await_health(AUTHORIZATION, NOT_SERVING)
        for consistency in (None, seen):
            failure = refused(lambda asked=consistency: allowed(stubs, 1, asked))  # type: ignore[misc]  # bound now
            assert (failure.code, failure.reason) == (UNAVAILABLE, "TOO_STALE")
        database.start()
        node.await_health(AUTHORIZATION, SERVING)
        node.await_health(DIRECTORY, SERVING)
        assert allowed(stubs, 1)
        write(stubs, 2)
        assert allowed(stubs, 2)
        assert allowed(stubs, 2, FULLY)


@over_grpc
def test_health_is_that_of_checks_where_the_replica_is_another_database_s(
    sqlite_url: str, tmp_path: Path
) -> None:
    one = Node("one", sqlite_url, tmp_path)
    two = Node("two", create_sqlite(tmp_path / "two.db"), tmp_path, AUTHZ_REPLICA_DIR=str(one.replica))
    with running(one), connected(one) as stubs:
        write(stubs, 1)
        two.launch()
        try:
            two.await_health(AUTHORIZATION, NOT_SERVING)
            with connected(two) as other:
                assert refused(lambda: allowed(other, 1)).reason == "REPLICA_NOT_READY"
            two.await_health(DIRECTORY, SERVING)
            assert two.health(AUTHORIZATION) == NOT_SERVING
            one.kill()
            two.await_health(AUTHORIZATION, SERVING)
            with connected(two) as other:
                assert not allowed(other, 1)
                write(other, 1)
                assert allowed(other, 1)
        finally:
            two.kill()


@over_grpc
def test_servers_that_are_started_while_the_database_is_away(clusters: Clusters, tmp_path: Path) -> None:
    database = clusters.migrated()
    long = {"AUTHZ_MAX_STALENESS_S": "600"}
    one = Node("one", database.url, tmp_path, **long)
    many = Node("many", database.url, tmp_path, AUTHZ_WORKERS="2", **long)
    late = Node("late", database.url, tmp_path, AUTHZ_MAX_STALENESS_S="0.001")
    new = Node("new", database.url, tmp_path, **long)
    with running(one, many), connected(one) as stubs, connected(many) as other, connected(late) as third:
        seen = common_pb2.Consistency(at_least_as_fresh=write(stubs, 1))
        assert allowed(other, 1, seen)
        shutil.copytree(one.replica, late.replica)
        database.stop("immediate")
        try:
            for node in (one, many):
                node.kill()
            for node in (one, many, late, new):
                node.launch()
            for node, at in ((one, stubs), (many, other)):
                node.await_health(AUTHORIZATION, SERVING)
                assert allowed(at, 1)
                assert refused(lambda at=at: write(at, 2)).reason == "STORE_UNAVAILABLE"  # type: ignore[misc]  # bound now
                node.await_health(DIRECTORY, NOT_SERVING)
            late.await_health(AUTHORIZATION, NOT_SERVING)
            assert refused(lambda: allowed(third, 1)).reason == "TOO_STALE"
            assert new.process.wait(60) == 2
            assert "the database does not answer" in new.log.read_text()
            database.start()
            for node, at in ((one, stubs), (many, other)):
                node.await_health(DIRECTORY, SERVING)
                write(at, 2)
                assert allowed(at, 2)
            late.await_health(DIRECTORY, SERVING)
        finally:
            late.kill()


@over_grpc
def test_a_listener_that_is_cut_off_listens_again(clusters: Clusters, tmp_path: Path) -> None:
    database = clusters.migrated()
    node = Node("one", database.url, tmp_path)
    with running(node), connected(node) as stubs:
        for number in range(3):
            until(lambda: database.cut("LISTEN %") > 0, "nobody listens")
            with connected(node) as other:
                until(lambda at=number: answered(lambda: write(other, at)), "no write")  # type: ignore[misc]  # bound now
            until(lambda at=number: allowed(stubs, at), "the write does not arrive")  # type: ignore[misc]  # bound now


@contextmanager
def busy(path: Path) -> Iterator[None]:
    """Another program holds the write lock of a SQLite file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@over_grpc
def test_a_sqlite_file_that_another_program_writes_to_for_long(sqlite_url: str, tmp_path: Path) -> None:
    node = Node("one", f"{sqlite_url}?timeout=2", tmp_path)
    with running(node), connected(node) as stubs:
        write(stubs, 1)
        with busy(tmp_path / "authz.db"):
            failures: list[CallError] = []
            writing = threading.Thread(target=lambda: failures.append(refused(lambda: write(stubs, 2))))
            writing.start()
            while writing.is_alive():
                assert allowed(stubs, 1)
                assert allowed(stubs, 1, FULLY)
                time.sleep(0.05)
            writing.join()
            assert (failures[0].code, failures[0].reason) == (grpc.StatusCode.ABORTED, "WRITE_CONFLICT")
        write(stubs, 2)
        assert allowed(stubs, 2)


@over_grpc
@pytest.mark.parametrize("what", ["all of it", "what is served"])
def test_a_replica_that_is_deleted_while_servers_run_is_built_anew(
    sqlite_url: str, tmp_path: Path, what: str
) -> None:
    one = Node("one", sqlite_url, tmp_path)
    many = Node("many", sqlite_url, tmp_path, AUTHZ_WORKERS="2")
    with running(one, many), connected(one) as stubs:
        write(stubs, 1)
        for node in (one, many):
            for path in [node.replica] if what == "all of it" else node.replica.glob("[0-9]*"):
                shutil.rmtree(path)
        # One of the processes is new: it finds nothing but what the others have made anew.
        victim = many.workers()[-1]
        victim.kill()
        until(lambda: victim not in many.workers() and len(many.workers()) == 3, "nobody new")
        token = common_pb2.Consistency(at_least_as_fresh=write(stubs, 2))
        for node in (one, many):
            for _ in range(8):
                with connected(node) as each:
                    until(lambda at=each: answered(lambda: allowed(at, 2, token)), "no answer")  # type: ignore[misc]  # bound now
                    assert allowed(each, 2)
            assert any(path.name.isdigit() for path in node.replica.iterdir())
