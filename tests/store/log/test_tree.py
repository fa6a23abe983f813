"""An erasure takes a person out of the history, and changes no leaf of its tree."""

from __future__ import annotations

import msgspec

from authz.domain.entities import Course, Membership, PolicyVersion
from authz.domain.erasures import ErasureRequest
from authz.domain.files import files_text
from authz.domain.ids import PLATFORM, course_scope
from authz.domain.mutations import Mutation, WriteRequest
from authz.domain.origin import Origin
from authz.store import Store
from tests.databases import read_tree
from tests.store.directory import create, notebook, open_with, share, student, touch, user, write
from tests.store.privacy.test_erasures import log_of

SCOPE = course_scope("c")
BEFORE = Membership(subject=user("maya"), scope=SCOPE, role="teacher", source="sis", source_ref="maya-7")
VERSION = PolicyVersion(
    scope=PLATFORM,
    number=1,
    digest="0" * 64,
    files=files_text({"default.csv": "# nobody"}),
    format=1,
    author="user:maya",
    reason="asked for by user:maya and user:omar",
)


def written_for(store: Store, actor: str, reason: str, *mutations: Mutation) -> None:
    request = WriteRequest(mutations=mutations, origin=Origin(actor, reason, "call of user:maya"))
    store.directory.write(request)


def test_an_erasure_changes_no_leaf(store_url: str) -> None:
    store = open_with(store_url)
    write(store, create(Course(id="c")), create(student("omar", "c")), create(BEFORE), reason="maya and omar")
    mine = notebook("nb", SCOPE)
    written_for(store, "service:x for user:maya", "for user:maya", create(mine), create(share("nb", "omar")))
    write(store, touch(msgspec.structs.replace(BEFORE, source_ref="maya-8")), reason="moved")
    written_for(store, "service:x", "her own", touch(msgspec.structs.replace(mine, owner=user("omar"))))
    written_for(store, "user:maya", "", create(VERSION))
    signed = read_tree(store_url)
    assert (signed.faults, signed.erased) == ((), 0)
    store.personal_data.begin_erasure(
        ErasureRequest(subject=user("maya"), origin=Origin(reason="request 17"), orphans=True)
    )
    while store.personal_data.erasure_progress() is not None:
        store.personal_data.advance_erasure()
    write(store, create(student("iris", "c")))
    assert "maya" not in log_of(store)
    assert repr(store.directory.follow(0, 1000).changes).count("before=Resource") == 1
    store.close()
    tree = read_tree(store_url, [signed.size])
    assert tree.faults == ()
    assert tree.roots[signed.size] == signed.roots[signed.size]
    assert tree.erased > 5
