"""What is kept from one snapshot of a replica to the next."""

from __future__ import annotations

from typing import TypeVar

import lmdb

from authz.domain.effective_roles import Grant
from authz.domain.scope_context import ScopeContext, ScopeState, scope_state_of
from authz.replica.environment import Environment, Versions
from authz.replica.layout import PLATFORM_KEY, head_of, read_course, read_grants, read_session

K = TypeVar("K")
V = TypeVar("V")

MAX_PLACES = 131_072
"""Some 300 bytes each: all courses of a platform with ten million memberships."""
_MAX_CACHED = 16_384


class Caches:
    """What snapshots of one generation keep between them, only ever of what is stored, and bounded.

    LMDB numbers its commits: under the same number nothing at all has changed. `places` are by key, and
    `platform` are the few who have a role on the platform, by subject, so that nobody else is looked up
    there; None while they are too many to keep. Both are dropped when the replica says that something
    of their kind has changed. `grants` and `settings` are by their bytes, and so never stale.
    """

    def __init__(self) -> None:
        self.transaction_id = -1
        self.versions = Versions(-1, 0, 0, -1, -1)
        self.places: dict[bytes, ScopeContext] = {}
        self.platform: dict[bytes, tuple[Grant, ...]] | None = {}
        self.grants: dict[bytes, tuple[Grant, ...]] = {}
        self.settings: dict[tuple[bytes, bytes], ScopeState] = {}

    def update(self, environment: Environment, transaction: lmdb.Transaction) -> None:
        """Take in what a transaction sees that is not the one seen last."""
        versions = environment.versions(transaction)
        if versions.platform != self.versions.platform:
            self.platform = _platform_grants(environment, transaction)
        if versions.scopes != self.versions.scopes:
            self.places = {}
        self.versions = versions
        self.transaction_id = transaction.id()

    def keep_grants(self, name: bytes) -> tuple[Grant, ...]:
        """Read, remember and return grants."""
        grants = read_grants(name)
        keep(self.grants, name, grants, most=_MAX_CACHED)
        return grants

    def setting(self, raw_course: bytes, raw_session: bytes) -> ScopeState:
        """What the records of a course and a session, each of them empty for none, settle."""
        name = (raw_course, head_of(raw_session))
        setting = self.settings.get(name)
        if setting is None:
            course = read_course("", raw_course) if raw_course else None
            session = read_session("", raw_session) if raw_session else None
            setting = scope_state_of(course, session)
            keep(self.settings, name, setting, most=_MAX_CACHED)
        return setting


def _platform_grants(
    environment: Environment, transaction: lmdb.Transaction
) -> dict[bytes, tuple[Grant, ...]] | None:
    held: dict[bytes, tuple[Grant, ...]] = {}
    with transaction.cursor(environment.members_in) as cursor:
        found = cursor.set_range(PLATFORM_KEY)
        while found and (key := bytes(cursor.key())).startswith(PLATFORM_KEY):
            subject = key[len(PLATFORM_KEY) :]
            raw = environment.read(transaction, subject + PLATFORM_KEY, environment.members)
            held[subject] = read_grants(PLATFORM_KEY + raw)
            if len(held) > _MAX_CACHED:
                return None
            found = cursor.next()
    return held


def keep(kept: dict[K, V], key: K, value: V, *, most: int) -> None:
    """Remember a value, of `most` at once."""
    if len(kept) >= most:
        kept.clear()
    kept[key] = value
