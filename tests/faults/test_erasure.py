"""A process that is killed at any point of an erasure: it has not begun, or the next process completes it."""

from __future__ import annotations

import os
import random
import signal

import pytest
from sqlalchemy import select

from authz.domain.entities import ErasureFilter, ErasureStatus, MembershipFilter, ResourceFilter, ShareFilter
from authz.domain.errors import FailedPreconditionError
from authz.domain.ports import Page
from authz.store import Store
from authz.store.database.engine import open_engine, read_transaction, sqlite_file
from authz.store.log.verification import read_trees
from authz.store.tables import metadata
from tests.faults.erasing import REQUEST
from tests.forkserver import Process
from tests.properties import LONG
from tests.store.directory import hold, open_with, release_hold
from tests.store.log.test_decisions import entries
from tests.store.privacy.test_erasures import MAYA, STU, fill, of_stu

MOST_STATEMENTS = 40 if LONG else 60
"""That a process makes before it is killed: more than any step of this erasure needs. In CI each process may
make as many more as the one before it, so that the erasure comes to its end after a few of them."""
MOST_DELAY_S = 0.004


def killed(url: str, kills: int) -> bool:
    """Whether a process that erases, after so many others, was killed on its way, at a random point."""
    delay_s = random.choice((0.0, random.uniform(0, MOST_DELAY_S)))
    most = MOST_STATEMENTS * (1 if LONG else kills + 1)
    arguments = (url, str(random.randint(1, most)), str(delay_s))
    process = Process(*arguments, environ=os.environ, stderr=2, module="tests.faults.erasing")
    code = process.wait(60)
    assert code in (0, -signal.SIGKILL), arguments
    return code != 0


def of_maya(store: Store) -> list[object]:
    filters = (MembershipFilter(subject=MAYA), ShareFilter(subject=MAYA), ResourceFilter(owner=MAYA))
    return [each.entity for wanted in filters for each in store.directory.read(wanted, Page(100, "")).items]


def has_begun(store: Store) -> bool:
    return bool(store.directory.read(ErasureFilter(), Page(10, "")).items)


def everything(url: str) -> str:
    """What is in the tables, and in the files of SQLite."""
    engine, file = open_engine(url), sqlite_file(url)
    with read_transaction(engine) as connection:
        rows = [repr(connection.execute(select(table)).all()) for table in metadata.sorted_tables]
    engine.dispose()
    files = [] if file is None else [repr(each.read_bytes()) for each in file.parent.glob(f"{file.name}*")]
    return "".join(rows + files)


def test_an_erasure_that_is_killed_anywhere_has_not_begun_or_goes_on(store_url: str) -> None:
    store = open_with(store_url)
    fill(store)
    hold(store, STU, f"he wrote to {MAYA}", f"service:dpo for {MAYA}")
    hold(store, MAYA, "maya sues")
    release_hold(store, MAYA, "maya has settled")
    store.decisions.append(entries(7))
    whole, others = of_maya(store), of_stu(store)
    (log, decisions), kills = read_trees(store_url), 0
    store.close()
    while killed(store_url, kills):
        kills += 1
        store = open_with(store_url)
        assert of_stu(store) == others
        if has_begun(store):
            with pytest.raises(FailedPreconditionError, match="user:maya was erased"):
                store.personal_data.begin_erasure(REQUEST)
        else:
            assert of_maya(store) == whole
        store.close()
    store = open_with(store_url)
    (erasure,) = store.directory.read(ErasureFilter(), Page(10, "")).items
    assert erasure.entity.status is ErasureStatus.COMPLETE
    removed = store.personal_data.certificate(erasure.entity.pseudonym).removed
    assert (removed["membership records deleted"], removed["decisions rewritten"]) == (3, 7)
    assert of_stu(store) == others
    store.close()
    left = everything(store_url)
    assert "user:maya" not in left
    assert "'user', 'maya'" not in left
    assert '"user","id":"maya"' not in left
    assert "maya sues" not in left
    assert "maya has settled" not in left
    after = read_trees(store_url, (log.size,), (decisions.size,))
    assert [each.faults for each in after] == [(), ()]
    assert after[0].roots[log.size] == log.roots[log.size]
    assert after[1].roots[decisions.size] == decisions.roots[decisions.size]
    assert kills
