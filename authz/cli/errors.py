"""What a command says of an error: one message that names the input and the remedy."""

from __future__ import annotations

import re

from authz.client.errors import CallError
from authz.domain.errors import AuthzError

EXPECTED = (AuthzError, ValueError, OSError)
"""The errors that a message explains; any other is a fault of this program."""


_MUTATION = re.compile(r"^mutations\[\d+\]: ")
"""Where in a call the fault is; what follows names the record."""


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
