"""Ids, and the typed values that carry them. The only module that parses strings like `user:maya`."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum

import msgspec

from authz.domain.errors import ErrorReason, InvalidArgumentError, escaped

MAX_ID_LENGTH = 128
_ID = re.compile(r"[A-Za-z0-9._~@+=|/:\-]{1,128}")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

is_id: Callable[[str], object] = _ID.fullmatch
"""Whether a text is a well-formed id. The result is truthy or falsy, not a `bool`."""
is_name: Callable[[str], object] = _NAME.fullmatch
"""Whether a text can name a role, a type or an action. The result is truthy or falsy, not a `bool`."""


def parse_id(text: str, *, field: str) -> str:
    """Return `text` unchanged if it is a well-formed id. Ids are compared byte by byte, not normalised.

    Raises `InvalidArgumentError` (MALFORMED_ID) that names `field`.
    """
    if is_id(text):
        return text
    raise malformed_id(text, field=field)


def malformed_id(text: str, *, field: str) -> InvalidArgumentError:
    """The error for a text that is not a well-formed id."""
    if not text:
        problem = "is empty"
    elif len(text) > MAX_ID_LENGTH:
        problem = f"has {len(text)} characters"
    else:
        bad = next(c for c in text if not is_id(c))
        problem = f"`{ascii(text)[1:-1]}` has the character `{ascii(bad)[1:-1]}`"
    known = f"an id has 1 to {MAX_ID_LENGTH} characters of A-Z a-z 0-9 . _ ~ @ + = | / : -"
    return refused_id(field, f"{problem}; {known}")


def refused_id(field: str, problem: str) -> InvalidArgumentError:
    """The error for an id that cannot be used; `problem` continues the name of the field."""
    return InvalidArgumentError(ErrorReason.MALFORMED_ID, f"{field} {problem}", field=field)


class SubjectType(StrEnum):
    """Whether a subject is a person or a program."""

    USER = "user"
    SERVICE = "service"


_SUBJECT_TYPES = {kind.value: kind for kind in SubjectType}


class Subject(msgspec.Struct, frozen=True, gc=False, order=True):
    """A person or a program. Always typed, so that a user named `teacher` is not the role `teacher`."""

    type: SubjectType
    id: str

    def __str__(self) -> str:
        return f"{self.type}:{self.id}"


class ScopeKind(StrEnum):
    """The kinds of scopes to which memberships and resources belong."""

    PLATFORM = "platform"
    COURSE = "course"
    SESSION = "session"


class Scope(msgspec.Struct, frozen=True, gc=False, order=True):
    """`platform` (with an empty id), `course:<id>` or `session:<id>`."""

    kind: ScopeKind
    id: str = ""

    def __str__(self) -> str:
        return self.kind.value if self.kind is ScopeKind.PLATFORM else f"{self.kind.value}:{self.id}"


PLATFORM = Scope(ScopeKind.PLATFORM)


def course_scope(course_id: str) -> Scope:
    """The scope of a course."""
    return Scope(ScopeKind.COURSE, course_id)


def session_scope(session_id: str) -> Scope:
    """The scope of a session."""
    return Scope(ScopeKind.SESSION, session_id)


class ResourceRef(msgspec.Struct, frozen=True, gc=False, order=True, tag_field="kind", tag="resource_key"):
    """Type and id of one resource. For the types `course` and `session`, the id of that course or session."""

    type: str
    id: str

    @property
    def key(self) -> ResourceRef:
        """The reference itself, which is the key."""
        return self

    def __str__(self) -> str:
        return f"{self.type}:{self.id}"


def _require_type(text: str, *, field: str, form: str) -> None:
    if ":" not in text:
        raise refused_id(field, f"`{escaped(text)}` has no type; write it like `{form}`")


def parse_subject(text: str, *, field: str = "subject", form: str = "user:maya") -> Subject:
    """Parse `user:<id>` or `service:<id>`. Raises `InvalidArgumentError` (MALFORMED_ID), with `form` as an
    example of what can be named there."""
    head, _, tail = text.partition(":")
    kind = _SUBJECT_TYPES.get(head)
    if kind is not None and is_id(tail):
        return Subject(kind, tail)
    _require_type(text, field=field, form=form)
    if kind is None:
        problem = f"`{escaped(text)}` has the type `{escaped(head)}`; it must be `user` or `service`"
        raise refused_id(field, problem)
    raise malformed_id(tail, field=f"{field} id")


def parse_scope(text: str, *, field: str = "scope") -> Scope:
    """Parse `platform`, `course:<id>` or `session:<id>`. Raises `InvalidArgumentError` (MALFORMED_ID)."""
    if text == ScopeKind.PLATFORM:
        return PLATFORM
    _require_type(text, field=field, form="course:algebra-1")
    head, _, tail = text.partition(":")
    if head not in (ScopeKind.COURSE, ScopeKind.SESSION):
        problem = f"`{escaped(text)}` has the kind `{escaped(head)}`"
        raise refused_id(field, f"{problem}; write `platform`, `course:<id>` or `session:<id>`")
    return Scope(ScopeKind(head), parse_id(tail, field=f"{field} id"))


def parse_resource_ref(text: str, *, field: str = "resource") -> ResourceRef:
    """Parse `<type>:<id>`. Does not check that the policy declares the type."""
    head, _, tail = text.partition(":")
    if is_name(head) and is_id(tail):
        return ResourceRef(head, tail)
    _require_type(text, field=field, form="notebook:nb-7")
    if not is_name(head):
        raise refused_id(field, f"`{escaped(text)}` has a malformed type")
    raise malformed_id(tail, field=f"{field} id")
