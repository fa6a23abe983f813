"""The Read calls between protobuf and the domain, each derived from the filter of its kind.

A kind has the call `Read<Plural>`, whose request has the fields of its filter, and whose response has its
records in a field named after the plural.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from authz.domain.entities import KINDS, EntityT_co, Filter, Kind, Versioned
from authz.domain.ports import Page
from authz.v1 import directory_pb2 as pb
from authz.v1.common_pb2 import ConsistencyToken
from authz.wire.entities import parse_versioned
from authz.wire.fields import formatters_of, parser_of

DEFAULT_PAGE_SIZE = 100


class ReadCall:
    """The Read call of one kind."""

    def __init__(self, kind: Kind) -> None:
        self.name = "Read" + kind.plural.title().replace("_", "")
        self.request: Any = getattr(pb, f"{self.name}Request")
        self._response: Any = getattr(pb, f"{self.name}Response")
        self._kind = kind
        asked, of = [field for field, _ in kind.filters], self.request.DESCRIPTOR
        self._parsers = [(field.name, parser_of(field, of)) for field in asked]
        self._formatters = [each for field in asked for each in formatters_of(field, of)]

    def parse(self, request: Any) -> tuple[Filter[Any], Page]:
        """Which records a request asks for, and which page of them. Raises `InvalidArgumentError`."""
        wanted = self._kind.filter_type(**{name: parse(request) for name, parse in self._parsers})
        return wanted, Page(request.page_size or DEFAULT_PAGE_SIZE, request.page_token)

    def format(self, wanted: Filter[Any], page: Page) -> Any:
        """The request for a page."""
        values = ((name, convert, get(wanted)) for get, name, convert in self._formatters)
        set_ = {name: convert(value) for name, convert, value in values if value is not None}
        return self.request(page_size=page.size, page_token=page.token, **set_)

    def response(self, records: Iterable[Any], *, next_page_token: str, read_at: ConsistencyToken) -> Any:
        """The response for a page of records, which are messages, that was read at a state."""
        message = self._response(next_page_token=next_page_token, read_at=read_at)
        getattr(message, self._kind.plural).extend(records)
        return message

    def records(self, response: Any) -> list[Versioned[EntityT_co]]:
        """The records of a response."""
        return [parse_versioned(message) for message in getattr(response, self._kind.plural)]


READ_CALLS = {kind.filter_type: ReadCall(kind) for kind in KINDS.values() if not kind.service}
"""By type of the filter."""
READ_CALLS_BY_REQUEST = {call.request: call for call in READ_CALLS.values()}
