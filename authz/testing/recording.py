"""Records the checks of an application, and finds requests that it served without a check."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from authz.client.arguments import as_list
from authz.domain.decision_log import DecisionEntry

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
_OK = "OK"
_FIRST_REDIRECT = 300
_NOT_MODIFIED, _ACCEPTED = 304, 101


class ServedRequest(msgspec.Struct):
    """A request of the application, such as `GET /notebooks/nb-7`, and what was asked while it was served.

    `is_served` says whether its sender got something, and not a refusal.
    """

    name: str
    questions: list[DecisionEntry] = msgspec.field(default_factory=list)
    is_served: bool = True

    @property
    def fault(self) -> str:
        """Why it should not have been served; empty if it was refused, or checked and allowed."""
        if not self.is_served:
            return ""
        if not self.questions:
            return "nothing was checked"
        if any(each.allowed and each.code == _OK for each in self.questions):
            return ""
        last = self.questions[-1]
        return f"{last.subject} may not {last.action} {last.resource}: {last.reason or last.code}"


class Recording:
    """What an application asked, in `questions`, and the requests that it answered, in `requests`.

    Questions belong to the requests during which they are answered, so send one request after another, and
    give the application no cache of answers.
    """

    def __init__(self) -> None:
        self.questions: list[DecisionEntry] = []
        self.requests: list[ServedRequest] = []
        self._current: list[ServedRequest] = []

    def note(self, entry: DecisionEntry) -> None:
        """A question was answered, or a call that asks nothing, such as a read of records."""
        if not entry.action:
            return
        self.questions.append(entry)
        for request in self._current:
            request.questions.append(entry)

    @contextmanager
    def request(self, name: str) -> Iterator[ServedRequest]:
        """A request that the application serves in this block. Set `is_served` to false for a refusal."""
        request = ServedRequest(name)
        self.requests.append(request)
        self._current.append(request)
        try:
            yield request
        except BaseException:
            request.is_served = False
            raise
        finally:
            self._current.remove(request)

    def app(self, app: AsgiApp) -> AsgiApp:
        """An application of ASGI (FastAPI, Starlette, Django) with its requests recorded."""

        async def recorded(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] not in ("http", "websocket"):
                await app(scope, receive, send)
                return
            is_served = False  # until it answers

            async def noted(message: Any) -> None:
                nonlocal is_served
                if message["type"] in ("http.response.start", "websocket.accept"):
                    status = message.get("status", _ACCEPTED)
                    is_served = status < _FIRST_REDIRECT or status == _NOT_MODIFIED
                await send(message)

            name = f"{scope.get('method', 'WEBSOCKET')} {scope['path']}"
            try:
                with self.request(name) as request:
                    await app(scope, receive, noted)
            finally:
                request.is_served = is_served  # also before an answer that breaks off

        return recorded

    def assert_asked(self, *, public: Collection[str] = ()) -> None:
        """Fail, with every request that was served although nothing was checked or every check was denied.

        `public` names the requests that everybody may make, as `GET /about`, or `GET /static/*`.
        """
        __tracebackhide__ = True
        patterns = as_list(public, field="public")
        faults = [
            f"  {each.name}: {each.fault}"
            for each in self.requests
            if each.fault and not any(_matches(each.name, pattern) for pattern in patterns)
        ]
        if faults:
            lines = "\n".join(dict.fromkeys(faults))
            raise AssertionError(f"served without a check that allowed it:\n{lines}")
        if not self.requests:
            raise AssertionError(
                "no request was recorded; send them to `recording.app(…)`, or in `recording.request(…)`"
            )


def _matches(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
