"""An erasure reaches watchers, files and machines that were away."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from authz.client import CallError, Client
from authz.domain.entities import Course, Erasure, ErasureStatus
from authz.domain.errors import ErrorReason
from authz.domain.ids import Subject
from authz.domain.mutations import Mutation, Operation
from tests.api.test_erasure import REASON, STU, Person, person
from tests.databases import create_sqlite
from tests.serving import served


def test_a_watch_is_told_of_the_erasure_and_one_that_lags_reads_the_directory_again(sqlite_url: str) -> None:
    with served(sqlite_url, erasure_grace_s="0.3") as address, Client(address) as client:
        maya = person(client)
        before = client.current_token()
        client.write([Mutation(Operation.CREATE, Course("biology"))])
        told: list[Mutation] = []
        named: list[Subject] = []
        with closing(client.watch(after=before)) as changes:
            next(changes)
            client.privacy.erase(maya.subject, reason=REASON, orphan_resources=True)
            while not told or getattr(told[-1].target, "status", "") != ErasureStatus.COMPLETE:
                change = next(changes)
                told += change.mutations
                named += change.erasing
        assert named == [maya.subject]
        erasures = [each.target for each in told if isinstance(each.target, Erasure)]
        assert [each.status for each in erasures] == [*ErasureStatus]
        deleted = [str(each.key) for each in told if each.operation is Operation.DELETE]
        assert f"account of {maya.subject}" in deleted
        with (
            pytest.raises(CallError, match="read the directory again") as expired,
            closing(client.watch(after=before)) as changes,
        ):
            next(changes)
        assert expired.value.reason == ErrorReason.TOKEN_EXPIRED


def files_with(maya: Person, folder: Path) -> list[str]:
    name = maya.subject.id.encode()
    return [str(path) for path in folder.rglob("*") if path.is_file() and name in path.read_bytes()]


def test_no_file_has_the_id_and_a_machine_that_was_away_is_listed_until_it_confirms(tmp_path: Path) -> None:
    url = create_sqlite(tmp_path / "authz.db")
    away = {"replica_dir": str(tmp_path / "away"), "replica_name": "away"}
    with served(url, **away) as address, Client(address) as client:
        maya = person(client)
        files = client.policies.files()
        files["default.csv"] += "\n# A comment.\n"
        client.policies.apply(files, author=str(maya.subject), reason=f"{maya.subject} asked")
        client.privacy.hold(STU, reason=f"a claim of {maya.subject}")
        client.privacy.hold(maya.subject, reason=f"{maya.subject.id} sues")
        client.privacy.release_hold(maya.subject, reason=f"{maya.subject.id} has settled")
    with served(url, replica_name="here") as address, Client(address) as client:
        maya = msgspec.structs.replace(maya, client=client)
        client.privacy.erase(maya.subject, reason=REASON, orphan_resources=True)
        confirmed = {"here": False}
        while confirmed != {"away": False, "here": True}:
            (found,) = client.privacy.erasures(maya.subject)
            confirmed = {each.name: each.is_cleared for each in found.replicas}
            time.sleep(0.05)
        assert found.removed["policy versions renamed in"] == 1
        assert found.removed["holds renamed in"] == 1
        client.privacy.forget_replica("away")
        (found,) = client.privacy.erasures(maya.subject)
        assert [each.name for each in found.replicas] == ["here"]
        with pytest.raises(CallError, match="there is no replica `away`"):
            client.privacy.forget_replica("away")
        assert {Path(each).parent.parent.name for each in files_with(maya, tmp_path)} == {"away"}
    with served(url, **away) as address, Client(address) as client:
        maya = msgspec.structs.replace(maya, client=client)
        maya.complete()
        assert not client.check(maya.subject, "read", maya.diary).allowed
        assert files_with(maya, tmp_path) == []
    assert files_with(maya, tmp_path) == []
