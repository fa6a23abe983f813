"""Mutations as the change log stores them: as JSON."""

from __future__ import annotations

import msgspec
from sqlalchemy import ColumnElement

from authz.domain.ids import ResourceRef, Subject
from authz.domain.mutations import Mutation

_encoder = msgspec.json.Encoder()
decode_mutation = msgspec.json.Decoder(Mutation).decode
"""Reads the text that `encode_mutation` wrote. Raises `msgspec.MsgspecError` for another."""


def encode_mutation(mutation: Mutation) -> str:
    """A mutation as JSON, without spaces."""
    return _encoder.encode(mutation).decode()


def json_names(column: ColumnElement[str], record: Subject | ResourceRef) -> ColumnElement[bool]:
    """In SQL: whether the JSON in a column names a subject or a resource.

    A text of a record cannot look like it, because JSON escapes its quotes. SQLite ignores case here, so
    callers must also look at the decoded JSON.
    """
    return column.contains(f'"type":"{record.type}","id":"{record.id}"', autoescape=True)
