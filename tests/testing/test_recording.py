"""Which requests a recording takes for served."""

from __future__ import annotations

from typing import Any

import pytest

from authz.testing.recording import Recording


def answering(*messages: dict[str, Any], fails: bool) -> Any:
    """An application that sends these messages, and then may fail."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        if fails:
            raise RuntimeError("broken")

    return app


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    ("messages", "is_served"),
    [
        ([{"type": "http.response.start", "status": 200}, {"type": "http.response.body"}], True),
        ([{"type": "http.response.start", "status": 304}], True),
        ([{"type": "http.response.start", "status": 403}, {"type": "http.response.body"}], False),
        ([{"type": "websocket.accept"}, {"type": "websocket.send"}], True),
        ([{"type": "websocket.close"}], False),
        ([{"type": "websocket.http.response.start", "status": 503}], False),
        ([], False),
    ],
)
async def test_what_an_application_has_begun_to_answer_is_served_also_if_it_then_fails(
    messages: list[dict[str, Any]], is_served: bool, fails: bool
) -> None:
    recording = Recording()
    recorded = recording.app(answering(*messages, fails=fails))

    async def ignore(_: Any) -> None:
        """Take what is sent."""

    try:
        await recorded({"type": "http", "method": "GET", "path": "/x"}, None, ignore)
    except RuntimeError:
        assert fails
    assert [each.is_served for each in recording.requests] == [is_served]
    if is_served:
        with pytest.raises(AssertionError, match="GET /x: nothing was checked"):
            recording.assert_asked()
    else:
        recording.assert_asked()
