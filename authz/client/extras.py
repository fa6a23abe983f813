"""Parts of the client that need an extra, and what they say without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def from_extra(extra: str) -> Iterator[None]:
    """Import packages of an extra: an error for one that is not installed names the extra to install.

    Raises `ModuleNotFoundError`, whose `name` is that of the package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"needs `{(error.name or '').partition('.')[0]}`, which is not installed;"
            f" run `pip install 'qalamchat-authz[{extra}]'`",
            name=error.name,
            path=error.path,
        ) from error
