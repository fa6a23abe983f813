"""ListResources and ListSubjects, a page on one snapshot with the token for the next; and PlanResources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import msgspec

from authz.api.call import AnsweredQuestion, Call
from authz.api.permissions import LEARN_REASONS, require_to_learn
from authz.domain.decisions import Decision, Question, Reason, Verdict
from authz.domain.ids import Subject, SubjectType
from authz.domain.instants import Instant
from authz.domain.lists import ListedResource, Position, ResourceQuery
from authz.domain.ports import Snapshot
from authz.domain.tokens import PageToken, TokenKeys, malformed_token, query_digest
from authz.engine.check import Checker
from authz.engine.lists import ListPage, ResourcePage, SubjectPage, types_to_list
from authz.engine.past import PastQuestions
from authz.engine.plan import Planner
from authz.engine.policies import ActiveChecker
from authz.engine.turns import LIGHT_SLICE, Turns
from authz.v1 import authorization_pb2 as pb
from authz.v1 import common_pb2
from authz.wire.decisions import REASONS, set_valid_until
from authz.wire.filters import parse_page
from authz.wire.lists import (
    PLAN_KINDS,
    add_subject,
    group_message,
    parse_list_resources,
    parse_list_subjects,
    parse_plan_resources,
    resources_message,
)

ItemT = TypeVar("ItemT")

_LISTED = Verdict(True, Reason.ROLE_GRANT)
_RESOURCE_PARTS, _SUBJECT_PARTS = 4, 2
"""Of a position in a list of resources, and of subjects."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ListCalls:
    """A part of `AuthorizationServicer`."""

    active: ActiveChecker
    past: PastQuestions
    turns: Turns
    keys: TokenKeys

    async def ListResources(self, request: pb.ListResourcesRequest, call: Call) -> pb.ListResourcesResponse:
        """List a page of the resources that a subject may act upon."""
        query, page_request = parse_list_resources(request), parse_page(request)
        require_to_learn(call, query.action, query.purpose)
        digest = query_digest("ListResources", query)
        snapshot, checker, now = await self.active.get(call.consistency, call.deadline)
        types = types_to_list(checker.policy.vocabulary, query.action, query.types)
        page = ResourcePage(
            checker,
            snapshot,
            now,
            msgspec.structs.replace(query, types=types),
            page_request.size,
            self._open(snapshot, page_request.token, digest, _RESOURCE_PARTS),
        )
        found = await self._page_items(page)
        response = resources_message(found)
        _note(call, query, found, Decision(_LISTED, checker.version, snapshot.revision))
        self._fill(response, call, snapshot, page, digest, token=snapshot.token, version=checker.version)
        return response

    async def ListSubjects(self, request: pb.ListSubjectsRequest, call: Call) -> pb.ListSubjectsResponse:
        """List a page of the subjects that may act upon a resource."""
        (question, as_of), page_request = parse_list_subjects(request), parse_page(request)
        require_to_learn(call, question.action, question.purpose)
        digest = query_digest("ListSubjects", question, as_of)
        snapshot, checker, now = await self.active.get(call.consistency, call.deadline)
        position = self._open(snapshot, page_request.token, digest, _SUBJECT_PARTS)
        after = Subject(SubjectType(position[0]), position[1]) if position else None
        response = pb.ListSubjectsResponse()
        if as_of is None or as_of >= now:
            at = now if as_of is None else as_of
            page = SubjectPage(checker, snapshot, at, question, page_request.size, after)
            found = await self._page_items(page)
            await self.turns.collect(map(partial(add_subject, response), found), slice_size=LIGHT_SLICE)
            token, version = snapshot.token, checker.version
        else:
            # In a thread, where it need not take turns.
            list_past = partial(_list_past_subjects, response, question, as_of, page_request.size, after)
            (page, version), token = await self.past.ask(question, as_of, None, snapshot, list_past)
        self._fill(response, call, snapshot, page, digest, token=token, version=version)
        return response

    async def PlanResources(self, request: pb.PlanResourcesRequest, call: Call) -> pb.PlanResourcesResponse:
        """Return what a subject may act upon, as a condition."""
        query = parse_plan_resources(request)
        require_to_learn(call, query.action, query.purpose)
        snapshot, checker, now = await self.active.get(call.consistency, call.deadline)
        types = types_to_list(checker.policy.vocabulary, query.action, query.types)
        query = msgspec.structs.replace(query, types=types)
        planner = Planner(checker, snapshot, now, query)
        await self.turns.collect(planner)
        groups = await self.turns.collect(map(group_message, planner.groups))
        response = pb.PlanResourcesResponse(
            kind=PLAN_KINDS.number(planner.kind),
            groups=groups,
            checked_at=common_pb2.ConsistencyToken(token=snapshot.token),
            policy_version=checker.version,
            reason=_reason(call, planner.unlisted),
        )
        set_valid_until(response, planner.valid_until)
        return response

    async def _page_items(self, page: ListPage[ItemT]) -> list[ItemT]:
        """The items of a page."""
        candidates = await self.turns.collect(page, slice_size=LIGHT_SLICE)
        return [each for each in candidates if each is not None]

    def _open(self, snapshot: Snapshot, token: str, query: str, parts: int) -> Position:
        if not token:
            return ()
        last = self.keys.verify_page(snapshot.state.database_id, token, query=query).last_key
        if len(last) != parts:
            raise malformed_token("page_token")
        return tuple(map(str, last))

    def _fill(
        self,
        response: Any,
        call: Call,
        snapshot: Snapshot,
        page: ListPage[Any],
        query: str,
        *,
        token: str,
        version: str,
    ) -> None:
        if page.position is not None:
            position = PageToken(query, page.position)
            response.next_page_token = self.keys.sign_page(snapshot.state.database_id, position)
        response.checked_at.CopyFrom(common_pb2.ConsistencyToken(token=token))
        response.policy_version = version
        response.reason = _reason(call, page.unlisted)
        set_valid_until(response, page.valid_until)


def _reason(call: Call, unlisted: Reason | None) -> Any:
    return REASONS.number(unlisted if call.rights.has(LEARN_REASONS) else None)


def _note(call: Call, query: ResourceQuery, found: Sequence[ListedResource], decision: Decision) -> None:
    """Note every resource of a list, because a program that shows the list has given access."""
    if call.decided is None:
        return
    for each in found:
        question = Question(
            query.subject, query.action, each.ref, each.course_id, each.session_id, purpose=query.purpose
        )
        call.decided.append(AnsweredQuestion(question, decision))


def _list_past_subjects(  # noqa: PLR0917  what is asked for, then what decides
    response: pb.ListSubjectsResponse,
    question: Question,
    as_of: Instant,
    size: int,
    after: Subject | None,
    snapshot: Snapshot,
    checker: Checker,
) -> tuple[SubjectPage, str]:
    page = SubjectPage(checker, snapshot, as_of, question, size, after)
    for each in page:
        if each is not None:
            add_subject(response, each)
    return page, checker.version
