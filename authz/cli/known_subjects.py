"""Tells when a command names a subject of whom the directory knows nothing, since the id may be mistyped."""

from __future__ import annotations

import sys
from typing import Any

from authz.client import CallError, Client
from authz.domain.entities import AccountFilter, Filter, MembershipFilter, ResourceFilter, ShareFilter
from authz.domain.ids import Subject


def note_if_unknown(client: Client, who: Subject) -> None:
    """Say so on standard error. The command goes on: somebody may be held or suspended before any record,
    and an answer is right without the note, as when the database is away, or the caller may not read it."""
    filters: tuple[Filter[Any], ...] = (
        MembershipFilter(subject=who),
        AccountFilter(subject=who),
        ResourceFilter(owner=who),
        ShareFilter(subject=who),
    )
    try:
        is_known = any(next(client.read(each), None) is not None for each in filters)
    except CallError:
        return
    if not is_known:
        print(f"note: no record names {who}; compare the id", file=sys.stderr)
