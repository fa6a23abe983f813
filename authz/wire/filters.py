"""The calls that read pages between protobuf and the domain, each derived from the fields of its query.

A kind has the call `Read<Plural>`, whose request has the fields of its filter, and whose response has its
records in a field named after the plural.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import msgspec

from authz.domain.entities import KINDS, EntityT_co, Filter, Kind, Versioned
from authz.domain.instants import Instant
from authz.domain.kinds.fields import fields_of
from authz.domain.ports import Page
from authz.v1 import directory_pb2 as pb
from authz.v1.common_pb2 import ConsistencyToken
from authz.wire.entities import parse_versioned
from authz.wire.fields import formatted, formatters_of, parser_of
from authz.wire.values import time_message

QueryT = TypeVar("QueryT", bound=msgspec.Struct)

_DEFAULT_PAGE_SIZE = 100


def parse_page(request: Any) -> Page:
    """The page that a request asks for. Raises `InvalidArgumentError`."""
    return Page(request.page_size or _DEFAULT_PAGE_SIZE, request.page_token)


class QueryForm(Generic[QueryT]):
    """The request for a page of what matches a query, whose fields are those of a struct."""

    def __init__(self, query: type[QueryT], request: Any) -> None:
        self.request = request
        self._query = query
        fields, of = fields_of(query), request.DESCRIPTOR
        self._parsers = [(field.name, parser_of(field, of)) for field in fields]
        self._formatters = [each for field in fields for each in formatters_of(field, of)]

    def parse(self, request: Any) -> tuple[QueryT, Page]:
        """What a request asks for, and which page of it. Raises `InvalidArgumentError`."""
        query = self._query(**{name: parse(request) for name, parse in self._parsers})
        return query, parse_page(request)

    def format(self, query: QueryT, page: Page) -> Any:
        """The request for a page."""
        set_ = formatted(query, self._formatters)
        return self.request(page_size=page.size, page_token=page.token, **set_)


class ReadCall(QueryForm[Filter[Any]]):
    """The Read call of one kind."""

    def __init__(self, kind: Kind) -> None:
        self.name = "Read" + kind.plural.title().replace("_", "")
        super().__init__(kind.filter_type, getattr(pb, f"{self.name}Request"))
        self._response: Any = getattr(pb, f"{self.name}Response")
        self._kind = kind

    def response(
        self, records: Iterable[Any], *, next_page_token: str, read_at: ConsistencyToken, now: Instant
    ) -> Any:
        """The response for a page of records, which are messages, that was read at a state and a time."""
        message = self._response(
            next_page_token=next_page_token, read_at=read_at, server_time=time_message(now)
        )
        getattr(message, self._kind.plural).extend(records)
        return message

    def records(self, response: Any) -> list[Versioned[EntityT_co]]:
        """The records of a response."""
        return [parse_versioned(message) for message in getattr(response, self._kind.plural)]


READ_CALLS = {kind.filter_type: ReadCall(kind) for kind in KINDS.values() if not kind.service}
"""By type of the filter."""
READ_CALLS_BY_REQUEST = {call.request: call for call in READ_CALLS.values()}
