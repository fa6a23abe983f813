"""The revisions of the change log as the leaves of a Merkle tree.

A leaf names each subject by a keyed hash, and has a keyed hash, its MAC, of each text that an erasure may
change: so an erasure changes no leaf. It has each change as a hash, which stays when retention purges the
change: so neither does a purge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b, sha256
from operator import itemgetter
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection, Row, select

from authz.domain.erasures import PSEUDONYM_PREFIX, subject_mac
from authz.domain.ids import Subject, SubjectType
from authz.domain.tree import MerkleTree, leaf_hash
from authz.store import tables
from authz.store.log.reader import read_token_key
from authz.store.log.stored_tree import CHANGES, next_part, resume

Values: TypeAlias = Mapping[str, Any]

_FORMAT = "authz-change-1"
_MAC_BYTES = 16
_MAX_NAMES = 100_000
_SUBJECT = re.compile(r'\{"type":"(user|service)","id":"([^"\\]*)"\}')
"""A subject in the JSON of a mutation. In a text of a record, the quotes would be escaped."""
_TRANSACTION = itemgetter("revision", "committed_at", "nonce")
_EFFECT = itemgetter("kind", "operation", "course_id", "session_id", "previous")
"""What a leaf has of a revision, and of a change, as it is."""
_PSEUDONYM = re.compile(rf"(user|service):({PSEUDONYM_PREFIX}[0-9a-f]+)")
_ERASURES = tables.ENTITY_TABLES["erasure"]
_ACTOR = re.compile(r"(user|service):(.+)")
_ERASABLE = {
    "membership": re.compile(r'"(source_ref)":"([^"\\]*(?:\\.[^"\\]*)*)"'),
    "policy_version": re.compile(r'"(author|reason)":"([^"\\]*(?:\\.[^"\\]*)*)"'),
    "hold": re.compile(r'"(actor|reason)":"([^"\\]*(?:\\.[^"\\]*)*)"'),
}
"""By kind, the texts of a record that an erasure may change."""


class ChangeHash(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What a leaf has of one change: its position in the revision, its hash, and how many MACs it has.

    `content` is what is hashed; empty for a change that is purged.
    """

    position: int
    hash: str
    macs: int
    content: bytes = b""


_purged_decoder = msgspec.json.Decoder(tuple[ChangeHash, ...])


class Leaf(msgspec.Struct, frozen=True):
    """What is hashed; the hashes of the changes, in order, also of the purged ones; the hash in hexadecimal,
    the MACs, and the number of texts of which an erasure has taken something since."""

    content: bytes
    changes: tuple[ChangeHash, ...]
    hash: str
    macs: tuple[str, ...]
    erased: int


class LeafMaker:
    """Makes the leaves of a database. In a leaf, the pseudonym of an erased subject is the subject."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._key = read_token_key(connection)
        self._hasher = blake2b(digest_size=_MAC_BYTES, key=self._key, person=b"logged text")
        self._mac_of_erased = lru_cache(_MAX_NAMES)(self._find_mac)
        self.named = lru_cache(_MAX_NAMES)(self._name_actor)
        """Of a subject, or of a caller and a person, what a leaf has instead, as far as they are subjects."""

    def _find_mac(self, type_name: str, id_: str) -> str | None:
        """The keyed hash of the erased subject with a pseudonym; None if it is no pseudonym."""
        same = _ERASURES.c.pseudonym_type == type_name, _ERASURES.c.pseudonym_id == id_
        found: str | None = self._connection.scalar(select(_ERASURES.c.mac).where(*same))
        return found

    def leaf(self, head: Values, rows: Sequence[Values], stored: Row[Any] | None = None) -> Leaf:
        """The leaf of a revision and its changes. `stored` is the row of the leaf that it was committed with:
        its MACs stand for texts that an erasure has changed since, its hashes for changes that are purged."""
        text_macs = () if stored is None else stored.text_macs.split(" ")
        purged = () if stored is None or not stored.purged else _purged_decoder.decode(stored.purged)
        macs = _TextMacs(self._hasher, head["revision"], text_macs, self._names_erased)
        reason, request_id = (macs.mac_of(head[name]) for name in ("reason", "request_id"))
        changes = [*self._hashes(rows, purged, macs)]
        fields = [
            _FORMAT,
            *_TRANSACTION(head),
            self.named(head["actor"]),
            reason,
            request_id,
            [each.hash for each in changes],
        ]
        content = msgspec.json.encode(fields)
        return Leaf(content, tuple(changes), leaf_hash(content).hex(), tuple(macs.made), macs.erased)

    def row(self, head: Values, rows: Sequence[Values], tree: MerkleTree | None = None) -> dict[str, Any]:
        """The row of the leaf of a revision that is committed as it is. Adds the leaf to `tree`, which has
        those before it; without one, the row has no part."""
        leaf = self.leaf(head, rows)
        return {
            "revision": head["revision"],
            "hash": leaf.hash,
            "text_macs": " ".join(leaf.macs),
            "purged": "",
            "part": next_part(tree, leaf.hash),
        }

    def _hashes(
        self, rows: Sequence[Values], purged: Sequence[ChangeHash], macs: _TextMacs
    ) -> Iterator[ChangeHash]:
        changes: dict[int, ChangeHash | Values] = {each.position: each for each in purged}
        changes |= {row["position"]: row for row in rows}
        for position in sorted(changes):
            change = changes[position]
            if isinstance(change, ChangeHash):
                macs.skip(change.macs)
                yield change
            else:
                before = len(macs.made)
                content = msgspec.json.encode(self._change(change, macs))
                hashed = sha256(content).hexdigest()
                yield ChangeHash(position, hashed, len(macs.made) - before, content)

    def _change(self, row: Values, macs: _TextMacs) -> list[str | int | None]:
        text = _SUBJECT.sub(self._named_in, row["mutation"])
        erasable = _ERASABLE.get(row["kind"])
        if erasable is not None:
            text = erasable.sub(lambda found: f'"{found[1]}":"{macs.mac_of(found[2])}"', text)
        return [*_EFFECT(row), text]

    def _named_in(self, found: re.Match[str]) -> str:
        return f'{{"type":"{found[1]}","id":"{self._name(found[1], found[2])}"}}'

    def _name_actor(self, actor: str) -> str:
        return " for ".join(map(self._named_alone, actor.split(" for ")))

    def _named_alone(self, text: str) -> str:
        found = _ACTOR.fullmatch(text)
        return text if found is None else f"{found[1]}:{self._name(found[1], found[2])}"

    def _name(self, type_name: str, id_: str) -> str:
        erased = self._mac_of_erased(type_name, id_) if id_.startswith(PSEUDONYM_PREFIX) else None
        return erased or subject_mac(self._key, Subject(SubjectType(type_name), id_))

    def subject(self, subject: Subject) -> Subject:
        """A subject as a leaf names it: the pseudonym of an erased one as the subject itself."""
        return Subject(subject.type, self._name(subject.type.value, subject.id))

    def _names_erased(self, text: str) -> bool:
        return any(self._mac_of_erased(*found) for found in _PSEUDONYM.findall(text))


class _TextMacs:
    """Makes the MACs of one revision, in order. A text that an erasure has changed keeps its first MAC."""

    def __init__(
        self, hasher: blake2b, revision: int, stored: Sequence[str], names_erased: Callable[[str], bool]
    ) -> None:
        self._hasher = hasher
        self._revision = revision
        self._stored = stored
        self._names_erased = names_erased
        self.made: list[str] = []
        self.erased = 0

    def skip(self, count: int) -> None:
        """Leave the MACs of a purged change as they are."""
        self.made += self._stored[len(self.made) : len(self.made) + count]

    def mac_of(self, text: str) -> str:
        """The MAC of the next text; empty for an empty one."""
        place, mac = len(self.made), ""
        if text:
            hasher = self._hasher.copy()
            hasher.update(f"{self._revision}\0{place}\0{text}".encode())
            mac = hasher.hexdigest()
        before = self._stored[place] if place < len(self._stored) else ""
        if before and mac != before and (not text or self._names_erased(text)):
            mac, self.erased = before, self.erased + 1
        self.made.append(mac)
        return mac


def next_leaves(
    connection: Connection, changes: Sequence[tuple[Values, Sequence[Values]]]
) -> list[dict[str, Any]]:
    """The rows of the leaves of the next revisions, each with its changes."""
    leaf_maker = LeafMaker(connection)
    tree = resume(connection, CHANGES, changes[0][0]["revision"] - 1)
    return [leaf_maker.row(head, rows, tree) for head, rows in changes]
