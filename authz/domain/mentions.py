"""Finds and replaces one subject, in the typed fields of records and in text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TypeVar

import msgspec

from authz.domain.entities import KINDS, Entity, Key
from authz.domain.ids import Subject, SubjectType
from authz.domain.kinds.account import ACCOUNT
from authz.domain.kinds.fields import FieldType

_RecordT = TypeVar("_RecordT", bound=Entity | Key)

_SUBJECT_FIELDS = {
    struct: tuple(
        field.name
        for field in kind.fields
        if field.type is FieldType.SUBJECT and field.name in struct.__struct_fields__
    )
    for kind in KINDS.values()
    for struct in (kind.entity, kind.key)
}

OWN_RECORDS = tuple(
    sorted(
        (
            (kind.name, name)
            for kind in KINDS.values()
            if not kind.service
            for name in _SUBJECT_FIELDS[kind.entity]
        ),
        key=lambda each: each[0] != ACCOUNT.name,
    )
)
"""The kinds of records that belong to a subject, each with the field that names it, in an order in which they
may be written: first the account, whose suspension takes the roles of the others away."""


def subjects_in(record: Entity | Key) -> tuple[Subject, ...]:
    """The subjects that the fields of a record name."""
    found = (getattr(record, name) for name in _SUBJECT_FIELDS[type(record)])
    return tuple(each for each in found if each is not None)


def with_subjects(record: _RecordT, replaced: Callable[[Subject], Subject]) -> _RecordT:
    """A record, or a key, in which each subject is replaced."""
    given = {name: getattr(record, name) for name in _SUBJECT_FIELDS[type(record)]}
    changed = {name: replaced(each) for name, each in given.items() if each is not None}
    return msgspec.structs.replace(record, **changed) if changed else record


def mentions(text: str, subject: Subject) -> bool:
    """Whether a text names a subject as `user:<id>`, and not one whose id only begins so."""
    return _typed(subject).search(text) is not None


def mentions_id(text: str, subject: Subject) -> bool:
    """Whether a text has the id of a subject, with its type or without, as a word or as a part of another id,
    such as in the key `<id>-1`."""
    return _bare(subject.id).search(text) is not None


def without_mentions(text: str, subject: Subject, by: str) -> str:
    """A text in which `by` stands for a subject that it names as `user:<id>`."""
    return _typed(subject).sub(by, text)


def without_people(text: bytes) -> bytes:
    """A text in which `user:*` stands for every person that it names as `user:<id>`."""
    return _PERSON.sub(b"user:*", text)


def subjects_in_texts(texts: Iterable[str]) -> set[Subject]:
    """The subjects that texts may name as `user:<id>`. Full stops at the end may be part of an id or end a
    sentence: then each that it may be."""
    found = {
        (kind, id_) for text in texts for kind, named in _SUBJECTS.items() for id_ in named.findall(text)
    }
    return {
        Subject(kind, id_[:end])
        for kind, id_ in found
        for end in range(len(id_.rstrip(".")) or 1, len(id_) + 1)
    }


def _not_after(before: str, literal: str) -> str:
    """A pattern for a literal that no character of a class precedes, but for a line break or another control
    character in JSON, where its escape ends in a letter or a digit.

    It begins with the literal, which `re` finds ten times as fast as what precedes it.
    """
    found = re.escape(literal)
    return rf"{found}(?:(?<!{before}{found})|(?<=\\[bfnrt]{found})|(?<=\\u00[01][0-9a-f]{found}))"


_ID = r"[A-Za-z0-9._~@+=|/:\-]"
_SUBJECTS = {
    kind: re.compile(_not_after(r"\w", f"{kind}:") + rf"({_ID}{{1,128}})", re.ASCII) for kind in SubjectType
}
_PERSON = re.compile((_not_after(r"\w", "user:") + rf"{_ID}+").encode())
_BEFORE = r"[\w.~@+|/:\-]"
_AFTER = r"(?!\.*[\w~@+=|/:\-])"
"""What cannot stand around an id. Full stops end a sentence unless another character of an id follows."""


@lru_cache(maxsize=16)
def _typed(subject: Subject) -> re.Pattern[str]:
    return re.compile(_not_after(_BEFORE, str(subject)) + _AFTER, re.ASCII)


@lru_cache(maxsize=16)
def _bare(id_: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(id_)}(?![A-Za-z0-9])")
