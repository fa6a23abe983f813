"""Files of decisions name nobody who was erased, also in entries that waited or are about later questions."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from authz.audit.erased_names import ErasedNames
from authz.audit.lines import LinesFile
from authz.domain.decision_log import DecisionEntry
from authz.domain.erasures import ErasureRequest
from authz.domain.errors import ErrorReason, UnavailableError
from authz.domain.ids import parse_subject
from authz.domain.origin import Origin
from authz.store import Store
from tests.audit.test_decision_log import entry
from tests.store.directory import open_with

MAYA = parse_subject("user:maya")
ORIGIN = Origin(actor="service:officer", reason="request 2096-17")


class Machine:
    """A process with a file of decisions, and the generation of the replica of its machine."""

    def __init__(self, store: Store, path: Path) -> None:
        self.store = store
        self.path = path
        self.generation = 1
        self.file = self.another_process()

    def another_process(self) -> LinesFile:
        erased = ErasedNames(self.store.personal_data, lambda: self.generation)
        return LinesFile(self.path, max_bytes=1 << 20, kept=1, erased=erased)

    def erase(self) -> str:
        """Erase Maya in the database and the replica; return the pseudonym."""
        data = self.store.personal_data
        pseudonym = data.begin_erasure(ErasureRequest(subject=MAYA, origin=ORIGIN, orphans=True))
        while data.erasure_progress() is not None:
            data.advance_erasure()
        self.generation += 1
        return str(pseudonym)

    def logged(self) -> list[str]:
        return [json.loads(line)["subject"] for line in self.path.read_text().splitlines()]


@pytest.fixture
def machine(store_url: str, tmp_path: Path) -> Iterator[Machine]:
    store = open_with(store_url)
    yield Machine(store, tmp_path / "decisions.jsonl")
    store.close()


def test_an_entry_that_waited_while_another_process_cleared_the_file_has_the_pseudonym(
    machine: Machine,
) -> None:
    other = machine.another_process()
    other.write([entry(1)])
    machine.file.write([replace(entry(2), request_id="r-maya")])
    pseudonym = machine.erase()
    machine.file.erase(machine.store.personal_data.erased())
    late = threading.Thread(target=other.write, args=([entry(3), entry(4)],))
    late.start()
    late.join()
    assert machine.logged() == [pseudonym] * 4
    assert "r-maya" not in machine.path.read_text()


@pytest.mark.parametrize("field", ["subject", "person", "caller"])
def test_a_later_question_that_names_the_erased_id_has_the_pseudonym(machine: Machine, field: str) -> None:
    pseudonym = machine.erase()
    asked = replace(entry(1), **({"subject": "", "request_id": "r"} | {field: str(MAYA)}))
    machine.file.write([asked, replace(entry(2), subject="user:omar", request_id="r")])
    first, second = (json.loads(line) for line in machine.path.read_text().splitlines())
    assert (first[field], first["request_id"]) == (pseudonym, "")
    assert (second["subject"], second["request_id"]) == ("user:omar", "r")


def test_decisions_about_whoever_has_a_released_id_name_it(machine: Machine) -> None:
    pseudonym = machine.erase()
    machine.file.write([entry(1)])
    machine.store.personal_data.release(MAYA, ORIGIN)
    machine.file.write([entry(2)])
    assert machine.logged() == [pseudonym, str(MAYA)]


def test_without_the_database_entries_wait_once_somebody_may_have_been_erased(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    started_later = machine.another_process()
    machine.file.write([entry(1)])
    pseudonym = machine.erase()
    with monkeypatch.context() as away:
        for call in ("erased", "pseudonyms_of"):
            away.setattr(type(machine.store.personal_data), call, unavailable)
        with pytest.raises(UnavailableError):
            machine.file.write([entry(2)])
        started_later.write([entry(3)])  # a server that starts meanwhile keeps its log
        assert machine.logged() == [str(MAYA)] * 2
    machine.file.write([entry(2)])
    started_later.write([entry(4)])
    assert machine.logged() == [str(MAYA)] * 2 + [pseudonym] * 2
    with monkeypatch.context() as away:
        away.setattr(type(machine.store.personal_data), "pseudonyms_of", unavailable)
        machine.file.write([entry(5)])  # whether the id was released since is not known
    assert machine.logged()[-1] == pseudonym


def unavailable(*_: object) -> object:
    raise UnavailableError(ErrorReason.STORE_UNAVAILABLE, "the database does not answer")


def entries_without_names() -> list[DecisionEntry]:
    return [replace(entry(1), subject="", caller="unauthenticated")]


def test_an_entry_that_names_nobody_is_written_as_it_is(machine: Machine) -> None:
    machine.erase()
    machine.file.write(entries_without_names())
    assert machine.logged() == [""]
