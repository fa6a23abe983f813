"""Whoever hangs in a family of workers is replaced, and who was only stopped for a while is left alone."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import grpc
import psutil

from authz.client import CallError, Client, check_request
from authz.client.errors import error_of
from authz.domain.entities import MembershipFilter
from authz.domain.mutations import Mutation, Operation
from authz.runtime.liveness import BEAT_INTERVAL_S, MAX_MISSED_BEATS
from authz.v1 import common_pb2 as pb
from authz.v1.authorization_pb2_grpc import AuthorizationServiceStub
from tests.runtime.test_server import campus_of
from tests.runtime.test_supervise import alive, children, follower, metrics, served_alike
from tests.serving import over_grpc, serving
from tests.waiting import suspend, until


def test_whoever_hangs_is_replaced_and_counted(sqlite_url: str, free_port: int) -> None:
    exported = f"127.0.0.1:{free_port}"
    with serving(sqlite_url, AUTHZ_WORKERS="2", AUTHZ_METRICS_ADDRESS=exported) as (process, address):
        with Client(address) as client:
            client.write(campus_of(1))
        hung = children(process)
        assert len(hung) == 3
        suspend(*hung)
        until(lambda: len(set(children(process)) - set(hung)) == 3, "they were not replaced")
        assert not alive(hung)
        until(lambda: served_alike(address, allowed=True), "the service did not come back")
        restarts = {name: value for name, value in metrics(exported).items() if "restarts_total" in name}
        assert restarts == {
            f'authz_process_restarts_total{{cause="{cause}",process="{name}"}}': count
            for name in ("follower", "worker-0", "worker-1")
            for cause, count in (("hung", 1), ("ended", 0))
        }


def test_a_supervisor_that_was_stopped_with_its_children_kills_none(sqlite_url: str) -> None:
    with serving(sqlite_url, AUTHZ_WORKERS="2") as (process, address):
        with Client(address) as client:
            client.write(campus_of(1))
        family = children(process)
        together = [psutil.Process(process.pid), *family]
        suspend(*together)
        time.sleep((MAX_MISSED_BEATS + 3) * BEAT_INTERVAL_S)
        for each in together:
            each.resume()
        time.sleep(2 * BEAT_INTERVAL_S)
        assert children(process) == family
        until(lambda: served_alike(address, allowed=True), "the service did not come back")


@over_grpc
def test_a_restored_database_is_not_hidden_by_a_follower_that_hangs(sqlite_url: str, tmp_path: Path) -> None:
    backup = sqlite3.connect(tmp_path / "backup.db")
    with serving(sqlite_url, AUTHZ_WORKERS="2") as (process, address), Client(address) as client:
        client.write(campus_of(1))
        live = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
        live.backup(backup)
        for number in range(2, 8):
            client.write(campus_of(number))
        hung = follower(children(process))
        suspend(hung)
        backup.backup(live)
        live.close()
        lost = check_request("user:maya", "read", "material:m7")
        assert client.ask(lost).allowed  # by the replica, which cannot know yet
        try:
            assert not client.ask(lost, fully_consistent=True).allowed
        except CallError as failure:
            assert failure.reason == "NOT_FRESH_ENOUGH"
        (maya,) = (each.entity.key for each in client.read(MembershipFilter()))
        token = client.write([Mutation(Operation.DELETE, maya)])
        question = check_request("user:maya", "read", "material:m1")
        with grpc.insecure_channel(address) as channel:
            stub = AuthorizationServiceStub(channel)

            def denied() -> bool:
                """Until the follower is replaced, checks are refused; nobody is let in."""
                try:
                    assert not stub.Check(question, timeout=15).allowed
                except grpc.RpcError as failure:
                    assert error_of(failure).reason in ("NOT_FRESH_ENOUGH", "REPLICA_NOT_READY")
                    return False
                return True

            for consistency in (
                pb.Consistency(),
                pb.Consistency(at_least_as_fresh=pb.ConsistencyToken(token=token)),
                pb.Consistency(fully_consistent=True),
            ):
                question.consistency.CopyFrom(consistency)
                denied()
            until(denied, "checks are refused forever")
        assert hung not in children(process)
    backup.close()
