"""What a route requires before it serves: a question with places that a request fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any

import grpc
import msgspec

from authz.client.aio.client import AsyncClient
from authz.client.errors import CallError
from authz.client.questions import Answer, check_request, query_of
from authz.domain.errors import InvalidArgumentError
from authz.v1.authorization_pb2 import CheckRequest

_UNDECIDED = {
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
}
"""Nobody knows the answer now. Any other error is a mistake in the application, such as an unknown action."""


class RefusedError(Exception):
    """The request is not served. `str(error)` may be shown to its sender.

    `status` is that of HTTP: 403 not allowed, 404 no such id can exist, 503 it cannot be decided now.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """A question of which parts are taken from the path: `resource="notebook:{notebook_id}"`."""

    action: str
    resource: str
    course: str = ""
    session: str = ""
    purpose: str = ""

    def __post_init__(self) -> None:
        """Raise `InvalidArgumentError` for a resource that could never be one, whatever the path has."""
        query_of(self.resource.format_map(_Placeholders()), "", "")

    def require_names(self, known: Mapping[str, Any]) -> None:
        """Raise `ValueError` for a part that the path does not have."""
        for text in (self.resource, self.course, self.session):
            for _, name, _, _ in Formatter().parse(text):
                if name is not None and name not in known:
                    raise ValueError(
                        f"`{text}` needs `{name}`, and the path has {', '.join(known) or 'no part'}"
                    )

    async def decide(self, client: AsyncClient, subject: str, parts: Mapping[str, Any]) -> Answer:
        """The answer, if it is allowed. Raises `RefusedError`, and `CallError` for a mistaken question."""
        self.require_names(parts)
        return await decide(
            client,
            lambda: check_request(
                subject,
                self.action,
                self.resource.format_map(parts),
                course_id=self.course.format_map(parts),
                session_id=self.session.format_map(parts),
                purpose=self.purpose,
            ),
        )


async def decide(client: AsyncClient, question: Callable[[], CheckRequest]) -> Answer:
    """Ask, and raise `RefusedError` unless it is allowed. It does not say why: who sent the request may not
    be one who may know. The decision id leads to it."""
    try:
        answer = await client.ask(question())
    except InvalidArgumentError as error:
        raise RefusedError(404, "not found") from error  # nothing can have such an id
    except CallError as error:
        if error.code in _UNDECIDED:
            raise RefusedError(503, "access cannot be decided now; try again in a moment") from error
        raise
    if not answer:
        raise RefusedError(403, f"not allowed (decision {answer.decision_id})")
    return answer


class _Placeholders(dict[str, str]):
    """A well-formed id for every name."""

    def __missing__(self, key: str) -> str:
        return "x"
