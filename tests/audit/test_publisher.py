"""Checkpoints that servers sign in turns, and publish to a file and to an https address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from authz.audit.destinations import Destination, FileDestination, HttpsDestination
from authz.audit.notes import Checkpoint, NoteSigner, NoteVerifier
from authz.audit.publisher import CheckpointPublisher
from authz.domain.entities import Course
from authz.domain.instants import US_PER_S
from authz.store import Store, tables
from authz.store.database.engine import open_engine, write_transaction
from authz.store.log.verification import read_trees
from authz.telemetry.metrics import REGISTRY
from tests.databases import read_tree
from tests.https import Address, https_address
from tests.store.directory import create, open_with, write
from tests.store.log.test_decisions import ENTRY

MINUTE = 60 * US_PER_S
SIGNER = NoteSigner.generate("example.org/authz")


class Servers:
    """Publishers over one database, with a clock and a log that grows."""

    def __init__(self, url: str, store: Store, folder: Path) -> None:
        self.url, self.store, self.now = url, store, 1_700_000_000_000_000
        self.file = folder / "checkpoint"
        self._courses = 0

    def publisher(self, *destinations: Destination, signer: NoteSigner = SIGNER) -> CheckpointPublisher:
        return CheckpointPublisher(
            signer,
            self.store.proofs,
            self.store.checkpoints,
            [FileDestination(self.file), *destinations],
            clock=lambda: self.now,
            interval_us=MINUTE,
        )

    def write(self) -> None:
        self._courses += 1
        write(self.store, create(Course(id=f"c{self._courses}")))

    def published(self) -> Checkpoint:
        return NoteVerifier(SIGNER.public_key()).open(self.file.read_text(), field="file")

    def change_a_leaf(self) -> None:
        engine = open_engine(self.url)
        with write_transaction(engine) as connection:
            first = tables.leaves.c.revision == 1
            connection.execute(update(tables.leaves).where(first).values(hash="0" * 64))
        engine.dispose()


@contextmanager
def over(url: str, folder: Path) -> Iterator[Servers]:
    store = open_with(url)
    yield Servers(url, store, folder)
    store.close()


@pytest.fixture
def servers(sqlite_url: str, tmp_path: Path) -> Iterator[Servers]:
    with over(sqlite_url, tmp_path) as found:
        yield found


@pytest.fixture
def servers_of_each(store_url: str, tmp_path: Path) -> Iterator[Servers]:
    """On each database."""
    with over(store_url, tmp_path) as found:
        yield found


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    with https_address(tmp_path, monkeypatch) as made:
        made.location = "https://localhost/elsewhere"
        yield made


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("authz_checkpoints_total", {"outcome": outcome}) or 0.0


def test_one_server_signs_in_each_interval_in_which_the_log_has_grown(servers_of_each: Servers) -> None:
    servers = servers_of_each
    one, other = servers.publisher(), servers.publisher()
    servers.write()
    one.publish_due()
    first = servers.published()
    assert (first.size, first.root) == (1, read_tree(servers.url).roots[1])
    servers.write()
    other.publish_due()
    assert servers.published() == first
    servers.now += MINUTE
    other.publish_due()
    assert servers.published().size == 2
    servers.file.unlink()
    servers.now += MINUTE
    one.publish_due()
    assert not servers.file.exists()


def test_a_server_that_was_killed_while_it_signed_is_followed_by_another(servers_of_each: Servers) -> None:
    servers = servers_of_each
    servers.write()
    seen = servers.store.checkpoints.newest()
    claimed = msgspec.structs.replace(seen, next_at=servers.now + MINUTE)
    assert servers.store.checkpoints.replace(seen, claimed)
    assert not servers.store.checkpoints.replace(seen, claimed)
    servers.publisher().publish_due()
    assert not servers.file.exists()
    servers.now += MINUTE
    servers.publisher().publish_due()
    assert servers.published().size == 1


def test_a_clock_that_was_ahead_does_not_hold_up_the_others(servers: Servers) -> None:
    servers.write()
    servers.now += 1000 * MINUTE
    servers.publisher().publish_due()
    servers.now -= 1000 * MINUTE
    servers.write()
    servers.publisher().publish_due()
    assert servers.published().size == 2


@pytest.mark.parametrize("status", [500, 302])
def test_what_an_address_refuses_is_posted_again_and_other_places_have_it_at_once(
    servers: Servers, address: Address, status: int
) -> None:
    publisher, failures = servers.publisher(HttpsDestination(address.url)), counted("failed")
    servers.write()
    address.status = status
    with capture_logs() as lines:
        publisher.publish_due()
    assert servers.published().size == 1
    assert address.posted == []
    assert counted("failed") == failures + 1
    assert [line["destination"] for line in lines] == [address.url]
    assert str(status) in lines[0]["error"]
    assert is_tried_again(publisher, servers)
    servers.write()  # which nothing holds up
    address.status = 200
    assert is_tried_again(publisher, servers)
    assert [NoteVerifier(SIGNER.public_key()).open(each, field="").size for each in address.posted] == [1]
    servers.now += MINUTE
    publisher.publish_due()
    assert address.posted[1:] == [servers.file.read_text()]
    assert servers.published().size == 2


def test_an_added_destination_gets_the_newest_checkpoint_once_though_nothing_changes(
    servers_of_each: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = servers_of_each
    servers.write()
    servers.publisher().publish_due()
    note = servers.file.read_text()
    with https_address(tmp_path, monkeypatch) as address:
        for _ in range(3):  # another server, or the same after a restart
            servers.file.unlink(missing_ok=True)
            servers.now += MINUTE
            servers.publisher(HttpsDestination(address.url)).publish_due()
            servers.publisher().publish_due()
        assert address.posted == [note]
        assert not servers.file.exists()


def test_a_checkpoint_that_failed_somewhere_is_not_repeated_elsewhere_after_a_restart(
    servers: Servers, address: Address
) -> None:
    servers.write()
    address.status = 500
    servers.publisher(HttpsDestination(address.url)).publish_due()
    note = servers.file.read_text()
    servers.file.unlink()
    address.status = 200
    for _ in range(2):
        servers.now += 10 * US_PER_S
        servers.publisher(HttpsDestination(address.url)).publish_due()
    assert address.posted == [note]
    assert not servers.file.exists()


def is_tried_again(publisher: CheckpointPublisher, servers: Servers) -> bool:
    """Whether only those who have not the checkpoint get it, however often it is tried; the file has it."""
    servers.file.unlink(missing_ok=True)
    for _ in range(2):
        servers.now += 10 * US_PER_S
        publisher.publish_due()
    return not servers.file.exists()


def test_an_address_that_stays_down_holds_up_no_later_checkpoint(servers: Servers, address: Address) -> None:
    publishers = [servers.publisher(HttpsDestination(address.url)) for _ in range(2)]
    address.status = 500
    sizes = []
    for _ in range(18):  # in three minutes of changes, by two servers in turns
        servers.write()
        publishers.reverse()
        publishers[0].publish_due()
        publishers[1].publish_due()
        servers.now += 10 * US_PER_S
        sizes.append(servers.published().size)
    assert sizes == [*[1] * 6, *[7] * 6, *[13] * 6]
    assert address.posted == []


def test_what_another_key_has_signed_is_not_published_again(servers: Servers, address: Address) -> None:
    servers.write()
    address.status = 500
    other = NoteSigner.generate("example.org/new")
    servers.publisher(HttpsDestination(address.url), signer=other).publish_due()
    servers.now += 10 * US_PER_S
    servers.publisher(HttpsDestination(address.url)).publish_due()
    assert servers.published().size == 1


@pytest.mark.parametrize("forge", [True, False])
def test_a_history_that_does_not_continue_the_checkpoint_is_not_signed(servers: Servers, forge: bool) -> None:
    servers.write()
    servers.publisher().publish_due()
    signed, refusals = servers.published(), counted("refused")
    if forge:
        servers.change_a_leaf()
    servers.write()
    servers.now += MINUTE
    with capture_logs() as lines:
        servers.publisher().publish_due()
    assert counted("refused") == refusals + forge
    assert servers.published().size == (1 if forge else 2)
    assert any("authz audit verify" in line["event"] for line in lines) is forge
    assert signed.size == 1


def test_a_new_key_signs_what_it_finds(servers: Servers) -> None:
    servers.write()
    servers.publisher().publish_due()
    servers.write()
    servers.now += MINUTE
    other = NoteSigner.generate("example.org/new")
    servers.publisher(signer=other).publish_due()
    found = NoteVerifier(other.public_key()).open(servers.file.read_text(), field="file")
    assert found.size == 2


def test_a_tree_without_its_stored_hashes_is_not_signed(servers: Servers) -> None:
    servers.write()
    servers.write()
    engine = open_engine(servers.url)
    with write_transaction(engine) as connection:
        connection.execute(update(tables.leaves).values(part=None))
    engine.dispose()
    refusals = counted("refused")
    with capture_logs() as lines:
        servers.publisher().publish_due()
    assert counted("refused") == refusals + 1
    assert any("authz audit verify" in line.get("error", "") for line in lines)
    assert not servers.file.exists()


def test_logged_decisions_are_signed_too_and_held_to_the_checkpoint(servers: Servers) -> None:
    servers.store.decisions.append([ENTRY])
    servers.publisher().publish_due()
    signed = servers.published()
    assert (signed.size, signed.decisions_size) == (0, 1)
    assert signed.decisions_root == read_trees(servers.url)[1].roots[1]
    engine = open_engine(servers.url)
    with write_transaction(engine) as connection:
        connection.execute(update(tables.decision_leaves).values(hash="0" * 64))
    engine.dispose()
    servers.now += MINUTE
    servers.write()
    refusals = counted("refused")
    servers.publisher().publish_due()
    assert counted("refused") == refusals + 1
    assert servers.published() == signed
