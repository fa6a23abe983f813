"""Policies are published under load, by servers that are killed, and decide without the database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from authz.client import CallError, Client, check_request
from authz.v1 import authorization_pb2 as apb
from authz.v1.authorization_pb2_grpc import AuthorizationServiceStub
from tests.faults.postgresql import Clusters
from tests.faults.processes import AUTHORIZATION, CHANNEL_OPTIONS, DIRECTORY, Node, running
from tests.policies import CLOSED, SHIPPED
from tests.properties import LONG
from tests.runtime.test_server import campus_of
from tests.serving import over_grpc
from tests.waiting import until

pytestmark = over_grpc

PUBLICATIONS = 8 if LONG else 4
KILLED_AFTER_S = (0.0, 0.02, 0.05, 0.1, 0.2) if LONG else (0.02, 0.1)
CONNECTIONS = 6
"""To each server, so that each of its two workers gets one, nearly surely."""
PAUSE_S = 0.03
COURSES = (1, 2, 3)
CLOSES = "p, student, course:c{}, material, read, , deny"
OPENS = "p, teaching_assistant, course:c{}, material, publish, , allow"
QUESTION = check_request("user:maya", "read", "material:m1")


def asked(channel: grpc.Channel, token: str = "") -> set[tuple[int, bool]]:
    """The versions, and what they say, in the answers of one batch."""
    batch = apb.BatchCheckRequest(items=[QUESTION] * 50)
    if token:
        batch.consistency.at_least_as_fresh.token = token
    answer = AuthorizationServiceStub(channel).BatchCheck(batch, timeout=30)
    return {(int(each.response.policy_version), each.response.allowed) for each in answer.results}


def says(number: int) -> bool:
    """Every other version is closed, from the second on."""
    return number % 2 == 1


def course_files(course: int, number: int) -> dict[str, str]:
    """A version of the policy of a course. Every other one is closed, from the first on."""
    row = (CLOSES if number % 2 else OPENS).format(course)
    return {"course.csv": f"# {number}\n{row}\n"}


class Callers:
    """Threads that ask batch after batch until the end, and what was wrong in the answers."""

    def __init__(self, channels: list[grpc.Channel]) -> None:
        self.wrong: list[object] = []
        self.seen: set[int] = set()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(channel,)) for channel in channels]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, channel: grpc.Channel) -> None:
        newest = 0
        # Paused, or the callers would take the processors from the publications that they are to meet.
        while not self._ended.wait(PAUSE_S):
            try:
                answers = asked(channel)
            except grpc.RpcError as error:
                self.wrong.append(error)
                return
            ((number, allowed),) = answers if len(answers) == 1 else ((0, False),)
            if allowed is not says(number) or number < newest:
                self.wrong.append(answers)
            newest = number
            self.seen.add(number)


@contextmanager
def channels_to(nodes: list[Node]) -> Iterator[list[grpc.Channel]]:
    """Connections of their own to all workers of some servers."""
    channels = [
        grpc.insecure_channel(node.address, CHANNEL_OPTIONS) for node in nodes for _ in range(CONNECTIONS)
    ]
    try:
        yield channels
    finally:
        for channel in channels:
            channel.close()


def test_every_worker_of_two_servers_switches_at_once_and_mixes_nothing(
    store_url: str, tmp_path: Path
) -> None:
    # However busy the machine is, no worker is so late that it must refuse.
    given = {"AUTHZ_WORKERS": "2", "AUTHZ_REPLICATION_TIMEOUT_S": "30"}
    nodes = [Node(name, store_url, tmp_path, **given) for name in ("one", "two")]
    with (
        running(*nodes),
        channels_to(nodes) as loaded,
        channels_to(nodes) as fresh,
        Client(nodes[0].address, timeout_s=30) as one,
        Client(nodes[1].address, timeout_s=30) as two,
    ):
        one.write(campus_of(1))
        until(lambda: all(asked(channel) == {(1, True)} for channel in fresh), "the campus is not there")
        with Callers(loaded) as callers:
            for number in range(2, 2 + PUBLICATIONS):
                client = one if number % 3 else two
                published = client.policies.apply(SHIPPED if says(number) else CLOSED)
                assert published.number == number
                for channel in fresh:
                    assert asked(channel, published.written_at) == {(number, says(number))}
        assert not callers.wrong
        assert callers.seen >= {1, 1 + PUBLICATIONS}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_publish_that_is_killed_has_happened_or_has_not(
    sqlite_url: str, tmp_path: Path, workers: str
) -> None:
    node = Node("one", sqlite_url, tmp_path, AUTHZ_WORKERS=workers)
    acknowledged = 1
    for delay_s in KILLED_AFTER_S:
        with running(node):
            killer = threading.Timer(delay_s, node.kill)
            with Client(node.address, timeout_s=30) as client:
                client.write(campus_of(1))
                killer.start()
                try:
                    for number in range(100):
                        files = CLOSED | {"notes.txt": f"{delay_s} {number}"}
                        acknowledged = client.policies.apply(files).number
                except CallError:
                    pass
                finally:
                    killer.join()
        with running(node), Client(node.address, timeout_s=30) as client:
            versions = [version.number for version in client.policies.versions()]
            assert versions == list(range(1, len(versions) + 1))
            assert client.policies.active_number() == len(versions) >= acknowledged
            assert client.check("user:maya", "read", "material:m1").policy_version == str(len(versions))
            assert client.policies.files(len(versions)).keys() >= CLOSED.keys()


def test_a_publish_in_courses_that_is_killed_has_happened_or_has_not(store_url: str, tmp_path: Path) -> None:
    node = Node("one", store_url, tmp_path, AUTHZ_WORKERS="2")
    acknowledged = dict.fromkeys(COURSES, 0)

    def publish_next(client: Client) -> None:
        """In each course. What a killed publication has published is not published again."""
        for course in COURSES:
            number = acknowledged[course] + 1
            files = course_files(course, number)
            assert client.policies.apply(files, course_id=f"c{course}").number == number
            acknowledged[course] = number

    for delay_s in KILLED_AFTER_S:
        with running(node), Client(node.address, timeout_s=30) as client:
            for course in COURSES:
                client.write(campus_of(course))
            publish_next(client)
            killer = threading.Timer(delay_s, node.kill)
            killer.start()
            with suppress(CallError):
                while True:
                    publish_next(client)
            killer.join()
    with running(node), Client(node.address, timeout_s=30) as client:
        for course in COURSES:
            course_id = f"c{course}"
            active = client.policies.active_number(course_id=course_id)
            assert active in (acknowledged[course], acknowledged[course] + 1)
            versions = [version.number for version in client.policies.versions(course_id=course_id)]
            assert versions == list(range(1, active + 1))
            assert client.policies.files(active, course_id=course_id) == course_files(course, active)
            answer = client.check("user:maya", "read", f"material:m{course}")
            assert (answer.allowed, answer.course_policy_version) == (active % 2 == 0, str(active))


def test_without_the_database_the_active_version_decides_and_a_server_starts_with_it(
    clusters: Clusters, tmp_path: Path
) -> None:
    database = clusters.migrated()
    node = Node("one", database.url, tmp_path, AUTHZ_MAX_STALENESS_S="600")
    with running(node):
        with Client(node.address) as client:
            client.write(campus_of(1))
            client.policies.apply(CLOSED)
            database.stop("immediate")
            answer = client.check("user:maya", "read", "material:m1")
            assert (answer.allowed, answer.policy_version) == (False, "2")
            with pytest.raises(CallError) as caught:
                client.policies.apply(SHIPPED)
            # If the time ends within an attempt, how the attempt before failed is the cause.
            reasons = {getattr(each, "reason", "") for each in (caught.value, caught.value.__cause__)}
            assert "STORE_UNAVAILABLE" in reasons
        node.kill()
        node.start()
        with Client(node.address) as client:
            answer = client.check("user:maya", "read", "material:m1")
            assert (answer.allowed, answer.policy_version) == (False, "2")
        database.start()
        node.await_health(DIRECTORY, health_pb2.HealthCheckResponse.SERVING)
        with Client(node.address) as client:
            client.policies.roll_back(1)
            assert client.check("user:maya", "read", "material:m1").policy_version == "3"
        node.await_health(AUTHORIZATION, health_pb2.HealthCheckResponse.SERVING)
