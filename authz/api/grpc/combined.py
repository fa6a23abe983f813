"""Calls that ask several questions at once: about a live session, and for an AI request.

All questions of a call are decided on one snapshot and at one instant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from authz.api.call import Call
from authz.api.grpc.answers import Answers, note_actions
from authz.domain.decisions import AI_PROCESS, JOIN, Decision, Question
from authz.domain.entities import Session, SessionKey
from authz.domain.errors import InvalidArgumentError, UnusablePolicyError
from authz.domain.facts import PURPOSE_AI_RESPONSE
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.engine.check import Checker
from authz.engine.policies import ActiveChecker
from authz.engine.shadow_runner import ShadowRunner
from authz.engine.turns import Turns
from authz.v1 import authorization_pb2 as pb
from authz.wire.decisions import parse_session, parse_sources, set_valid_until
from authz.wire.errors import status_of

_IN_SESSION = ("present", "moderate", "record")
_AI_REQUEST_QUESTIONS = (("read", ""), (AI_PROCESS, PURPOSE_AI_RESPONSE))
"""The subject of an AI response must be allowed to read each source, and the source must be open to AI."""


@dataclass(frozen=True, eq=False, kw_only=True)
class CombinedCalls:
    """A part of `AuthorizationServicer`."""

    active: ActiveChecker
    shadow: ShadowRunner
    turns: Turns
    answers: Answers

    async def AuthorizeSession(
        self, request: pb.AuthorizeSessionRequest, call: Call
    ) -> pb.AuthorizeSessionResponse:
        """Decide what a subject may do in a live session, and until when."""
        question = parse_session(request)
        snapshot, checker, now = await self.active.get(call.consistency, call.deadline)
        joining = msgspec.structs.replace(question, action=JOIN)
        found = self.shadow.list_actions(checker, snapshot, question, now)
        join = found[JOIN] if JOIN in found else checker.check(snapshot, joining, now)
        response = pb.AuthorizeSessionResponse()
        self.answers.fill(response.join, call, joining, join, snapshot.token)
        if not join.allowed:  # all that depends on it changes with it
            set_valid_until(response, join.valid_until)
            return response
        in_session = {each: found[each] for each in _IN_SESSION if each in found and found[each].allowed}
        for action in _IN_SESSION:
            setattr(response, f"may_{action}", action in in_session)
        if in_session:
            note_actions(call, question, in_session)
        session = snapshot.record(SessionKey(question.resource.id))
        if isinstance(session, Session):
            response.course_id = session.course_id or ""
            if session.ends_at is not None:
                response.ends_at.FromMicroseconds(session.ends_at)
        set_valid_until(
            response, _earliest(found[each].valid_until for each in (JOIN, *_IN_SESSION) if each in found)
        )
        return response

    async def AuthorizeSources(
        self, request: pb.AuthorizeSourcesRequest, call: Call
    ) -> pb.AuthorizeSourcesResponse:
        """Decide which of several sources an AI response to a subject may be made from."""
        sources = parse_sources(request)
        snapshot, checker, now = await self.active.get(call.consistency, call.deadline)
        response = pb.AuthorizeSourcesResponse()
        response.checked_at.token = snapshot.token
        changes_at: list[Instant | None] = []

        def add(source: Question | InvalidArgumentError) -> None:
            result = response.results.add()
            try:
                question, decision = self._of_source(checker, snapshot, source, now)
            except (InvalidArgumentError, UnusablePolicyError) as error:
                result.error.CopyFrom(status_of(error))
                return
            self.answers.fill(result.response, call, question, decision, snapshot.token)
            changes_at.append(decision.valid_until)
            if not decision.allowed:
                result.denied_action = question.action

        await self.turns.collect(map(add, sources))
        set_valid_until(response, _earliest(changes_at))
        return response

    def _of_source(
        self, checker: Checker, snapshot: Snapshot, source: Question | InvalidArgumentError, now: Instant
    ) -> tuple[Question, Decision]:
        """The first denied question, else the last, with its answer, which is valid while all are."""
        if isinstance(source, InvalidArgumentError):
            raise source
        earliest: list[Instant | None] = []
        for action, purpose in _AI_REQUEST_QUESTIONS:
            question = msgspec.structs.replace(source, action=action, purpose=purpose)
            decision = self.shadow.check(checker, snapshot, question, now)
            earliest.append(decision.valid_until)
            if not decision.allowed:
                return question, decision
        return question, msgspec.structs.replace(decision, valid_until=_earliest(earliest))


def _earliest(times: Iterable[Instant | None]) -> Instant | None:
    return min((each for each in times if each is not None), default=None)
