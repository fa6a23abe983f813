"""Clients that grant, revoke and check at once, and write down what they did and were told."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import grpc

from authz.client import check_request
from authz.client.errors import error_of
from authz.domain.entities import (
    Course,
    CourseState,
    Entity,
    Membership,
    MembershipKey,
    MembershipStatus,
    Resource,
)
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Change, Mutation, Operation
from authz.store import Store
from authz.v1 import authorization_pb2_grpc, directory_pb2, directory_pb2_grpc, policy_pb2_grpc
from authz.wire.entities import mutation_message
from tests.faults.history import Cell, Check, Consistency, Event, History, Logged, Outcome, Write
from tests.faults.processes import CHANNEL_OPTIONS, Node
from tests.properties import LONG
from tests.store.directory import changes_of
from tests.tokens import state_of
from tests.waiting import until

COURSES = ("c0", "c1")
USERS = ("u0", "u1", "u2")
CELLS: tuple[Cell, ...] = tuple((user, course) for user in USERS for course in COURSES)

_TIMEOUT_S = 1.5
_PAUSE_S = 0.02
_THINK_S = 0.005 if LONG else 0.02
"""Between calls, so that the servers under test get their share of a small machine."""
_UNKNOWN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class Stubs:
    """One client's connection to one server."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.channel = grpc.insecure_channel(address, CHANNEL_OPTIONS)
        self.authorization: Any = authorization_pb2_grpc.AuthorizationServiceStub(self.channel)
        self.directory: Any = directory_pb2_grpc.DirectoryServiceStub(self.channel)
        self.policy: Any = policy_pb2_grpc.PolicyServiceStub(self.channel)


class Load:
    """A context manager: inside, clients are at work against all of the servers."""

    def __init__(self, nodes: Sequence[Node], *, writers: int = 3, checkers: int = 3) -> None:
        self._nodes = nodes
        self._events: dict[str, list[Event]] = {}
        self._faults: list[str] = []
        self._tokens: deque[tuple[int, str]] = deque(maxlen=16)
        self._stopped = threading.Event()
        clients: list[tuple[str, Callable[..., None]]] = [
            *((f"writer-{n}", self._write) for n in range(writers)),
            *((f"checker-{n}", self._check) for n in range(checkers)),
        ]
        self._threads = [
            threading.Thread(target=self._work, args=client, name=client[0]) for client in clients
        ]
        self._events = {name: [] for name, _ in clients}
        self._base = -1

    def __enter__(self) -> Load:
        """Register the courses, and begin."""
        self._base = self._prepare()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let each client end its call, and stop."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def go_on(self, *, writes: int = 0, checks: int = 0, refused: int = 0) -> None:
        """Return after so many more acknowledged writes, answered checks, and writes that were not.

        From each server checks come, and to each one writes go.
        """
        self._go_on(self._nodes, writes, checks, refused)

    def go_on_at(self, node: Node, *, writes: int = 0, checks: int = 0) -> None:
        """The same of one server alone."""
        self._go_on([node], writes, checks, 0)

    def _go_on(self, nodes: Sequence[Node], writes: int, checks: int, refused: int) -> None:
        before = self._counts()
        wanted: dict[tuple[str, str, bool], int] = {
            **{("write", node.name, True): writes for node in nodes},
            **{("write", node.name, False): refused for node in nodes},
            **{(Consistency.MINIMIZE_LATENCY, node.name, True): checks for node in nodes},
            **{(Consistency.FULLY_CONSISTENT, node.name, False): refused for node in nodes},
        }

        def done() -> bool:
            now = self._counts()
            return bool(self._faults) or all(
                now.get(key, 0) - before.get(key, 0) >= count for key, count in wanted.items()
            )

        until(done, f"no more {wanted}")
        assert not self._faults, self._faults

    def history(self, store: Store) -> History:
        """What happened, with the change log as it is now."""
        assert not self._faults, self._faults
        log: list[Logged] = []
        while changes := changes_of(store, log[-1].revision if log else self._base, 1000):
            log += map(logged, changes)
        return History([event for events in self._events.values() for event in events], log, self._base)

    def _counts(self) -> dict[tuple[str, str, bool], int]:
        counts: dict[tuple[str, str, bool], int] = {}
        for events in self._events.values():
            for event in list(events):
                kind = event.consistency if isinstance(event, Check) else "write"
                key = (kind, event.server, event.outcome is Outcome.OK)
                counts[key] = counts.get(key, 0) + 1
        return counts

    def _prepare(self) -> int:
        entities: list[Entity] = []
        for course in COURSES:
            entities.append(Course(id=course, state=CourseState.ACTIVE))
            entities.append(
                Resource(type="material", id=f"m-{course}", scope=course_scope(course), published=True)
            )
        register = directory_pb2.WriteRequest(
            mutations=[mutation_message(Mutation(Operation.TOUCH, entity)) for entity in entities]
        )
        with grpc.insecure_channel(self._nodes[0].address, CHANNEL_OPTIONS) as channel:
            written = directory_pb2_grpc.DirectoryServiceStub(channel).Write(
                register, timeout=60, wait_for_ready=True
            )
        token = written.written_at.token
        # Histories begin here: no server is to answer of what was before.
        request = check_request("user:nobody", "read", f"material:m-{COURSES[0]}")
        request.consistency.at_least_as_fresh.token = token
        for node in self._nodes:
            with grpc.insecure_channel(node.address, CHANNEL_OPTIONS) as channel:
                check = authorization_pb2_grpc.AuthorizationServiceStub(channel).Check
                # A connection that a busy machine is late to take is tried again, as any client would.
                check(request, timeout=60, wait_for_ready=True)
        revision = state_of(token).revision
        self._tokens.append((revision, token))
        return revision

    def _work(self, name: str, step: Callable[..., None]) -> None:
        choose = random.Random(name)
        servers = [Stubs(node.name, node.address) for node in self._nodes]
        number = 0
        try:
            while not self._stopped.is_set():
                number += 1
                step(name, number, servers, choose)
                time.sleep(_THINK_S)
        except BaseException as error:
            self._faults.append(f"{name}: {error!r}")
            raise
        finally:
            for server in servers:
                server.channel.close()

    def _write(self, name: str, number: int, servers: list[Stubs], choose: random.Random) -> None:
        """One move, sent again under its idempotency key for as long as nobody knows what became of it."""
        cell, grants, move = choose.choice(CELLS), choose.random() < 0.5, f"{name}-{number}"
        request = directory_pb2.WriteRequest(
            mutations=_mutations(name, number, cell, grants=grants, deletes=choose.random() < 0.5),
            reason=move,
            idempotency_key=move,
        )
        invoked_at_ns, outcome, revision, error = time.monotonic_ns(), Outcome.FAILED, -1, ""
        again = True
        while again:
            server = choose.choice(servers)
            try:
                token = server.directory.Write(request, timeout=_TIMEOUT_S).written_at.token
                outcome, revision = Outcome.OK, state_of(token).revision
                self._tokens.append((revision, token))
            except grpc.RpcError as failure:
                error = _told(failure)
                if failure.code() in _UNKNOWN:
                    outcome = Outcome.UNKNOWN
                elif failure.code() is not grpc.StatusCode.ABORTED:
                    raise
                time.sleep(_PAUSE_S)
            again = outcome is Outcome.UNKNOWN and not self._stopped.is_set() and choose.random() < 0.7
        self._events[name].append(
            Write(
                client=name,
                server=server.name,
                invoked_at_ns=invoked_at_ns,
                returned_at_ns=time.monotonic_ns(),
                cell=cell,
                outcome=outcome,
                error=error,
                move=move,
                grants=grants,
                revision=revision,
            )
        )

    def _check(self, name: str, _number: int, servers: list[Stubs], choose: random.Random) -> None:
        cell, server, consistency = choose.choice(CELLS), choose.choice(servers), choose.choice(_ASKED)
        request = check_request(f"user:{cell[0]}", "read", f"material:m-{cell[1]}")
        revision = -1
        if consistency is Consistency.AT_LEAST_AS_FRESH:
            revision, request.consistency.at_least_as_fresh.token = choose.choice(list(self._tokens))
        elif consistency is Consistency.FULLY_CONSISTENT:
            request.consistency.fully_consistent = True
        allowed, checked_at, outcome, error = False, -1, Outcome.OK, ""
        invoked_at_ns = time.monotonic_ns()
        try:
            answer = server.authorization.Check(request, timeout=_TIMEOUT_S)
            returned_at_ns = time.monotonic_ns()
            token = answer.checked_at.token
            allowed, checked_at = answer.allowed, state_of(token).revision
            self._tokens.append((checked_at, token))
        except grpc.RpcError as failure:
            returned_at_ns = time.monotonic_ns()
            outcome, error = Outcome.UNKNOWN, _told(failure)
            if failure.code() not in _UNKNOWN:
                raise
            time.sleep(_PAUSE_S)
        self._events[name].append(
            Check(
                client=name,
                server=server.name,
                invoked_at_ns=invoked_at_ns,
                returned_at_ns=returned_at_ns,
                cell=cell,
                outcome=outcome,
                error=error,
                consistency=consistency,
                token=revision,
                allowed=allowed,
                checked_at=checked_at,
            )
        )


_ASKED = (
    Consistency.MINIMIZE_LATENCY,
    Consistency.MINIMIZE_LATENCY,
    Consistency.AT_LEAST_AS_FRESH,
    Consistency.FULLY_CONSISTENT,
)


def logged(change: Change) -> Logged:
    """What a revision says of memberships."""
    effects: dict[Cell, bool] = {}
    for mutation in change.mutations:
        key, target = mutation.key, mutation.target
        if isinstance(key, MembershipKey):
            active = isinstance(target, Membership) and target.status is MembershipStatus.ACTIVE
            gives = mutation.operation is not Operation.DELETE and active
            effects[key.subject.id, key.scope.id] = gives
    return Logged(change.revision, change.reason, effects)


def _mutations(name: str, number: int, cell: Cell, *, grants: bool, deletes: bool) -> list[Any]:
    """A grant or one of the two ways to revoke; and a nonce of its own, so that each write is a change."""
    membership = Membership(
        subject=parse_subject(f"user:{cell[0]}"),
        scope=course_scope(cell[1]),
        role="student",
        status=MembershipStatus.ACTIVE if grants else MembershipStatus.SUSPENDED,
        source_ref=f"{name}-{number}",
    )
    nonce = Resource(type="material", id=f"nonce-{name}", scope=course_scope("c0"), created_at=number)
    delete = deletes and not grants
    return [
        mutation_message(
            Mutation(Operation.DELETE, membership.key) if delete else Mutation(Operation.TOUCH, membership)
        ),
        mutation_message(Mutation(Operation.TOUCH, nonce)),
    ]


def _told(failure: grpc.RpcError) -> str:
    error = error_of(failure)
    return f"{error.code.name} {error.reason}"
