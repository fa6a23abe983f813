"""A database that takes calls and never answers: no call waits for longer than it must, and each says why."""

from __future__ import annotations

import queue
import signal
from pathlib import Path

import grpc
import pytest

from authz.client import Client, check_request
from authz.client.errors import CallError, error_of
from authz.store.database.standby import WAITS_FOR_STANDBY
from authz.v1 import authorization_pb2, common_pb2, directory_pb2, policy_pb2
from authz.wire.entities import mutation_message
from tests.api.test_policies import messages
from tests.cli.commands import run
from tests.faults.postgresql import Clusters
from tests.faults.processes import AUTHORIZATION, DIRECTORY, PATIENCE_S, Node, running
from tests.faults.test_outage import (
    FULLY,
    NOT_SERVING,
    SERVING,
    UNAVAILABLE,
    allowed,
    answered,
    calls_that_need_the_database,
    connected,
    refused,
    write,
)
from tests.policies import with_rows
from tests.runtime.test_server import campus_of
from tests.serving import both_transports, over_grpc
from tests.waiting import until


def fully_consistent() -> authorization_pb2.CheckRequest:
    """A check that needs the database."""
    request = check_request("user:maya", "read", "material:m1")
    request.consistency.CopyFrom(FULLY)
    return request


@over_grpc
def test_a_database_that_takes_calls_and_never_answers(clusters: Clusters, tmp_path: Path) -> None:
    database = clusters.migrated()
    # No connection times out during the test.
    url = f"{database.url}?connect_timeout=60"
    patience = {"AUTHZ_MAX_STALENESS_S": "10", "AUTHZ_FRESHNESS_TIMEOUT_S": "60"}
    node = Node("one", url, tmp_path, **patience)
    with running(node), connected(node) as stubs:
        write(stubs, 1)
        with database.frozen():
            assert allowed(stubs, 1)
            # More of them than there are threads that ask the database.
            request = fully_consistent()
            held = [stubs.authorization.Check.future(request, timeout=60) for _ in range(8)]
            node.await_health(AUTHORIZATION, NOT_SERVING)
            assert not any(call.done() for call in held)
            node.await_health(DIRECTORY, NOT_SERVING)
            assert refused(lambda: allowed(stubs, 1)).reason == "TOO_STALE"
            with Client(node.address, timeout_s=2) as client, pytest.raises(CallError) as missed:
                client.current_token()
            assert (missed.value.code, missed.value.reason) == (UNAVAILABLE, "STORE_UNAVAILABLE")
            told = run("courses", "--address", node.address)
            assert (told.returncode, told.stdout) == (2, "")
            assert told.stderr == "error: the database does not answer; try again later\n"
        for call in held:
            failure = call.exception()
            assert failure is None or failure.code() is UNAVAILABLE
        node.await_health(AUTHORIZATION, SERVING)
        assert allowed(stubs, 1)
        write(stubs, 2)
        assert allowed(stubs, 2)


@over_grpc
def test_calls_that_need_a_database_that_hangs_use_up_no_limit_of_checks_that_do_not(
    clusters: Clusters, tmp_path: Path
) -> None:
    database = clusters.migrated()
    patience = {"AUTHZ_MAX_STALENESS_S": "600", "AUTHZ_FRESHNESS_TIMEOUT_S": "600"}
    # A client may have half of them.
    node = Node("one", f"{database.url}?connect_timeout=60", tmp_path, AUTHZ_MAX_CHECKS="8", **patience)
    with running(node), connected(node) as stubs:
        write(stubs, 1)
        request = fully_consistent()
        preview = policy_pb2.PreviewPolicyRequest(number=1)
        files = messages(with_rows("# why"))
        apply = policy_pb2.ApplyPolicyRequest(files=files)
        back = policy_pb2.RollBackPolicyRequest(number=1)
        validate = policy_pb2.ValidatePolicyRequest(files=files)
        publish = policy_pb2.PublishPolicyDraftRequest(id="mine", etag="1")
        with database.frozen():
            held = [stubs.authorization.Check.future(request, timeout=600) for _ in range(3)]
            # The query that they wait for has then been without an answer for longer than it may be.
            node.await_health(DIRECTORY, NOT_SERVING)
            past = authorization_pb2.ExplainRequest(
                subject=request.subject, action=request.action, resource=request.resource
            )
            past.as_of.GetCurrentTime()
            for call in (
                lambda: stubs.authorization.Check(request, timeout=600),
                lambda: stubs.authorization.Explain(past, timeout=600),
                lambda: list(stubs.policy.PreviewPolicy(preview, timeout=600)),
            ):
                for _ in range(10):
                    failure = refused(call)
                    assert (failure.code, failure.reason) == (UNAVAILABLE, "STORE_UNAVAILABLE")
            for call in (
                lambda: stubs.policy.ApplyPolicy(apply, timeout=10),
                lambda: stubs.policy.RollBackPolicy(back, timeout=10),
                lambda: stubs.policy.ValidatePolicy(validate, timeout=10),
                lambda: stubs.policy.PublishPolicyDraft(publish, timeout=10),
            ):
                failure = refused(call)
                assert failure.reason == "STORE_UNAVAILABLE"
                # Before the call has proved anything, and not shortly before its deadline.
                assert "it is unknown whether it did" not in failure.message
            assert allowed(stubs, 1)
            assert not any(each.done() for each in held)
        for each in held:
            each.exception()
        until(lambda: answered(lambda: allowed(stubs, 1, FULLY)), "no check")


@over_grpc
def test_a_check_waits_for_a_database_that_hangs_no_longer_than_the_setting_says(
    clusters: Clusters, tmp_path: Path
) -> None:
    database = clusters.migrated()
    patience = {"AUTHZ_MAX_STALENESS_S": "600", "AUTHZ_FRESHNESS_TIMEOUT_S": "0.5"}
    node = Node("one", f"{database.url}?connect_timeout=60", tmp_path, **patience)
    with running(node), connected(node) as stubs:
        write(stubs, 1)
        request = fully_consistent()
        with database.frozen():
            failure = refused(lambda: stubs.authorization.Check(request, timeout=600))
        assert (failure.code, failure.reason) == (UNAVAILABLE, "STORE_UNAVAILABLE")


@over_grpc
def test_a_write_that_waits_for_a_standby_which_is_away_is_told_so(
    clusters: Clusters, tmp_path: Path
) -> None:
    database = clusters.migrated()
    node = Node("one", database.url, tmp_path)
    with running(node), connected(node) as stubs:
        write(stubs, 1)
        database.configure("synchronous_standby_names", "absent")
        request = directory_pb2.WriteRequest(mutations=map(mutation_message, campus_of(2)))
        failure = refused(lambda: stubs.directory.Write(request, timeout=10))
        assert (failure.code, failure.reason) == (UNAVAILABLE, "STORE_UNAVAILABLE")
        assert failure.message.startswith(WAITS_FOR_STANDBY)
        assert "it is unknown whether it did" in failure.message
        node.await_health(DIRECTORY, NOT_SERVING)
        assert WAITS_FOR_STANDBY in node.log.read_text()
        assert allowed(stubs, 1)
        assert allowed(stubs, 1, FULLY)
        database.configure("synchronous_standby_names", "")
        node.await_health(DIRECTORY, SERVING)
        # It was committed, and nothing had acknowledged it.
        assert allowed(stubs, 2, FULLY)


@both_transports
def test_a_call_that_waits_for_a_database_that_hangs_is_told_so_before_its_deadline(
    clusters: Clusters, tmp_path: Path
) -> None:
    database = clusters.migrated()
    node = Node("one", f"{database.url}?connect_timeout=60", tmp_path, AUTHZ_MAX_STALENESS_S="600")
    with running(node), connected(node) as stubs:
        seen = common_pb2.Consistency(at_least_as_fresh=write(stubs, 1))
        with database.frozen():
            node.await_health(DIRECTORY, NOT_SERVING)
            waiting = [
                (method.future(request, timeout=3), method)
                for method, request in calls_that_need_the_database(stubs)
            ]
            assert allowed(stubs, 1)
            assert allowed(stubs, 1, seen)
            failures = {
                method._method.decode().rpartition("/")[2]: error_of(call.exception())
                for call, method in waiting
            }
        unknown = [
            name for name, failure in failures.items() if "it is unknown whether it did" in failure.message
        ]
        assert unknown == ["Write"]
        for name, failure in failures.items():
            assert (failure.code, failure.reason) == (UNAVAILABLE, "STORE_UNAVAILABLE"), name
            assert failure.message.startswith("the database does not answer; try again later"), name
            assert failure.retry_after_s > 0, name
        until(lambda: answered(lambda: write(stubs, 2)), "no write")


@both_transports
def test_an_import_that_a_hang_ends_says_how_much_it_has_written(clusters: Clusters, tmp_path: Path) -> None:
    database = clusters.migrated()
    node = Node("one", f"{database.url}?connect_timeout=60", tmp_path, AUTHZ_MAX_STALENESS_S="600")
    with running(node), connected(node) as stubs:
        sent: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        messages = (
            directory_pb2.ImportRequest(mutations=map(mutation_message, campus_of(number)))
            for number in iter(sent.get, None)
        )
        importing = stubs.directory.Import.future(messages, timeout=15)
        for number in (1, 2):
            sent.put(number)
            until(lambda at=number: allowed(stubs, at), "nothing is imported")  # type: ignore[misc]  # bound now
        # The first has been counted by now. Of the second it may be unknown whether it is committed.
        with database.frozen():
            sent.put(3)
            failure = error_of(importing.exception())
        sent.put(None)
        assert (failure.code, failure.reason) == (UNAVAILABLE, "STORE_UNAVAILABLE")
        written = failure.metadata["written"]
        assert written in {"3", "6"}
        assert "may be committed: import again; the import ended here" in failure.message
        assert f"what came before stays: written {written}" in failure.message


@both_transports
def test_a_deadline_that_passes_while_the_database_answers_is_a_deadline(
    clusters: Clusters, tmp_path: Path
) -> None:
    database = clusters.migrated()
    node = Node("one", database.url, tmp_path)
    with running(node), connected(node) as stubs, database.connect() as other:
        write(stubs, 1)
        node.await_health(DIRECTORY, SERVING)
        with other.transaction():
            other.execute("SELECT 1 FROM counter FOR UPDATE")
            campus = directory_pb2.WriteRequest(mutations=map(mutation_message, campus_of(2)))
            missed = refused(lambda: stubs.directory.Write(campus, timeout=2))
            assert (missed.code, missed.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "")
            assert allowed(stubs, 1, FULLY)
            node.await_health(DIRECTORY, SERVING)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_does_not_wait_for_a_database_that_never_answers(
    clusters: Clusters, tmp_path: Path, workers: str
) -> None:
    database = clusters.migrated()
    # No connection times out during the test.
    url = f"{database.url}?connect_timeout=600"
    patience = {"AUTHZ_STOP_GRACE_S": "3", "AUTHZ_MAX_STALENESS_S": "600", "AUTHZ_FRESHNESS_TIMEOUT_S": "600"}
    patience["AUTHZ_LOG_LEVEL"] = "info"
    node = Node("one", url, tmp_path, AUTHZ_WORKERS=workers, **patience)
    with running(node), connected(node) as stubs:
        write(stubs, 1)
        node.await_health(DIRECTORY, SERVING)
        with database.frozen():
            fully = fully_consistent()
            # More than there are connections: some wait for one.
            held = [stubs.authorization.Check.future(fully, timeout=300) for _ in range(8)]
            campus = directory_pb2.WriteRequest(mutations=map(mutation_message, campus_of(2)))
            held += [stubs.directory.Write.future(campus, timeout=300) for _ in range(2)]
            # A probe of the database is waiting by then, too.
            node.await_health(DIRECTORY, NOT_SERVING)
            assert allowed(stubs, 1)
            node.process.send_signal(signal.SIGTERM)
            until(lambda: '"event":"stopping"' in node.log.read_text(), "the stop does not begin")
            assert not any(call.done() for call in held)
            assert node.process.wait(PATIENCE_S) == 0
            assert not any(answered(call.result) for call in held)
