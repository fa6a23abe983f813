"""Guards for FastAPI and Starlette: a route is served only if the check that it names is allowed.

Both take the client from `app.state.authz`; see docs/clients.md. Needs `pip install 'qalamchat-authz[web]'`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from string import Formatter
from typing import Annotated, Any, cast

import msgspec

from authz.client.aio.client import AsyncClient
from authz.client.aio.decide import decide
from authz.client.errors import RefusedError
from authz.client.extras import from_extra
from authz.client.questions import Answer, check_request, query_of

with from_extra("web"):
    from starlette.exceptions import HTTPException
    from starlette.requests import HTTPConnection
    from starlette.responses import JSONResponse
    from starlette.types import ASGIApp, Receive, Scope, Send
    from starlette.websockets import WebSocketClose

_DENIAL = "websocket.http.response"
"""The extension of a server that can answer the handshake of a WebSocket as a request.
Source: https://asgi.readthedocs.io/en/latest/extensions.html#websocket-denial-response"""

WhoAsks = Callable[[HTTPConnection], str | Awaitable[str]]
"""Who sent a request, as `user:maya`: from the session or the token that the application has checked."""


def require(
    action: str,
    resource: str,
    *,
    subject: Callable[..., Any],
    course: str | None = None,
    session: str | None = None,
    purpose: str = "",
) -> Any:
    """A dependency of FastAPI: the answer of the check, if it is allowed; else 403, or 503 without an answer.

        @app.get(
            "/notebooks/{notebook_id}",
            dependencies=[require("read", "notebook:{notebook_id}", subject=who_asks)],
        )

    `subject` is a dependency that gives `user:<id>`. `course` and `session`, which may also name parts of the
    path, are those in which the resource must be; if the part is empty, the answer is 404. For `create`, give
    only the type as `resource`, and one of them.
    """
    with from_extra("web"):
        from fastapi import Depends

    requirement = _Requirement(
        action=action, resource=resource, course=course, session=session, purpose=purpose
    )

    async def dependency(connection: HTTPConnection, asker: str) -> Answer:
        try:
            return await requirement.decide(_client(connection), asker, connection.path_params)
        except RefusedError as refusal:
            raise HTTPException(refusal.status, str(refusal)) from refusal

    # FastAPI reads the annotations, which name what only this call knows.
    dependency.__annotations__ = {"connection": HTTPConnection, "asker": Annotated[str, Depends(subject)]}
    return Depends(dependency)


class RequireMiddleware:
    """A middleware of a route of Starlette: what it wraps is served only if the check is allowed.

    Route("/notebooks/{notebook_id}", read, middleware=[
        Middleware(RequireMiddleware, "read", "notebook:{notebook_id}", subject=who_asks)
    ])

    `subject` may raise `HTTPException`, for example 401.
    """

    def __init__(
        self,
        app: ASGIApp,
        action: str,
        resource: str,
        *,
        subject: WhoAsks,
        course: str | None = None,
        session: str | None = None,
        purpose: str = "",
    ) -> None:
        self._app = app
        self._subject = subject
        self._requirement = _Requirement(
            action=action, resource=resource, course=course, session=session, purpose=purpose
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        try:
            asker = self._subject(connection)
            subject = await asker if inspect.isawaitable(asker) else asker
            await self._requirement.decide(_client(connection), subject, connection.path_params)
        except RefusedError as refusal:
            detail, status, headers = str(refusal), refusal.status, None
        except HTTPException as refusal:
            if "starlette.exception_handlers" in scope:
                raise  # a handler of the application answers
            # Around the whole application, there are no handlers yet.
            detail, status, headers = refusal.detail, refusal.status_code, refusal.headers
        else:
            await self._app(scope, receive, send)
            return
        refused: ASGIApp = JSONResponse({"detail": detail}, status, headers)
        if scope["type"] == "websocket" and _DENIAL not in (scope.get("extensions") or {}):
            # The server then answers 403, whatever the cause.
            refused = WebSocketClose(reason=detail)
        await refused(scope, receive, send)


def _client(connection: HTTPConnection) -> AsyncClient:
    client = getattr(connection.app.state, "authz", None)
    if client is None:
        raise RuntimeError(
            "app.state.authz is not set; set it to an AsyncClient in the lifespan of the app. The lifespan of"
            " a mounted app never runs: set its state.authz in that of the app around it"
        )
    return cast(AsyncClient, client)


class _Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """A question of which parts are taken from the path: `resource="notebook:{notebook_id}"`."""

    action: str
    resource: str
    course: str | None
    session: str | None
    purpose: str

    def __post_init__(self) -> None:
        """Raise `InvalidArgumentError` for a resource, course or session that could never be one, whatever
        the path has."""
        query_of(*self._filled(_Placeholders()))

    def _filled(self, parts: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
        """The resource, its course and its session, with the parts of a path."""
        course, session = (
            None if text is None else text.format_map(parts) for text in (self.course, self.session)
        )
        return self.resource.format_map(parts), course, session

    def require_names(self, known: Mapping[str, Any]) -> None:
        """Raise `ValueError` for a part that the path does not have."""
        for text in filter(None, (self.resource, self.course, self.session)):
            for _, name, _, _ in Formatter().parse(text):
                if name is not None and name not in known:
                    raise ValueError(
                        f"`{text}` needs `{name}`, and the path has {', '.join(known) or 'no part'}"
                    )

    async def decide(self, client: AsyncClient, subject: str, parts: Mapping[str, Any]) -> Answer:
        """The answer, if it is allowed. Raises `RefusedError`, and `CallError` for a mistaken question."""
        self.require_names(parts)
        resource, course, session = self._filled(parts)
        return await decide(
            client,
            lambda: check_request(
                subject, self.action, resource, course_id=course, session_id=session, purpose=self.purpose
            ),
        )


class _Placeholders(dict[str, str]):
    """A well-formed id for every name."""

    def __missing__(self, key: str) -> str:
        return "x"
