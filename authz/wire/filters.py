"""What the Read calls ask for, from protobuf to the domain."""

from __future__ import annotations

from typing import Any

from authz.domain.entities import KINDS, Filter, Kind
from authz.domain.ports import Page
from authz.v1 import directory_pb2 as pb
from authz.wire.fields import Parser, parser_of

DEFAULT_PAGE_SIZE = 100


def page_of(size: int, token: str) -> Page:
    """A page; 0 means the default size. Raises `InvalidArgumentError` for a size out of range."""
    return Page(size or DEFAULT_PAGE_SIZE, token)


def parse_filter(request: Any) -> Filter[Any]:
    """Which records a Read request asks for."""
    filter_type, parsers = _BY_REQUEST[type(request)]
    return filter_type(**{name: parse(request) for name, parse in parsers})


def _parsers_of(kind: Kind) -> tuple[type[Any], tuple[type[Filter[Any]], list[tuple[str, Parser]]]]:
    request: Any = getattr(pb, f"Read{kind.plural.capitalize()}Request")
    parsers = [(field.name, parser_of(field, request.DESCRIPTOR)) for field, _ in kind.filters]
    return request, (kind.filter_type, parsers)


_BY_REQUEST = dict(map(_parsers_of, KINDS.values()))
