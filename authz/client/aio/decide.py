"""Checks access before an application serves a request."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from authz.client.aio.client import AsyncClient
from authz.client.aio.transport import Asked, resolved
from authz.client.errors import CallError, RefusedError
from authz.client.questions import Answer
from authz.domain.errors import ErrorReason, InvalidArgumentError

_UNDECIDED = {
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
}
"""No server can answer now. Any other error is a mistake in the application, such as an unknown action."""


async def decide(client: AsyncClient, question: Callable[[], Asked]) -> Answer:
    """Ask, and raise `RefusedError` unless it is allowed. The error does not say why, because the sender
    of the request may not be allowed to know. The decision id leads to the reason."""
    try:
        answer = await client.ask(await resolved(question()))
    except InvalidArgumentError as error:
        is_of_subject = error.metadata.get("field", "").startswith("subject")
        if error.reason is not ErrorReason.MALFORMED_ID or is_of_subject:
            raise
        raise RefusedError(404, "not found") from error  # nothing can have such an id
    except CallError as error:
        if error.reason == ErrorReason.MALFORMED_ID:
            raise RefusedError(404, "not found") from error
        if error.code in _UNDECIDED:
            raise RefusedError(503, "access cannot be decided now; try again in a moment") from error
        raise
    if not answer:
        raise RefusedError(403, f"not allowed (decision {answer.decision_id})")
    return answer
