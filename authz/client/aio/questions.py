"""The questions of a client: what may who do, what may they act upon, who may."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import TypeVar

from authz.client.aio.feed import CacheFeed
from authz.client.aio.lists import AsyncLists
from authz.client.aio.transport import Method
from authz.client.arguments import as_list, as_subject, message_of, sent_scope, sent_subject, sent_time
from authz.client.combined import SessionAccess, SourceAnswer, session_access_of, source_answer_of
from authz.client.errors import CallError, ItemFault, fault_of
from authz.client.explanations import Explanation, explanation_of
from authz.client.plans import ResourcePlan, plan_of
from authz.client.questions import (
    Answer,
    AskedResource,
    ResourceActions,
    actions_of,
    answer_of,
    as_question,
    check_request,
    name_of,
    query_of,
)
from authz.domain.errors import ErrorReason
from authz.domain.ids import Scope, Subject
from authz.domain.instants import Instant
from authz.v1 import authorization_pb2
from authz.wire.values import subject_message

T = TypeVar("T")

_STATE_MISSING = (ErrorReason.NOT_FRESH_ENOUGH, ErrorReason.MALFORMED_TOKEN)
"""Why a server lacks the state that the watch of another server has reported."""


class AsyncQuestions(AsyncLists):
    """The methods of a client that ask. Every call raises `CallError` if it fails, and
    `InvalidArgumentError` for an argument that cannot be sent."""

    _check: Method[authorization_pb2.CheckResponse]
    _feed: CacheFeed | None

    async def check(
        self,
        subject: str | Subject,
        action: str,
        resource: AskedResource,
        *,
        course_id: str | None = None,
        session_id: str | None = None,
        purpose: str = "",
        at_least_as_fresh: str = "",
        fully_consistent: bool = False,
    ) -> Answer:
        """May `user:maya` perform `read` on `notebook:nb-7`? For `create`, the resource is only the type.

        Give a whole `Resource` to describe one that is not registered, if the operator allows that for its
        type: `AUTHZ_INLINE_TYPES`. `course_id` and `session_id` state where the resource must be; an empty
        one raises `InvalidArgumentError`.
        """
        question = check_request(
            subject, action, resource, course_id=course_id, session_id=session_id, purpose=purpose
        )
        return await self.ask(
            question, at_least_as_fresh=at_least_as_fresh, fully_consistent=fully_consistent
        )

    async def ask(
        self,
        question: authorization_pb2.CheckRequest,
        *,
        at_least_as_fresh: str = "",
        fully_consistent: bool = False,
    ) -> Answer:
        """`check` with a question that `check_request` made."""
        question = as_question(question, field="question")
        has_demand = bool(at_least_as_fresh) or fully_consistent or question.HasField("consistency")
        if self._feed is not None and not has_demand:
            return await self._ask_or_remember(self._feed, question)
        return answer_of(await self._ask(self._check, question, at_least_as_fresh, fully_consistent))

    async def _ask_or_remember(self, feed: CacheFeed, question: authorization_pb2.CheckRequest) -> Answer:
        """The answer from the cache, or from the server, which the cache then stores."""
        feed.start()
        cache, encoded = feed.cache, question.SerializeToString(deterministic=True)
        found = cache.find(encoded)
        if found is not None:
            return found
        asking = cache.asking()
        if asking is not None:
            asked_at, least = asking
            try:
                answer = answer_of(await self._ask(self._check, question, least, False))
            except CallError as error:
                if error.reason not in _STATE_MISSING:
                    raise
            else:
                cache.keep(encoded, question, answer, asked_at)
                return answer
        return answer_of(await self._ask(self._check, question, "", False))

    async def batch_check(
        self,
        requests: Iterable[authorization_pb2.CheckRequest],
        *,
        at_least_as_fresh: str = "",
        fully_consistent: bool = False,
    ) -> list[Answer | ItemFault]:
        """Answers in the order of the requests. An invalid request gives an `ItemFault`.

        Each 1,000 are decided on one state, which is never older than that of the 1,000 before.
        """
        results = await self._batches(
            self._authorization.BatchCheck,
            [as_question(each, field="requests") for each in as_list(requests, field="requests")],
            lambda part: message_of(authorization_pb2.BatchCheckRequest, items=part),
            at_least_as_fresh,
            fully_consistent,
        )
        return [
            answer_of(result.response) if result.HasField("response") else fault_of(result.error)
            for result in results
        ]

    async def list_actions(
        self,
        subject: str | Subject,
        resource: AskedResource,
        *,
        course_id: str | None = None,
        session_id: str | None = None,
        purpose: str = "",
        at_least_as_fresh: str = "",
        fully_consistent: bool = False,
    ) -> ResourceActions:
        """Which actions of the resource's type the subject may perform, and why: `if actions["update"]`."""
        request = message_of(
            authorization_pb2.ListActionsRequest,
            subject=sent_subject(subject),
            resource=query_of(resource, course_id, session_id),
            purpose=purpose,
        )
        return actions_of(
            await self._ask(self._authorization.ListActions, request, at_least_as_fresh, fully_consistent)
        )

    async def batch_list_actions(
        self,
        subject: str | Subject,
        resources: Iterable[AskedResource],
        *,
        purpose: str = "",
        at_least_as_fresh: str = "",
        fully_consistent: bool = False,
    ) -> list[ResourceActions | ItemFault]:
        """`list_actions` of many resources, in their order, on states as those of `batch_check`. A resource
        that is not well-formed for the policy gives an `ItemFault`."""
        asker = sent_subject(subject)
        results = await self._batches(
            self._authorization.BatchListActions,
            [
                message_of(
                    authorization_pb2.ListActionsRequest,
                    subject=asker,
                    resource=query_of(resource),
                    purpose=purpose,
                )
                for resource in as_list(resources, field="resources")
            ],
            lambda part: message_of(authorization_pb2.BatchListActionsRequest, items=part),
            at_least_as_fresh,
            fully_consistent,
        )
        return [
            actions_of(result.response) if result.HasField("response") else fault_of(result.error)
            for result in results
        ]

    async def explain(
        self,
        subject: str | Subject,
        action: str,
        resource: AskedResource,
        *,
        course_id: str | None = None,
        session_id: str | None = None,
        purpose: str = "",
        as_of: dt.datetime | Instant | None = None,
        at_least_as_fresh: str = "",
        fully_consistent: bool = False,
    ) -> Explanation:
        """As `check`, with all that led to the answer, and for a denial what would allow it.

        `as_of` decides as of another time: a later one by the records and the policy as they are, an earlier
        one as they were then.
        """
        request = message_of(
            authorization_pb2.ExplainRequest,
            subject=sent_subject(subject),
            action=action,
            resource=query_of(resource, course_id, session_id),
            purpose=purpose,
            as_of=sent_time(as_of, field="as_of"),
        )
        return explanation_of(
            await self._ask(self._authorization.Explain, request, at_least_as_fresh, fully_consistent)
        )

    async def authorize_session(
        self,
        subject: str | Subject,
        session_id: str,
        *,
        at_least_as_fresh: str = "",
        fully_consistent: bool = False,
    ) -> SessionAccess:
        """What somebody may do in a live session, and until when. Falsy if they may not join."""
        asker = as_subject(subject)
        request = message_of(
            authorization_pb2.AuthorizeSessionRequest, subject=subject_message(asker), session_id=session_id
        )
        response = await self._ask(
            self._authorization.AuthorizeSession, request, at_least_as_fresh, fully_consistent
        )
        return session_access_of(response, str(asker), session_id)

    async def authorize_sources(
        self,
        subject: str | Subject,
        sources: Iterable[AskedResource],
        *,
        at_least_as_fresh: str = "",
        fully_consistent: bool = False,
    ) -> list[SourceAnswer]:
        """Which sources an AI response to somebody may be made from, on states as those of `batch_check`.

        used = [each.resource for each in await client.authorize_sources("user:maya", sources) if each]
        """
        asker, sources = sent_subject(subject), as_list(sources, field="sources")
        results = await self._batches(
            self._authorization.AuthorizeSources,
            [query_of(source) for source in sources],
            lambda part: message_of(authorization_pb2.AuthorizeSourcesRequest, subject=asker, sources=part),
            at_least_as_fresh,
            fully_consistent,
        )
        return [
            source_answer_of(result, name_of(source)) for result, source in zip(results, sources, strict=True)
        ]

    async def plan_resources(
        self,
        subject: str | Subject,
        action: str,
        type_name: str,
        *,
        scope: str | Scope | None = None,
        purpose: str = "",
        at_least_as_fresh: str = "",
        fully_consistent: bool = False,
    ) -> ResourcePlan:
        """What `list_resources` finds, as a condition on the fields of resources, to filter a table of yours.

        `authz.client.sql.where` makes it a clause of SQLAlchemy.
        """
        request = message_of(
            authorization_pb2.PlanResourcesRequest,
            subject=sent_subject(subject),
            action=action,
            type=type_name,
            scope=None if scope is None else sent_scope(scope),
            purpose=purpose,
        )
        return plan_of(
            await self._ask(self._authorization.PlanResources, request, at_least_as_fresh, fully_consistent),
            type_name,
        )
