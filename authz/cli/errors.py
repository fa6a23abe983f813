"""The message of a command for an error: it names the input and the remedy."""

from __future__ import annotations

import re
from collections.abc import Container

from authz.client.errors import CallError
from authz.domain.errors import AuthzError

EXPECTED = (AuthzError, ValueError, OSError)
"""The errors that a message explains; any other is a fault of this program."""


_MUTATION = re.compile(r"^mutations\[\d+\]: ")
"""Where in a call the fault is; what follows names the record."""
_FIELD = re.compile(r"\b(?:resource\.)?([a-z]+(?:_[a-z]+)+)\b")
_FLAGS = {
    "course_id": ("--course",),
    "session_id": ("--session",),
    "starts_at": ("--from",),
    "ends_at": ("--until", "--expires"),
    "suspended_until": ("--until",),
    "available_from": ("--from",),
    "available_until": ("--until",),
    "ai_allowed": ("--ai",),
    "publish_at": ("--at",),
}
"""The options for fields of the API whose names differ. Others differ only in the dashes."""


def message_of(error: Exception) -> str:
    """The message for one of the expected errors."""
    if isinstance(error, CallError):
        message, before = _MUTATION.sub("", error.message), error.__cause__
        if isinstance(before, CallError) and before.message != error.message:
            return f"{message}; before that: {before.message}"
        return message
    if isinstance(error, AuthzError):
        return error.with_notes()
    if isinstance(error, OSError) and error.filename:
        return f"cannot use `{error.filename}`: {error.strerror}"
    return str(error)


def in_flags(message: str, flags: Container[str]) -> str:
    """A message with the options of a command in place of the fields of the API that they set."""

    def flag_of(found: re.Match[str]) -> str:
        name = found[1]
        candidates = _FLAGS.get(name, (f"--{name.replace('_', '-')}",))
        return next((flag for flag in candidates if flag in flags), found[0])

    return _FIELD.sub(flag_of, message)
