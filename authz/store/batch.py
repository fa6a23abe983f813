"""The records as the writes of one transaction leave them: planned in memory, then stored in bulk.

The writes of a group commit are planned one after another, each on top of those before it. One that fails is
dropped, and the others are stored: of `create course:a`, an invalid write, and `create material:m in
course:a`, the third finds the course of the first.

What ends with a record, its contents or the shares of a former member, is deleted in the same write if it is
little. The rest is left to a `Removal`: nobody finds its rows any more, and later transactions delete them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import msgspec
from sqlalchemy import Connection

from authz.domain.entities import (
    Entity,
    Key,
    Membership,
    MembershipKey,
    Resource,
    Share,
    Versioned,
    container_of,
    kind_of,
)
from authz.domain.errors import AlreadyExistsError, ErrorReason, precondition_failed
from authz.domain.ids import PLATFORM, Subject
from authz.domain.instants import Instant
from authz.domain.mutations import ChangeScope, Mutation, Operation
from authz.domain.origin import Origin
from authz.domain.ports import Vocabularies
from authz.store.active_policy import validate_by_policy
from authz.store.bulk import select_by_key
from authz.store.contents import CONTAINERS, Locator, read_contents, require_container, require_same_container
from authz.store.log.writer import Effect
from authz.store.privacy.erased import ErasedSubjects
from authz.store.removals import (
    Removal,
    Root,
    being_removed,
    pending_roots,
    removal_progress,
    scope_of_removal,
    store_removals,
)
from authz.store.rows import ENTITY_ROWS, store_records
from authz.store.sharing import (
    Member,
    MembershipLookup,
    ScopeAndSubject,
    has_ended,
    lapsed_members,
    memberships_there,
    not_a_member,
    shares_there,
    subjects_with_shares,
    unopened_shares,
)


class _Layer:
    """Records as some writes leave them, and what of that is not stored yet."""

    def __init__(self) -> None:
        self.records: dict[Key, Versioned[Entity] | None] = {}
        """What was read or planned; None for what is not there."""
        self.unstored: dict[Key, Versioned[Entity] | None] = {}
        self.removals: dict[Root, Removal | None] = {}
        """By their roots; None for those that are stored."""

    def store(self, connection: Connection) -> None:
        """Store in bulk what is not stored yet."""
        store_records(connection, self.unstored)
        self.unstored.clear()
        begun = [removal for removal in self.removals.values() if removal is not None]
        store_removals(connection, begun)
        self.removals |= dict.fromkeys(removal.root for removal in begun)

    def add(self, above: _Layer) -> None:
        """Keep what a write has planned above this layer."""
        self.records |= above.records
        self.unstored |= above.unstored
        self.removals |= above.removals


class Batch:
    """The writes of a transaction. At most `max_deletions` records are deleted besides those that the
    mutations name."""

    def __init__(
        self, connection: Connection, vocabularies: Vocabularies, *, max_deletions: int, now: Instant
    ) -> None:
        self._connection = connection
        self._now = now
        self._vocabularies = vocabularies
        self._deletions_left = max_deletions
        self._kept = _Layer()
        """The rows that were read, and the writes that have succeeded."""
        self._planned = _Layer()
        """The write that is being planned; what follows is also of this write."""
        self._revision = 0
        self._origin = Origin()
        self._effects: list[Effect] = []
        self._ended: dict[MembershipKey, None] = {}
        """The memberships that it deletes, or gives an end in the past."""
        self._is_removing = removal_progress(connection) is not None
        """Whether there may be rows whose container is gone."""
        self._locator = Locator(self._row, self._scope_of_removal)
        self._memberships = MembershipLookup(connection, self.find, now)
        self.erased = ErasedSubjects(connection)
        self._lapsed: dict[Member, list[Versioned[Share]]] = {}
        """The shares of those who come back after their last membership ended by its date."""
        self._sharers: set[Subject] = set()
        """The subjects with whom this transaction shares something."""

    def prefetch(self, keys: Iterable[Key]) -> None:
        """Read the rows of these keys in bulk, and the rows of their containers.

        A row that is not prefetched is read on its own when it is needed.
        """
        wanted: dict[str, list[Key]] = defaultdict(list)
        for key in dict.fromkeys(keys):
            if key not in self._kept.records:
                wanted[kind_of(key).name].append(key)
                self._kept.records[key] = None
        if not wanted:
            return
        for name, missing in wanted.items():
            stored = ENTITY_ROWS[name]
            rows = select_by_key(self._connection, stored.table, [stored.key_values(key) for key in missing])
            self._kept.records |= {versioned.entity.key: versioned for versioned in stored.versioned(rows)}
        containers = (self._container_to_read(key) for missing in wanted.values() for key in missing)
        self.prefetch(key for key in containers if key is not None)
        self._memberships.prefetch(pair for key in wanted["share"] for pair in self._pairs_around(key))
        if self._is_removing:
            roots: set[Root] = {key for name in CONTAINERS for key in wanted[name]}
            roots |= {self._member_of(key) for key in wanted["membership"] if isinstance(key, MembershipKey)}
            pending = pending_roots(self._connection, roots)
            self._kept.removals |= dict.fromkeys(pending - self._kept.removals.keys())

    def prefetch_lapsed(self, starting: Iterable[Key]) -> None:
        """Read in bulk the old shares of those who get one of these memberships after the last one lapsed."""
        keys = (key for key in starting if isinstance(key, MembershipKey) and key.scope != PLATFORM)
        for member in lapsed_members(self._connection, map(self._member_of, keys), self._now):
            found = unopened_shares(self._connection, member, self._deletions_left + 1, self._now)
            self._lapsed[member] = found
            self._kept.records |= {each.entity.key: each for each in found}

    def _container_to_read(self, key: Key) -> Key | None:
        """The container of a record, if its row matters: it names the course that a session is in, and while
        something is removed, whether what is inside is still found depends on it."""
        found = self._kept.records[key]
        container = container_of(key if found is None else found.entity)
        if container is None or self._is_removing:
            return container
        return None if kind_of(container).container is None else container

    @contextmanager
    def attempt(self, revision: int, origin: Origin, *, flushes: bool = False) -> Iterator[list[Effect]]:
        """Plan one write: the mutations applied in the block are kept, or dropped if the block raises.

        Yields the list of effects, in order; a deletion has the entity as it last was.
        Set `flushes` if the block may raise after applying a mutation that `cascades`: such a mutation stores
        what was planned before it, so a savepoint is needed to undo it.
        """
        self._revision, self._origin, self._effects, self._ended = revision, origin, [], {}
        if flushes:
            self.flush()
        try:
            with self._connection.begin_nested() if flushes else nullcontext():
                yield self._effects
                self._end_shares()
            self._kept.add(self._planned)
        finally:
            self._planned = _Layer()

    def find(self, key: Key) -> Versioned[Entity] | None:
        """The entity with a key, after the mutations so far; None if it is gone, or what it is inside."""
        found = self._row(key)
        if found is not None and self._is_removing:
            container = container_of(found.entity)
            if container is not None and self.find(container) is None:
                return None
        return found

    def _row(self, key: Key) -> Versioned[Entity] | None:
        if key in self._planned.records:
            return self._planned.records[key]
        if key not in self._kept.records:
            self.prefetch([key])
        return self._kept.records[key]

    def apply(self, mutation: Mutation) -> bool:
        """Apply a well-formed mutation to the planned write; return whether it changes anything.

        Raises AlreadyExistsError, FailedPreconditionError, InvalidArgumentError or RemovalPendingError, and
        then changes nothing.
        """
        if mutation.operation is Operation.DELETE:
            return self._delete(mutation.key)
        self.erased.require_none(mutation)
        before = self.find(mutation.key)
        if mutation.operation is Operation.UPDATE:
            mutation = self._resolve(mutation, before)
        entity = mutation.target
        assert isinstance(entity, Entity)  # noqa: S101  well-formed; narrows for the type checker
        validate_by_policy(entity, self._vocabularies, self.find, is_new=before is None)
        if before is not None:
            if mutation.operation is Operation.CREATE:
                problem = f"{entity.key} exists; update it, or delete it first"
                raise AlreadyExistsError(ErrorReason.ENTITY_EXISTS, problem, key=str(entity.key))
            if before.entity == entity:
                return False
            require_same_container(before.entity, entity)
            mutation = msgspec.structs.replace(mutation, before=before.entity)
        require_container(entity, self.find)
        begins = before is None or has_ended(before.entity, self._now)
        if begins and self._is_removing:
            self._require_removed(entity.key)
        if isinstance(entity, Share):
            self._require_opened(entity)
            self._sharers.add(entity.subject)
        elif isinstance(entity, Membership):
            self._memberships.add(entity)
            if has_ended(entity, self._now):
                self._ended[entity.key] = None
            elif begins and self._lapsed:
                self._end_lapsed(entity.key)
        self._put(mutation, self._locator.scope_of(entity), Versioned(entity, self._revision))
        return True

    def _resolve(self, update: Mutation, before: Versioned[Entity] | None) -> Mutation:
        """The touch of the whole entity that an update leads to."""
        if before is None:
            raise precondition_failed(
                f"{update.key} does not exist, so it cannot be updated; create it first",
                key=str(update.key),
            )
        touch = Mutation(Operation.TOUCH, msgspec.structs.replace(before.entity, **dict(update.values)))
        touch.validate()
        return touch

    def flush(self) -> None:
        """Store every planned effect that is not stored yet, in bulk."""
        self._kept.store(self._connection)

    def _put(self, mutation: Mutation, scope: ChangeScope, versioned: Versioned[Entity] | None) -> None:
        key = mutation.key
        before = self._row(key)
        self._effects.append(Effect(mutation, scope, 0 if before is None else before.revision))
        self._planned.records[key] = self._planned.unstored[key] = versioned

    def _delete(self, key: Key) -> bool:
        before = self.find(key)
        if before is None:
            return False
        scope = self._locator.scope_of(before.entity)
        if kind_of(key).name in CONTAINERS and not self._delete_contents(key):
            self._begin_removal(self._planned, key, scope)
        self._put(Mutation(Operation.DELETE, before.entity), scope, None)
        if isinstance(key, MembershipKey):
            self._ended[key] = None
        return True

    def _begin_removal(self, layer: _Layer, root: Root, scope: ChangeScope) -> None:
        layer.removals[root] = Removal(root, scope, self._origin, self._revision)
        self._is_removing = True

    def remove(self, removal: Removal) -> bool:
        """Delete what a deletion has left, as far as `max_deletions` allows; return whether that is all."""
        root = removal.root
        return self._delete_unopened(root) if isinstance(root, Member) else self._delete_contents(root)

    def remove_member(self, member: Member) -> bool:
        """Delete a member's memberships, then the shares with the member there, as far as `max_deletions`
        allows; return whether that is all."""
        for name, statement in (("membership", memberships_there(member)), ("share", shares_there(member))):
            found = ENTITY_ROWS[name].read(self._connection, statement.limit(self._deletions_left + 1))
            if not self._delete_within_limit(found):
                return False
        return True

    def _delete_within_limit(self, found: Sequence[Versioned[Entity]]) -> bool:
        """As `delete_members`, as far as `max_deletions` allows; return whether that is all."""
        allowed = found[: self._deletions_left]
        self._deletions_left -= len(allowed)
        self.delete_members(allowed)
        return len(allowed) == len(found)

    def _delete_contents(self, key: Key) -> bool:
        """Delete what is inside a record, at any depth, as far as `max_deletions` allows; return whether that
        is all.

        Contents go before their container.
        """
        # Contents are read from the database, so every planned effect must be stored first.
        self._planned.store(self._connection)
        found, is_all = read_contents(self._connection, [key], self._deletions_left)
        self._deletions_left -= len(found)
        self.delete_found(found)
        return is_all

    def rewrite(self, entities: Sequence[Entity]) -> None:
        """Put records in place of those with their keys, whatever the policy says of them."""
        self.prefetch(entity.key for entity in entities)
        for entity in entities:
            found = self.find(entity.key)
            touch = Mutation(Operation.TOUCH, entity, before=None if found is None else found.entity)
            self._put(touch, self._locator.scope_of(entity), Versioned(entity, self._revision))

    def delete_members(self, found: Sequence[Versioned[Entity]]) -> None:
        """As `delete_found`. Also ends the shares of those who lose their last membership there."""
        self.delete_found(found)
        self._ended |= {each.entity.key: None for each in found if isinstance(each.entity, Membership)}

    def delete_found(self, found: Sequence[Versioned[Entity]]) -> None:
        """Delete records that were just read, and nothing with them."""
        for versioned in found:
            self._planned.records.setdefault(versioned.entity.key, versioned)
        containers = (container_of(versioned.entity) for versioned in found)
        self.prefetch(key for key in containers if key is not None and key not in self._planned.records)
        for versioned in found:
            entity = versioned.entity
            self._put(Mutation(Operation.DELETE, entity), self._locator.scope_of(entity), None)

    def _end_shares(self) -> None:
        """Delete what is shared with those who have just lost their last membership there, as far as
        `max_deletions` allows; leave the rest to a removal."""
        if not self._ended:
            return
        ended = [key for key in self._ended if key.scope != PLATFORM]
        self._memberships.prefetch((key.scope, key.subject) for key in ended)
        gone = (key for key in ended if not self._memberships.has_one(key.scope, key.subject))
        members = dict.fromkeys(map(self._member_of, gone))
        subjects = {member.subject for member in members}
        sharers = subjects & self._sharers | subjects_with_shares(self._connection, subjects)
        for member in (each for each in members if each.subject in sharers):
            self.flush()
            if not self._delete_unopened(member) and not pending_roots(self._connection, [member]):
                self._begin_removal(self._planned, member, ChangeScope())

    def _end_lapsed(self, key: MembershipKey) -> None:
        """Delete what was shared with a member until the last membership lapsed.

        If they are more than `max_deletions` allows, leaves them to a removal and raises RemovalPendingError.
        """
        member = self._member_of(key)
        found = [each for each in self._lapsed.get(member, ()) if self._row(each.entity.key) == each]
        if len(found) > self._deletions_left:
            # Kept, although the write that is being planned is refused: it succeeds once they are removed.
            self._begin_removal(self._kept, member, ChangeScope())
            raise being_removed(member, key)
        self._delete_within_limit(found)

    def _delete_unopened(self, member: Member) -> bool:
        """Delete shares with a member that nothing opens, as far as `max_deletions` allows; return whether
        that is all."""
        self._planned.store(self._connection)
        found = unopened_shares(self._connection, member, self._deletions_left + 1, self._now)
        return self._delete_within_limit(found)

    def _require_opened(self, share: Share) -> None:
        pairs = [*self._pairs_around(share)]
        if not (share.awaits_membership or any(self._memberships.has_one(*pair) for pair in pairs)):
            raise not_a_member(share, (scope for scope, _ in pairs))

    def _pairs_around(self, share: Any) -> Iterator[ScopeAndSubject]:
        """Where a membership opens a share, as far as its resource is there."""
        resource = self._row(share.resource)
        if resource is not None and isinstance(resource.entity, Resource):
            scope = resource.entity.scope
            yield from ((each, share.subject) for each in {scope, self._locator.course_around(scope)})

    def _member_of(self, key: MembershipKey) -> Member:
        return Member(key.subject, self._locator.course_around(key.scope))

    def _scope_of_removal(self, root: Root) -> ChangeScope | None:
        begun = self._planned.removals.get(root) or self._kept.removals.get(root)
        return scope_of_removal(self._connection, root) if begun is None else begun.scope

    def _require_removed(self, key: Key) -> None:
        """Raise if a new record would take the place, or the contents, of one that is being removed."""
        root = self._member_of(key) if isinstance(key, MembershipKey) else key
        is_hidden = self._row(key) is not None and self.find(key) is None
        if is_hidden or root in self._planned.removals or root in self._kept.removals:
            raise being_removed(root, key)
