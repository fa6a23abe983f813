"""An erasure reaches watchers, files and machines that were away."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial, partialmethod
from pathlib import Path
from typing import NoReturn

import msgspec
import psycopg
import pytest

from authz.client import CallError, Client
from authz.domain.entities import Course, Erasure, ErasureStatus
from authz.domain.erasures import ErasureCertificate
from authz.domain.errors import ErrorReason, UnavailableError
from authz.domain.ids import Subject, parse_subject
from authz.domain.mutations import Mutation, Operation
from authz.store.privacy.personal_data import PersonalData
from tests.api.test_erasure import REASON, STU, Person, person
from tests.api.test_long_calls_for_persons import Held
from tests.databases import create_sqlite
from tests.service import in_process
from tests.serving import drain, over_grpc, served, serving
from tests.waiting import until

GUIDE = Path(__file__).parents[2] / "docs/privacy.md"


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


@in_process
def test_whoever_erases_is_answered_in_time_and_the_erasure_goes_on(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(sqlite_url, erasure_grace_s="4") as address, Client(address) as client:
        first, other = person(client), person(client)
        hurried = client.with_options(timeout_s=2).privacy
        certificate = hurried.erase(first.subject, reason=REASON, orphan_resources=True)
        assert certificate.erasure.status is ErasureStatus.ERASING
        with monkeypatch.context() as failing:
            failing.setattr("authz.store.privacy.personal_data.erase_records", unavailable)
            certificate = client.privacy.erase(other.subject, reason=REASON, orphan_resources=True)
        assert certificate.erasure.status is ErasureStatus.ERASING
        first.complete()
        other.complete()


@in_process
def test_others_write_while_a_server_searches_for_an_erasure(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(PersonalData.prepare_erasure)
    monkeypatch.setattr(PersonalData, "prepare_erasure", partialmethod(held))
    with served(sqlite_url) as address, Client(address) as client, ThreadPoolExecutor(1) as pool:
        maya = person(client)
        erase = partial(client.privacy.erase, maya.subject, reason=REASON, orphan_resources=True)
        erased = pool.submit(erase)
        assert held.begun.wait(20)
        client.write([Mutation(Operation.CREATE, Course("biology"))])
        assert not erased.done()
        held.may_end.set()
        erased.result()
        maya.complete()


def unavailable(*_: object) -> NoReturn:
    raise UnavailableError(ErrorReason.STORE_UNAVAILABLE, "the database does not answer")


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


def test_a_name_that_no_machine_and_no_watcher_can_have_is_refused(store_url: str) -> None:
    with served(store_url) as address, Client(address) as client:
        for field, forget in (
            ("name", client.privacy.forget_replica),
            ("caller", client.privacy.forget_watcher),
        ):
            for name in ("", "a\nb", "a\0b", "x" * 4097):
                with pytest.raises(CallError, match=f"^{field} is no name that") as refused:
                    forget(name)
                assert refused.value.reason == ErrorReason.MALFORMED_FIELD
            with pytest.raises(CallError, match=r"^there is no .* `日日") as refused:
                forget("日" * 4096)
            assert refused.value.reason == ErrorReason.PRECONDITION_FAILED


def logged_to(folder: Path, name: str) -> dict[str, str]:
    """The settings of a machine that logs decisions to a file of its own, and to the table."""
    folder.joinpath(name).mkdir(exist_ok=True)
    log = f"file:{folder / name / 'decisions.jsonl'},table"
    return {"replica_dir": str(folder / name / "replica"), "replica_name": name, "decision_log": log}


def machines(client: Client, certificate: ErasureCertificate) -> dict[str, bool]:
    """Whether each machine has confirmed an erasure. Asked by the pseudonym: reads are logged."""
    (found,) = client.privacy.erasures(certificate.erasure.pseudonym)
    return {each.name: each.is_cleared for each in found.replicas}


def test_each_machine_clears_its_files_of_decisions_before_it_confirms(
    store_url: str, tmp_path: Path
) -> None:
    there, away = logged_to(tmp_path, "there"), logged_to(tmp_path, "away")
    with served(store_url, **away) as address, Client(address) as client:
        maya = person(client)
        for subject in (maya.subject, STU):
            client.check(subject, "read", maya.diary)
    with served(store_url, **there) as address, Client(address) as client:
        for subject in (maya.subject, STU):
            client.check(subject, "read", maya.essay)
        certificate = client.privacy.erase(maya.subject, reason=REASON, orphan_resources=True)
        until(lambda: machines(client, certificate) == {"away": False, "there": True})
        assert files_with(maya, tmp_path / "there") == []
        assert files_with(maya, tmp_path / "away") != []
        client.check(maya.subject, "read", maya.essay)
        assert len([*client.privacy.erasures(maya.subject)]) == 1
        with pytest.raises(CallError, match="machine `away` has not confirmed the erasure"):
            client.privacy.release(maya.subject, reason="a namesake")
    with served(store_url, **away) as address, Client(address) as client:
        until(lambda: machines(client, certificate) == {"away": True, "there": True})
        assert files_with(maya, tmp_path) == []
        assert str(certificate.erasure.pseudonym) in {each.subject for each in client.audit.decisions()}
        client.privacy.release(maya.subject, reason="a namesake")
        client.check(maya.subject, "read", maya.essay)
    assert maya.subject in {*subjects_logged(tmp_path / "away")}
    assert files_with(maya, tmp_path / "there") == []
    for folder in (tmp_path / "there", tmp_path / "away"):
        assert {STU, certificate.erasure.pseudonym} <= {*subjects_logged(folder)}


@over_grpc
def test_a_machine_that_cannot_clear_its_file_of_decisions_does_not_confirm(
    sqlite_url: str, tmp_path: Path
) -> None:
    blocked = tmp_path / "here" / "decisions.jsonl.new"
    machine = {f"AUTHZ_{name.upper()}": value for name, value in logged_to(tmp_path, "here").items()}
    with serving(sqlite_url, AUTHZ_ERASURE_GRACE_S="0", **machine) as (process, address):
        assert process.stderr is not None
        with Client(address) as client:
            maya = person(client)
            client.check(maya.subject, "read", maya.diary)
            blocked.mkdir()
            certificate = client.privacy.erase(maya.subject, reason=REASON, orphan_resources=True)
            next(line for line in process.stderr if "erased subjects are still in a file" in line)
            assert machines(client, certificate) == {"here": False}
            assert files_with(maya, tmp_path / "here") == [str(tmp_path / "here" / "decisions.jsonl")]
            drain(process)
            blocked.rmdir()
            until(lambda: machines(client, certificate) == {"here": True})
            assert files_with(maya, tmp_path / "here") == []


def test_no_file_of_postgresql_has_the_id_after_the_commands_of_the_guide(
    postgresql_url: str, tmp_path: Path
) -> None:
    at_installation, after = re.findall(r"```sql\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    with psycopg.connect(postgresql_url, autocommit=True) as database:
        try:
            for each in at_installation.splitlines():
                database.execute(each.encode())
            with served(postgresql_url, **logged_to(tmp_path, "here")) as address, Client(address) as client:
                maya = person(client)
                client.check(maya.subject, "read", maya.diary)
                maya.erased()
            (folder,) = database.execute("SHOW data_directory").fetchone() or ("",)
            assert of_postgresql_with(maya, Path(folder))
            for each in after.splitlines():
                database.execute(each.encode())
            assert of_postgresql_with(maya, Path(folder)) == []
        finally:
            database.execute("ALTER SYSTEM RESET wal_recycle")
            database.execute("SELECT pg_reload_conf()")


def of_postgresql_with(maya: Person, folder: Path) -> list[str]:
    name = re.compile(maya.subject.id.encode() + rb"(?![0-9])")  # other tests of this process have `<id>0`
    found = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a temporary file of PostgreSQL
            if path.is_file() and name.search(path.read_bytes()):
                found.append(str(path))
    return found


def test_an_id_that_was_given_to_somebody_new_stays_in_files_of_decisions(
    sqlite_url: str, tmp_path: Path
) -> None:
    machine = logged_to(tmp_path, "here") | {"replica_name": "-"}
    with served(sqlite_url, **machine) as address, Client(address) as client:
        maya = person(client)
        client.privacy.erase(maya.subject, reason=REASON, orphan_resources=True)
        client.privacy.release(maya.subject, reason="a namesake")
        client.check(maya.subject, "read", maya.diary)
    other = {"decision_log": machine["decision_log"], "replica_dir": machine["replica_dir"]}
    with served(sqlite_url, replica_name="new", **other) as address, Client(address) as client:
        (certificate,) = client.privacy.erasures()
        until(lambda: machines(client, certificate) == {"new": True})
        assert maya.subject in {*subjects_logged(tmp_path / "here")}


def logged_lines(folder: Path) -> list[str]:
    return folder.joinpath("decisions.jsonl").read_text().splitlines()


def subjects_logged(folder: Path) -> list[Subject]:
    found = [json.loads(line)["subject"] for line in logged_lines(folder)]
    return [parse_subject(each) for each in found if each]
