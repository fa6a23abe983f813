"""AuthorizationService: Check, BatchCheck, ListActions."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable

import structlog

from authz.api.grpc.calls import request_id_var
from authz.domain.decisions import MAX_BATCH_ITEMS, Decision, Question
from authz.domain.errors import AuthzError, ErrorReason, InvalidArgumentError
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.engine.check import Checker
from authz.engine.consistency import ConsistencyGate, Context
from authz.runtime.logs import is_debug_enabled
from authz.v1 import authorization_pb2 as pb
from authz.v1 import authorization_pb2_grpc, common_pb2
from authz.wire.decisions import (
    action_message,
    encode_verdict,
    parse_check,
    parse_list_actions,
    set_valid_until,
)
from authz.wire.errors import status_of

log = structlog.get_logger()


class AuthorizationServicer(authorization_pb2_grpc.AuthorizationServiceServicer):
    """Answers questions. Never calls `abort`: what is raised becomes a status in one place."""

    def __init__(self, checker: Checker, reading: ConsistencyGate, clock: Callable[[], Instant]) -> None:
        self.checker = checker
        """What decides from now on: taken once for each call, which is answered by one policy version."""
        self._reading = reading
        self._clock = clock
        self._id_prefix = secrets.token_hex(6)
        self._ids = itertools.count(1)

    async def Check(self, request: pb.CheckRequest, context: Context) -> pb.CheckResponse:
        """One question, one answer."""
        question = parse_check(request)

        def answer(snapshot: Snapshot) -> pb.CheckResponse:
            decision = self.checker.check(snapshot, question, self._clock())
            response = pb.CheckResponse()
            self._fill(response, question, decision, snapshot.token)
            return response

        # Nearly every question is one that need not wait.
        if request.HasField("consistency"):
            return await self._reading.read(request.consistency, context, answer)
        return answer(self._reading.snapshot())

    async def BatchCheck(self, request: pb.BatchCheckRequest, context: Context) -> pb.BatchCheckResponse:
        """Many questions on one snapshot and at one instant."""
        count = len(request.items)
        if not 1 <= count <= MAX_BATCH_ITEMS:
            raise InvalidArgumentError(
                ErrorReason.TOO_MANY_ITEMS if count else ErrorReason.MISSING_FIELD,
                f"items has {count} questions; send 1 to {MAX_BATCH_ITEMS}",
                field="items",
                limit=str(MAX_BATCH_ITEMS),
            )
        questions = [_parsed(item) for item in request.items]

        def answer_all(snapshot: Snapshot) -> tuple[str, list[Decision | AuthzError]]:
            checker, now = self.checker, self._clock()
            return snapshot.token, [_settle(checker, snapshot, q, now) for q in questions]

        token, outcomes = await self._reading.read(request.consistency, context, answer_all)
        response = pb.BatchCheckResponse()
        response.checked_at.token = token
        for question, outcome in zip(questions, outcomes, strict=True):
            result = response.results.add()
            if isinstance(question, AuthzError):
                result.error.CopyFrom(status_of(question))
            elif isinstance(outcome, AuthzError):
                result.error.CopyFrom(status_of(outcome))
            else:
                self._fill(result.response, question, outcome, token)
        return response

    async def ListActions(self, request: pb.ListActionsRequest, context: Context) -> pb.ListActionsResponse:
        """Every action of the type, with its answer."""
        question = parse_list_actions(request)

        checker = self.checker

        def answer_all(snapshot: Snapshot) -> tuple[str, dict[str, Decision]]:
            return snapshot.token, checker.list_actions(snapshot, question, self._clock())

        token, answers = await self._reading.read(request.consistency, context, answer_all)
        message = pb.ListActionsResponse(
            actions=[action_message(action, decision) for action, decision in answers.items()],
            checked_at=common_pb2.ConsistencyToken(token=token),
            policy_version=checker.policy.version,
        )
        edges = [d.valid_until for d in answers.values() if d.valid_until is not None]
        set_valid_until(message, min(edges, default=None))
        return message

    def _fill(self, response: pb.CheckResponse, question: Question, decision: Decision, token: str) -> None:
        decision_id = f"{self._id_prefix}-{next(self._ids)}"
        if is_debug_enabled():
            log.debug(
                "decision",
                decision_id=decision_id,
                request_id=request_id_var.get(),
                subject=str(question.subject),
                action=question.action,
                resource=str(question.resource),
                allowed=decision.allowed,
                reason=decision.reason.value,
                policy_version=decision.policy_version,
                revision=decision.revision,
            )
        response.MergeFromString(encode_verdict(decision.verdict, decision.policy_version, token))
        response.decision_id = decision_id
        if decision.valid_until is not None:
            set_valid_until(response, decision.valid_until)


def _parsed(item: pb.CheckRequest) -> Question | AuthzError:
    try:
        return parse_check(item)
    except InvalidArgumentError as error:
        return error


def _settle(
    checker: Checker, snapshot: Snapshot, question: Question | AuthzError, now: Instant
) -> Decision | AuthzError:
    if isinstance(question, AuthzError):
        return question
    try:
        return checker.check(snapshot, question, now)
    except InvalidArgumentError as error:
        return error
