"""Attempts to change history in a database, each with what `authz audit verify` says of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from authz.domain.erasures import subject_mac
from authz.store import tables
from authz.store.log.leaves import LeafMaker
from authz.store.log.reader import read_token_key
from tests.store.directory import user

LAST = 6
"""The last revision of the history that `test_audit_tree` makes."""
_erasures, _memberships, _accounts = (
    tables.ENTITY_TABLES[kind] for kind in ("erasure", "membership", "account")
)
_changes, _revisions, _leaves, _counter = tables.changes, tables.revisions, tables.leaves, tables.counter


def at(revision: int) -> Any:
    return _revisions.c.revision == revision


def mutation(revision: int, before: str, after: str) -> Callable[[Connection], None]:
    """Replace a part of what a revision has changed."""

    def attempt(connection: Connection) -> None:
        wanted = select(_changes).where(_changes.c.revision == revision, _changes.c.mutation.contains(before))
        row = connection.execute(wanted).one()
        same = (_changes.c.revision == revision, _changes.c.position == row.position)
        changed = row.mutation.replace(before, after)
        connection.execute(update(_changes).where(*same).values(mutation=changed))

    return attempt


def column(revision: int, **values: Any) -> Callable[[Connection], None]:
    """Say something else of a revision."""

    def attempt(connection: Connection) -> None:
        connection.execute(update(_revisions).where(at(revision)).values(**values))

    return attempt


def swapped_content(connection: Connection) -> None:
    rows = {
        row.revision: row.mutation
        for row in connection.execute(select(_changes).where(_changes.c.revision.in_((1, 3))))
    }
    for one, other in ((1, 3), (3, 1)):
        values = {"mutation": rows[other]}
        connection.execute(update(_changes).where(_changes.c.revision == one).values(**values))


def removed(revision: int, *more: Any) -> Callable[[Connection], None]:
    """Delete a revision from some tables."""

    def attempt(connection: Connection) -> None:
        for table in (_changes, _revisions, *more):
            connection.execute(delete(table).where(table.c.revision == revision))

    return attempt


def one_change_less(connection: Connection) -> None:
    connection.execute(delete(_changes).where(_changes.c.revision == 2, _changes.c.position == 1))


def one_leaf_less(connection: Connection) -> None:
    connection.execute(delete(_leaves).where(_leaves.c.revision == 4))


def cut_off(connection: Connection) -> None:
    removed(LAST, _leaves)(connection)
    connection.execute(update(_counter).values(revision=LAST - 1))


def as_if_erased(connection: Connection) -> None:
    """A pseudonym for somebody who was not erased, so that nobody sees who did it."""
    erasure = {
        "pseudonym_type": "user",
        "pseudonym_id": "erased-00",
        "mac": subject_mac(read_token_key(connection), user("omar")),
        "status": "COMPLETE",
        "started_at": 1,
        "reason": "",
        "released": False,
        "revision": 4,
    }
    connection.execute(insert(_erasures).values(**erasure))
    mutation(4, '"id":"omar"', '"id":"erased-00"')(connection)


def forged(connection: Connection) -> None:
    """What who knows the key of the database can do: a revision that agrees with a leaf of its own."""
    mutation(3, '"ai_enabled":true', '"ai_enabled":false')(connection)
    (head,) = map(dict, connection.execute(select(_revisions).where(at(3))).mappings())
    found = connection.execute(select(_changes).where(_changes.c.revision == 3)).mappings()
    leaf = LeafMaker(connection).row(head, [dict(row) for row in found])
    connection.execute(update(_leaves).where(_leaves.c.revision == 3).values(**leaf))


def unreadable(connection: Connection) -> None:
    connection.execute(update(_changes).where(_changes.c.revision == 4).values(mutation="{"))


def membership(person: str, **values: Any) -> Callable[[Connection], None]:
    """Change the membership of somebody, and leave history as it is."""

    def attempt(connection: Connection) -> None:
        same = _memberships.c.subject_id == person
        connection.execute(update(_memberships).where(same).values(**values))

    return attempt


def one_record_more(subject_id: str, revision: int) -> Callable[[Connection], None]:
    """Make somebody a student, as a copy of omar's membership."""

    def attempt(connection: Connection) -> None:
        row = connection.execute(select(_memberships).where(_memberships.c.subject_id == "omar")).one()
        values = dict(row._mapping) | {"subject_id": subject_id, "revision": revision}
        connection.execute(insert(_memberships).values(**values))

    return attempt


def no_source(connection: Connection) -> None:
    mutation(2, '"source_ref":"sis-7"', '"source_ref":""')(connection)
    membership("ada", source_ref="")(connection)


def hidden_by_an_erasure(connection: Connection) -> None:
    """A record that nobody wrote, and an erasure under way that the change log does not have."""
    one_record_more("mallory", 4)(connection)
    step = dict.fromkeys(("actor", "request_id"), "") | dict.fromkeys(("position", "steps"), 0)
    names = {"pseudonym_type": "user", "pseudonym_id": "erased-00", "phase": "records"}
    connection.execute(insert(tables.erasure_steps).values(counts="{}", kept="[]", **step, **names))


def no_suspension(connection: Connection) -> None:
    connection.execute(delete(_accounts))


NOT_AS_COMMITTED = "is not as it was committed"
ATTEMPTS: dict[str, tuple[Callable[[Connection], None], str]] = {
    "another role": (mutation(2, '"role":"student"', '"role":"teacher"'), f"revision 2 {NOT_AS_COMMITTED}"),
    "another person": (mutation(4, '"id":"omar"', '"id":"eve"'), f"revision 4 {NOT_AS_COMMITTED}"),
    "what was there before": (
        mutation(3, '"before":{"kind":"course","id":"c"', '"before":{"kind":"course","id":"d"'),
        f"revision 3 {NOT_AS_COMMITTED}",
    ),
    "another source": (mutation(2, '"sis-7"', '"sis-8"'), f"revision 2 {NOT_AS_COMMITTED}"),
    "another caller": (column(4, actor="service:other"), f"revision 4 {NOT_AS_COMMITTED}"),
    "another reason": (column(5, reason="report 18"), f"revision 5 {NOT_AS_COMMITTED}"),
    "a reason where there was none": (column(4, reason="he asked"), f"revision 4 {NOT_AS_COMMITTED}"),
    "another time": (column(3, committed_at=1), f"revision 3 {NOT_AS_COMMITTED}"),
    "two in another order": (swapped_content, f"revision 1 {NOT_AS_COMMITTED}"),
    "one change less": (
        one_change_less,
        f"revision 2 {NOT_AS_COMMITTED}",
    ),
    "a revision less": (removed(3), "revision 3 is gone"),
    "the first revision less": (removed(1), "revision 1 is gone"),
    "a revision less, with its leaf": (removed(3, _leaves), "revision 3 has no leaf"),
    "a leaf less": (
        one_leaf_less,
        "revision 4 has no leaf",
    ),
    "the last one less": (
        removed(LAST, _leaves),
        "the database counts 6 revisions, and the tree has 5",
    ),
    "the last one less, and the count": (
        cut_off,
        "the end is cut off: 6 revisions were signed, and the tree has 5",
    ),
    "an erasure that nobody asked for": (as_if_erased, "erasure erased-00 is not in the change log"),
    "what nobody can read": (unreadable, f"revision 4 {NOT_AS_COMMITTED}"),
    "a record that nobody wrote": (
        one_record_more("mallory", 4),
        "membership user:mallory student in course:c is not in the change log",
    ),
    "no reason": (column(5, reason=""), "revision 5 has lost a text, and nobody was erased since"),
    "no source": (no_source, "revision 2 has lost a text, and nobody was erased since"),
    "a record that nobody wrote, behind an erasure": (
        hidden_by_an_erasure,
        "membership user:mallory student in course:c is not in the change log",
    ),
    "a record that was deleted, put back": (
        one_record_more("maya", 2),
        "membership user:maya student in course:c is not in the change log",
    ),
    "another state of a record": (
        membership("ada", status="SUSPENDED"),
        "membership user:ada teacher in course:c is not as revision 2 made it",
    ),
    "another revision of a record": (
        membership("ada", revision=4),
        "membership user:ada teacher in course:c is not as revision 2 made it",
    ),
    "a record for somebody else": (
        membership("omar", subject_id="eve"),
        "membership user:omar student in course:c of revision 4 is gone",
    ),
    "a suspension less": (no_suspension, "account of user:eve of revision 6 is gone"),
    "a leaf that agrees": (forged, "the first 6 revisions are not those that were signed"),
}
