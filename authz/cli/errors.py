"""The message of a command for an error: it names the input and the remedy."""

from __future__ import annotations

import re
from collections.abc import Container

from authz.client.errors import CallError, code_name
from authz.domain.errors import AuthzError, PolicyError

EXPECTED = (AuthzError, ValueError, OSError)
"""The errors that a message explains; any other is a fault of this program."""


_MUTATION = re.compile(r"^mutations\[\d+\]: ")
"""Where in a call the fault is; what follows names the record."""
_FIELD = re.compile(r"\b(?:resource\.)?([a-z]+(?:_[a-z]+)+)\b|^target\b")
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
    "target": ("--address",),
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
    if isinstance(error, FileNotFoundError):  # of the current folder, which has no name then
        return "the current folder was deleted; change to another"
    return str(error)


def code_of(error: Exception) -> str:
    """The name of the status code of one of the expected errors."""
    cause = _told_in_flags(error)
    if isinstance(cause, AuthzError):
        return code_name(cause)
    return "FAILED_PRECONDITION" if isinstance(error, OSError) else "INVALID_ARGUMENT"


def details_of(error: Exception) -> dict[str, object]:
    """What the message of one of the expected errors has for people, for programs."""
    cause = _told_in_flags(error)
    if not isinstance(cause, AuthzError):
        return {"file": str(error.filename)} if isinstance(error, OSError) and error.filename else {}
    found: dict[str, object] = {"reason": str(cause.reason), **cause.metadata} if cause.reason else {}
    if isinstance(cause, PolicyError | CallError) and cause.faults:
        found["faults"] = [fault._asdict() for fault in cause.faults]
    return found


def _told_in_flags(error: Exception) -> BaseException:
    """The error of which `in_flags` made the message."""
    cause = error.__cause__
    return cause if isinstance(cause, AuthzError) and not isinstance(error, AuthzError) else error


def in_flags(message: str, flags: Container[str]) -> str:
    """A message with the options of a command in place of the fields of the API that they set."""

    def flag_of(found: re.Match[str]) -> str:
        name = found[1] or found[0]
        candidates = _FLAGS.get(name, (f"--{name.replace('_', '-')}",))
        return next((flag for flag in candidates if flag in flags), found[0])

    return _FIELD.sub(flag_of, message)
