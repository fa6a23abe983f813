"""Plans mutations over prefetched rows in memory, then stores their effects in bulk.

`Write` and `Import` differ only in how they treat an invalid mutation; both apply mutations here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


class Batch:
    """The state after several writes, planned one write after another.

    At most `max_deletions` records are deleted besides those that the mutations name. The rest of what is
    inside a deleted record is left to a `Removal`: its rows stay, and nobody finds them.
    """

    def __init__(
        self, connection: Connection, vocabularies: Vocabularies, *, max_deletions: int, now: Instant
    ) -> None:
        self._connection = connection
        self._now = now
        self._vocabularies = vocabularies
        self._deletions_left = max_deletions
        self._revision = 0
        self._origin = Origin()
        self._locator = Locator(self._row, self._scope_of_removal)
        self._memberships = MembershipLookup(connection, self.find, now)
        self.erased = ErasedSubjects(connection)
        self._is_removing = removal_progress(connection) is not None
        """Whether there may be rows whose container is gone."""
        self._roots: dict[Root, Removal | None] = {}
        """The roots of removals, None for those of earlier transactions."""
        self._state: dict[Key, Versioned[Entity] | None] = {}
        self._dirty: dict[Key, None] = {}
        # The write that is being planned, kept apart so that it can be dropped as a whole:
        self._planned: dict[Key, Versioned[Entity] | None] = {}
        self._planned_dirty: dict[Key, None] = {}
        self._planned_roots: dict[Root, Removal] = {}
        self._lapsed: dict[Member, list[Versioned[Share]]] = {}
        self._sharers: set[Subject] = set()
        """The subjects with whom this transaction shares something."""
        self._planned_left: dict[MembershipKey, None] = {}
        """The memberships that the write that is being planned deletes, or gives an end in the past."""
        self._effects: list[Effect] = []

    def prefetch(self, keys: Iterable[Key]) -> None:
        """Read the rows of these keys in bulk, and the rows of their containers.

        A row that is not prefetched is read on its own when it is needed.
        """
        wanted: dict[str, list[Key]] = defaultdict(list)
        for key in dict.fromkeys(keys):
            if key not in self._state:
                wanted[kind_of(key).name].append(key)
                self._state[key] = None
        if not wanted:
            return
        for name, missing in wanted.items():
            stored = ENTITY_ROWS[name]
            rows = select_by_key(self._connection, stored.table, [stored.key_values(key) for key in missing])
            self._state |= {versioned.entity.key: versioned for versioned in stored.versioned(rows)}
            if self._is_removing and name in CONTAINERS:
                self._roots |= dict.fromkeys(pending_roots(self._connection, missing) - self._roots.keys())
        containers = (self._container_to_read(key) for keys in wanted.values() for key in keys)
        if around := [key for key in containers if key is not None]:
            self.prefetch(around)
        self._memberships.prefetch(pair for key in wanted["share"] for pair in self._pairs_around(key))
        if self._is_removing:
            members = {self._member_of(key) for key in wanted["membership"] if isinstance(key, MembershipKey)}
            self._roots |= dict.fromkeys(pending_roots(self._connection, members) - self._roots.keys())

    def prefetch_lapsed(self, starting: Iterable[Key]) -> None:
        """Read in bulk the old shares of those who get one of these memberships after their last one ended by
        its date."""
        keys = (key for key in starting if isinstance(key, MembershipKey) and key.scope != PLATFORM)
        for member in lapsed_members(self._connection, map(self._member_of, keys), self._now):
            found = unopened_shares(self._connection, member, self._deletions_left + 1, self._now)
            self._lapsed[member] = found
            self._state |= {each.entity.key: each for each in found}

    def _container_to_read(self, key: Key) -> Key | None:
        """The container of a record, if its row says what the record's scope is, or whether it is there."""
        found = self._state[key]
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
        self._revision, self._origin, self._effects = revision, origin, []
        if flushes:
            self.flush()
        try:
            with self._connection.begin_nested() if flushes else nullcontext():
                yield self._effects
                self._end_shares()
            self._state |= self._planned
            self._dirty |= self._planned_dirty
            self._roots |= self._planned_roots
        finally:
            self._planned_left.clear()
            self._planned_roots.clear()
            self._planned.clear()
            self._planned_dirty.clear()

    def find(self, key: Key) -> Versioned[Entity] | None:
        """The entity with a key, after the mutations so far; None if it is gone, or what it is inside."""
        found = self._row(key)
        if found is not None and self._is_removing:
            container = container_of(found.entity)
            if container is not None and self.find(container) is None:
                return None
        return found

    def _row(self, key: Key) -> Versioned[Entity] | None:
        if key in self._planned:
            return self._planned[key]
        if key not in self._state:
            self.prefetch([key])
        return self._state[key]

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
        validate_by_policy(entity, self._vocabularies, self.find)
        if before is not None:
            if mutation.operation is Operation.CREATE:
                raise AlreadyExistsError(
                    ErrorReason.ENTITY_EXISTS,
                    f"{entity.key} exists; update it, or delete it first",
                    key=str(entity.key),
                )
            if before.entity == entity:
                return False
            require_same_container(before.entity, entity)
            mutation = msgspec.structs.replace(mutation, before=before.entity)
        require_container(entity, self.find)
        if self._is_removing and (before is None or has_ended(before.entity, self._now)):
            self._require_removed(entity.key)
        if isinstance(entity, Share):
            self._require_opened(entity)
            self._sharers.add(entity.subject)
        elif isinstance(entity, Membership):
            self._memberships.add(entity)
            if has_ended(entity, self._now):
                self._planned_left[entity.key] = None
            elif self._lapsed and (before is None or has_ended(before.entity, self._now)):
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
        self._store(self._dirty, self._state)
        added = [removal for removal in self._roots.values() if removal is not None]
        store_removals(self._connection, added)
        self._roots |= dict.fromkeys(removal.root for removal in added)

    def _store(self, dirty: dict[Key, None], state: Mapping[Key, Versioned[Entity] | None]) -> None:
        store_records(self._connection, {key: state[key] for key in dirty})
        dirty.clear()

    def _put(self, mutation: Mutation, scope: ChangeScope, versioned: Versioned[Entity] | None) -> None:
        key = mutation.key
        before = self._row(key)
        self._effects.append(Effect(mutation, scope, 0 if before is None else before.revision))
        self._planned[key] = versioned
        self._planned_dirty[key] = None

    def _delete(self, key: Key) -> bool:
        before = self.find(key)
        if before is None:
            return False
        scope = self._locator.scope_of(before.entity)
        if kind_of(key).name in CONTAINERS and not self._delete_contents(key):
            self._planned_roots[key] = Removal(key, scope, self._origin, since=self._revision)
            self._is_removing = True
        self._put(Mutation(Operation.DELETE, before.entity), scope, None)
        if isinstance(key, MembershipKey):
            self._planned_left[key] = None
        return True

    def remove(self, removal: Removal) -> bool:
        """Delete what a deletion has left, as far as `max_deletions` allows; return whether that is all."""
        root = removal.root
        return self._delete_unopened(root) if isinstance(root, Member) else self._delete_contents(root)

    def remove_member(self, member: Member) -> bool:
        """Delete a member's memberships, then the shares with the member there, as far as `max_deletions`
        allows; return whether that is all."""
        for name, statement in (("membership", memberships_there(member)), ("share", shares_there(member))):
            found = ENTITY_ROWS[name].read(self._connection, statement.limit(self._deletions_left + 1))
            ended = found[: self._deletions_left]
            self._deletions_left -= len(ended)
            self.delete_members(ended)
            if len(ended) < len(found):
                return False
        return True

    def _delete_contents(self, key: Key) -> bool:
        """Delete what is inside a record, at any depth, as far as `max_deletions` allows; return whether that
        is all.

        Contents go before their container.
        """
        # Contents are read from the database, so every planned effect must be stored first.
        self._store(self._planned_dirty, self._planned)
        found, is_all = read_contents(self._connection, [key], self._deletions_left)
        self._deletions_left -= len(found)
        self.delete_found(found)
        return is_all

    def rewrite(self, entities: Sequence[Entity], *, logs_before: bool = True) -> None:
        """Put records in place of those with their keys, whatever the policy says of them.

        Unless `logs_before`, the change log does not repeat what was there.
        """
        self.prefetch(entity.key for entity in entities)
        for entity in entities:
            found = self.find(entity.key) if logs_before else None
            touch = Mutation(Operation.TOUCH, entity, before=None if found is None else found.entity)
            self._put(touch, self._locator.scope_of(entity), Versioned(entity, self._revision))

    def delete_members(self, found: Sequence[Versioned[Entity]]) -> None:
        """As `delete_found`. Also ends the shares of those who lose their last membership there."""
        self.delete_found(found)
        self._planned_left |= {each.entity.key: None for each in found if isinstance(each.entity, Membership)}

    def delete_found(self, found: Sequence[Versioned[Entity]]) -> None:
        """Delete records that were just read, and nothing with them."""
        for versioned in found:
            self._planned.setdefault(versioned.entity.key, versioned)
        containers = (container_of(versioned.entity) for versioned in found)
        self.prefetch(key for key in containers if key is not None and key not in self._planned)
        for versioned in found:
            entity = versioned.entity
            self._put(Mutation(Operation.DELETE, entity), self._locator.scope_of(entity), None)

    def _end_shares(self) -> None:
        """Delete what is shared with those who have just lost their last membership there, as far as
        `max_deletions` allows; leave the rest to a removal."""
        if not self._planned_left:
            return
        left = [key for key in self._planned_left if key.scope != PLATFORM]
        self._memberships.prefetch((key.scope, key.subject) for key in left)
        gone = (key for key in left if not self._memberships.has_one(key.scope, key.subject))
        members = {self._member_of(key): None for key in gone}
        subjects = {member.subject for member in members}
        sharers = subjects & self._sharers | subjects_with_shares(self._connection, subjects)
        for member in members:
            if member.subject not in sharers:
                continue
            self.flush()
            if not self._delete_unopened(member) and not pending_roots(self._connection, [member]):
                self._planned_roots[member] = Removal(member, ChangeScope(), self._origin, self._revision)
                self._is_removing = True

    def _end_lapsed(self, key: MembershipKey) -> None:
        """Delete what was shared with a member until a membership ended by its date.

        If they are more than `max_deletions` allows, leaves them to a removal and raises RemovalPendingError.
        """
        member = self._member_of(key)
        found = [each for each in self._lapsed.get(member, ()) if self._row(each.entity.key) == each]
        if len(found) > self._deletions_left:
            # Not with the write that is being planned: the removal begins although that is refused.
            self._roots[member] = Removal(member, ChangeScope(), self._origin, self._revision)
            self._is_removing = True
            raise being_removed(member, key)
        self._deletions_left -= len(found)
        self.delete_found(found)

    def _delete_unopened(self, member: Member) -> bool:
        """Delete shares with a member that nothing opens, as far as `max_deletions` allows; return whether
        that is all."""
        self._store(self._planned_dirty, self._planned)
        found = unopened_shares(self._connection, member, self._deletions_left + 1, self._now)
        ended = found[: self._deletions_left]
        self._deletions_left -= len(ended)
        self.delete_found(ended)
        return len(ended) == len(found)

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
        begun = self._planned_roots.get(root) or self._roots.get(root)
        return scope_of_removal(self._connection, root) if begun is None else begun.scope

    def _require_removed(self, key: Key) -> None:
        """Raise if a new record would take the place, or the contents, of one that is being removed."""
        root = self._member_of(key) if isinstance(key, MembershipKey) else key
        is_hidden = self._row(key) is not None and self.find(key) is None
        if is_hidden or root in self._roots or root in self._planned_roots:
            raise being_removed(root, key)
