"""One call of the API, as every step of the pipeline sees it."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TypeVar

import msgspec

from authz.access.authentication import Transport
from authz.access.permission import NO_RIGHTS, CallerRights
from authz.access.principal import UNAUTHENTICATED, Principal
from authz.domain.consistency import MINIMIZE_LATENCY, Consistency, Freshness
from authz.domain.decisions import Decision, Question
from authz.domain.errors import AuthzError, PermissionDeniedError
from authz.domain.origin import Origin

ResultT = TypeVar("ResultT")


def new_ids() -> Iterator[str]:
    """Ids that no other process gives."""
    return map(f"{secrets.token_hex(6)}-%d".__mod__, itertools.count(1))


class CallKind(StrEnum):
    """What a call costs. Each kind has a concurrency limit of its own: none can use up that of another."""

    DECISION = "checks"
    BATCH = "batches"
    LIST = "lists"
    READ = "reads"
    WRITE = "writes"
    IMPORT = "imports"
    WATCH = "watches"
    POLICY = "policy_calls"


_DECISIONS = "/authz.v1.AuthorizationService/"
_DECISION_KINDS = (CallKind.DECISION, CallKind.BATCH, CallKind.LIST)
_WRITER_KINDS = (CallKind.WRITE, CallKind.IMPORT, CallKind.POLICY)
_QUESTION_PERMISSIONS = ("", "check", "check_ai_process", "list_resources")
"""What a service needs to ask what somebody may do; empty where the question decides which."""

_CONDITION_METHODS = ("PlanResources",)
"""Methods whose answer says what would be allowed, so that nobody knows what was."""
_PAST_METHODS = ("Explain", "ListSubjects")
"""Methods with `as_of`: the past is in the database."""


@dataclass(frozen=True)
class Method:
    """What is called. `name` is `/<service>/<method>`, on every face."""

    name: str
    kind: CallKind
    permission: str = ""
    """What every caller of it needs; empty if that depends on the request, and the servicer asks for it."""
    server_streams: bool = False
    """Whether it answers many times, for as long as its client reads."""

    @cached_property
    def is_decision(self) -> bool:
        """Whether it asks what a subject may do. An answered decision leaves a log line only at level debug,
        because a server makes thousands a second. It is about its subject, not about its caller."""
        return self.kind in _DECISION_KINDS and self.name.startswith(_DECISIONS)

    @cached_property
    def reads_database(self) -> bool:
        """Whether it may wait for the database, however fresh its answer must be."""
        return not self.is_decision or self.short_name in _PAST_METHODS

    @cached_property
    def may_change(self) -> bool:
        """Whether it is of a kind of call that changes something."""
        return self.kind in _WRITER_KINDS

    @cached_property
    def short_name(self) -> str:
        """The name of the method, without the service."""
        return self.name.rpartition("/")[2]

    @cached_property
    def is_privileged(self) -> bool:
        """Whether it returns what a check does not, such as records, reasons, or who may do something."""
        if self.short_name in _CONDITION_METHODS:
            return True
        return not self.may_change and self.permission not in _QUESTION_PERMISSIONS


class AnsweredQuestion(msgspec.Struct, frozen=True, gc=False):
    """A question that a call has answered. `id` is the decision id in the answer, empty if it has none."""

    question: Question
    decision: Decision
    id: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """How a call ended: the name of its status code, and the reason of its error, if it had one.

    `cause` is what the operator alone may see of an error, such as the message of a driver; `ended_call` is
    that of the error.
    """

    code: str
    reason: str = ""
    cause: str = ""
    ended_call: bool = False


class Call(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A face makes it; the pipeline adds the principal, its rights and, where a log needs one, a request id.

    `request_id` is the one in the request, empty without one. `deadline` is on the clock of
    `time.monotonic`, in seconds; None for none. `decided` collects what the call decides, for the decision
    log; None without one. `require_permitted`, of a call that changes something, raises once the caller may
    no longer make it, or the person on whose behalf it is made; None for another. `person_requirements` are
    those that the person has met. `failure_details` add to the error of a call that fails what it has done.
    `refusal` has the first error for a record that the person may not write, of an import, which goes on.
    """

    method: Method
    transport: Transport
    request_id: str = ""
    deadline: float | None = None
    consistency: Consistency = MINIMIZE_LATENCY
    principal: Principal = UNAUTHENTICATED
    rights: CallerRights = NO_RIGHTS
    decided: list[AnsweredQuestion] | None = None
    require_permitted: Callable[[], Awaitable[None]] | None = None
    person_requirements: list[Callable[[], Awaitable[object]]] = []
    failure_details: list[Callable[[AuthzError], None]] = []
    refusal: list[PermissionDeniedError] = []

    @property
    def may_wait_for_database(self) -> bool:
        """Whether its answer may need the database. Other states than the head come from the replica."""
        return self.method.reads_database or self.consistency.freshness is Freshness.FULLY_CONSISTENT

    @property
    def asks_for_state(self) -> bool:
        """Whether it is answered in a state that may be later than the one in which its caller was permitted
        it."""
        return self.consistency.freshness is not Freshness.MINIMIZE_LATENCY

    def origin(self, reason: str) -> Origin:
        """The origin of what the call writes, for a reason."""
        return Origin(self.principal.actor, reason, self.request_id)

    def require(self, permission: str) -> None:
        """Raise `PermissionDeniedError` unless the caller has a permission that the request needs."""
        self.rights.require(permission, self.method.name)

    async def require_throughout(self, require: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Raise what `require` does about the person, now and for as long as the call waits for others.
        Returns what it returns now."""
        found = await require()
        self.person_requirements.append(require)
        return found
