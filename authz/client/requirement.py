"""What a route requires before it serves: a question with places that a request fills."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any

import msgspec

from authz.client.aio.client import AsyncClient
from authz.client.aio.decide import decide
from authz.client.questions import Answer, check_request, query_of


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


class _Placeholders(dict[str, str]):
    """A well-formed id for every name."""

    def __missing__(self, key: str) -> str:
        return "x"
