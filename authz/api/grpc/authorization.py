"""AuthorizationService: questions about one resource, and batches of them.

The lists and plans are in `lists`, calls that combine several questions in `combined`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import starmap

from authz.api.call import Call
from authz.api.grpc.answers import note_actions, redacted
from authz.api.grpc.combined import CombinedCalls
from authz.api.grpc.lists import ListCalls
from authz.api.permissions import LEARN_REASONS, require_to_ask, require_to_learn, require_to_learn_all
from authz.domain.decisions import Question
from authz.domain.errors import InvalidArgumentError, UnusablePolicyError
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.engine.check import Checker
from authz.engine.explain import explain, unregistered_scopes
from authz.v1 import authorization_pb2 as pb
from authz.v1 import common_pb2
from authz.wire.decisions import actions_message, parse_check, parse_list_actions, require_no_consistency
from authz.wire.errors import status_of
from authz.wire.explain import explanation_message, parse_explain
from authz.wire.values import missing


@dataclass(frozen=True, eq=False, kw_only=True)
class AuthorizationServicer(ListCalls, CombinedCalls):
    """Answers questions. Knows no transport; errors go up to the pipeline."""

    service = pb.DESCRIPTOR.services_by_name["AuthorizationService"]

    async def Check(self, request: pb.CheckRequest, call: Call) -> pb.CheckResponse:
        """Decide one question."""
        question = parse_check(request)
        require_to_ask(call, question.action, question.purpose)
        snapshot, checker, now = await self.active.get(call.consistency, call.deadline)
        decision = self.shadow.check(checker, snapshot, question, now)
        response = pb.CheckResponse()
        self.answers.fill(response, call, question, decision, snapshot.token)
        return response

    async def BatchCheck(self, request: pb.BatchCheckRequest, call: Call) -> pb.BatchCheckResponse:
        """Decide many questions on one snapshot and at one instant."""
        if not request.items:
            raise missing("items")
        for action, purpose in {(each.action, each.purpose) for each in request.items}:
            require_to_ask(call, action, purpose)
        snapshot, checker, now = await self.active.get(call.consistency, call.deadline)
        token = snapshot.token
        response = pb.BatchCheckResponse()
        response.checked_at.token = token

        def add_result(position: int, item: pb.CheckRequest) -> None:
            result = response.results.add()
            try:
                require_no_consistency(item, position)
                question = parse_check(item)
                decision = self.shadow.check(checker, snapshot, question, now)
            except (InvalidArgumentError, UnusablePolicyError) as error:  # the latter is of one course alone
                result.error.CopyFrom(status_of(error))
            else:
                self.answers.fill(result.response, call, question, decision, token)

        await self.turns.collect(starmap(add_result, enumerate(request.items)))
        return response

    async def ListActions(self, request: pb.ListActionsRequest, call: Call) -> pb.ListActionsResponse:
        """Decide every action of a type on one resource."""
        question = parse_list_actions(request)
        require_to_learn_all(call, question.purpose)
        snapshot, checker, now = await self.active.get(call.consistency, call.deadline)
        return self._listed(checker, snapshot, question, now, call)

    def _listed(
        self, checker: Checker, snapshot: Snapshot, question: Question, now: Instant, call: Call
    ) -> pb.ListActionsResponse:
        found = self.shadow.list_actions(checker, snapshot, question, now)
        note_actions(call, question, found)
        answers = {action: redacted(decision, call) for action, decision in found.items()}
        return actions_message(answers, token=snapshot.token, policy_version=checker.version)

    async def BatchListActions(
        self, request: pb.BatchListActionsRequest, call: Call
    ) -> pb.BatchListActionsResponse:
        """Decide the actions of many resources on one snapshot and at one instant."""
        if not request.items:
            raise missing("items")
        for item in request.items:
            require_to_learn_all(call, item.purpose)
        snapshot, checker, now = await self.active.get(call.consistency, call.deadline)

        def result(position: int, item: pb.ListActionsRequest) -> pb.BatchListActionsResult:
            try:
                require_no_consistency(item, position)
                answer = self._listed(checker, snapshot, parse_list_actions(item), now, call)
            except (InvalidArgumentError, UnusablePolicyError) as error:
                return pb.BatchListActionsResult(error=status_of(error))
            return pb.BatchListActionsResult(response=answer)

        results = await self.turns.collect(starmap(result, enumerate(request.items)))
        token = common_pb2.ConsistencyToken(token=snapshot.token)
        return pb.BatchListActionsResponse(results=results, checked_at=token)

    async def Explain(self, request: pb.ExplainRequest, call: Call) -> pb.ExplainResponse:
        """Decide one question, and return what led to the answer."""
        question, as_of = parse_explain(request)
        call.require(LEARN_REASONS)  # an explanation tells what is registered, and where
        require_to_learn(call, question.action, question.purpose)
        snapshot, checker, now = await self.active.get(call.consistency, call.deadline)
        unregistered = unregistered_scopes(snapshot, question)  # a past state has the resource's alone
        if as_of is None or as_of >= now:
            token = snapshot.token
            explained = explain(checker, snapshot, question, now if as_of is None else as_of)
        else:
            explained, token = await self.past.ask(
                question,
                as_of,
                question.subject,
                snapshot,
                lambda snapshot, checker: explain(checker, snapshot, question, as_of),
            )
        decision_id = self.answers.decision_id(call, question, explained.decision)
        return explanation_message(explained, unregistered, checked_at=token, decision_id=decision_id)
