"""A server runs one export at a time, and hands out nothing of a person whose erasure has begun."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from authz.domain.entities import Course, CourseState, Membership
from authz.domain.erasures import ErasureRequest
from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.exports import ExportItem
from authz.domain.ids import Subject, course_scope
from authz.domain.origin import Origin
from authz.domain.tokens import KEY_BYTES, TokenKeys
from authz.engine.exports import Exporter
from tests.replica.conftest import following, gate_of, viewing
from tests.store.directory import create, open_with, user, write

MAYA = user("maya")
ERASURE = ErasureRequest(subject=MAYA, origin=Origin("service:dpo", "request 17"))


def test_an_export_ends_when_the_erasure_of_its_subject_begins(store_url: str, tmp_path: Path) -> None:
    store, folder, keys = open_with(store_url), tmp_path / "r", TokenKeys()
    membership = Membership(subject=MAYA, scope=course_scope("algebra"), role="student")
    write(store, create(Course(id="algebra", state=CourseState.ACTIVE)), create(membership))
    written: list[ExportItem] = []

    async def write_item(item: ExportItem) -> None:
        if not written:
            await asyncio.to_thread(store.personal_data.begin_erasure, ERASURE)
        written.append(item)

    with following(store, folder), viewing(folder) as view, gate_of(view, store, keys=keys) as gate:
        keys.add(store.directory.head().database_id, bytes(KEY_BYTES))
        exporter = Exporter(store.personal_data, gate, write_timeout_s=60)
        with pytest.raises(FailedPreconditionError) as ended:
            asyncio.run(exporter.export(MAYA, iter, write_item))
    assert ended.value.reason is ErrorReason.SUBJECT_ERASED
    assert len(written) == 1
    store.close()


async def _written_of_two(exporter: Exporter, *, cancels: bool) -> list[str]:
    """The names of the subjects of two exports that begin together, once for each item. With `cancels`, the
    first is cancelled while it writes."""
    written: list[str] = []
    goes_on = asyncio.Event()

    async def export(subject: Subject) -> None:
        async def write_item(_: ExportItem) -> None:
            written.append(subject.id)
            await goes_on.wait()

        await exporter.export(subject, iter, write_item)

    first, second = (asyncio.ensure_future(export(each)) for each in (MAYA, user("omar")))
    await asyncio.sleep(0.3)  # the second would begin in this time
    if cancels:
        first.cancel()
        await asyncio.wait([first])
    goes_on.set()
    async with asyncio.timeout(30):
        await asyncio.gather(first, second, return_exceptions=True)
    return written


# Of each export the first item and the last; nothing more of one that is cancelled.
@pytest.mark.parametrize(
    ("cancels", "expected"), [(False, ["maya", "maya", "omar", "omar"]), (True, ["maya", "omar", "omar"])]
)
def test_one_export_ends_before_the_next_begins(
    sqlite_url: str, tmp_path: Path, cancels: bool, expected: list[str]
) -> None:
    store, folder, keys = open_with(sqlite_url), tmp_path / "r", TokenKeys()
    write(store, create(Course(id="algebra", state=CourseState.ACTIVE)))
    with following(store, folder), viewing(folder) as view, gate_of(view, store, keys=keys) as gate:
        keys.add(store.directory.head().database_id, bytes(KEY_BYTES))
        exporter = Exporter(store.personal_data, gate, write_timeout_s=60)
        assert asyncio.run(_written_of_two(exporter, cancels=cancels)) == expected
    store.close()
