"""Proofs about the change log by call, held against an independent verifier, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import msgspec
import pytest
import scitt_cose
from sqlalchemy import update

from authz.client import CallError, Client
from authz.domain.entities import Account, Course, Membership
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation
from authz.store import tables
from authz.store.database.engine import open_engine, write_transaction
from tests.cli.commands import run
from tests.databases import read_tree
from tests.serving import served

NAME = "example.org/authz"
MAYA = parse_subject("user:maya")


@pytest.fixture(scope="module")
def served_log(shared_store_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    folder = tmp_path_factory.mktemp("proofs")
    key = run("audit", "keygen", NAME, folder / "key").stdout.strip()
    with served(shared_store_url) as address, Client(address) as client:
        log = Log(shared_store_url, folder, key, address, client)
        log.write(Course("c"), reason="the term begins")
        log.write(Membership(MAYA, course_scope("c"), "student", source_ref="sis-7"))
        log.sign("early")
        for number in range(11):
            log.write(Account(parse_subject(f"user:p{number}")))
        log.sign("late")
        yield log


class Log:
    """The change log of a running server, and checkpoints of it."""

    def __init__(self, url: str, folder: Path, key: str, address: str, client: Client) -> None:
        self.url, self.folder, self.key, self.address, self.client = url, folder, key, address, client

    def write(self, record: Account | Course | Membership, reason: str = "") -> None:
        self.client.write([Mutation(Operation.TOUCH, record)], reason=reason)

    def sign(self, name: str) -> None:
        signed = run("audit", "checkpoint", "--key", self.folder / "key", "--database", self.url)
        assert signed.returncode == 0, signed.stderr
        (self.folder / name).write_text(signed.stdout)

    def prove(self, what: str, *given: str) -> tuple[int, str, str]:
        done = run("audit", f"prove-{what}", *given, "--public-key", self.key, "--address", self.address)
        return done.returncode, done.stdout, done.stderr

    def file(self, name: str) -> str:
        return str(self.folder / name)


def test_an_independent_verifier_accepts_every_proof(served_log: Log) -> None:
    tree = read_tree(served_log.url, range(100))
    audit, size = served_log.client.audit, tree.size
    for number in range(1, size + 1):
        found = audit.inclusion_proof(number, size)
        content, hashes = found.content.hex(), [each.hex() for each in found.hashes]
        assert scitt_cose.verify_inclusion(content, number - 1, size, hashes, tree.roots[size].hex())
        assert found.holds_for(tree.roots[size])
        grown = audit.consistency_proof(number, size)
        first, second = tree.roots[number].hex(), tree.roots[size].hex()
        hashes = [each.hex() for each in grown.hashes]
        assert scitt_cose.verify_consistency(first, second, number, size, hashes)
        assert grown.holds_for(tree.roots[number], tree.roots[size])


def test_a_proof_shows_the_revision_and_names_nobody(served_log: Log) -> None:
    tree = read_tree(served_log.url)
    revision = next(
        each.revision for each in served_log.client.audit.changes(subject=MAYA, oldest_first=True)
    )
    proof = served_log.client.audit.inclusion_proof(revision, tree.size)
    (change,) = proof.changes
    assert b'"membership","TOUCH","c"' in change
    for named in (b"maya", b"sis-7"):
        assert named not in proof.content + change
    another = msgspec.structs.replace(proof, changes=(change.replace(b"TOUCH", b"CREATE"),))
    assert proof.holds_for(tree.roots[tree.size])
    assert not another.holds_for(tree.roots[tree.size])


def test_what_the_tree_does_not_have_is_refused_by_name(served_log: Log) -> None:
    size, audit = read_tree(served_log.url).size, served_log.client.audit
    for call, told in (
        (lambda: audit.inclusion_proof(0, size), f"number is 0; name one from 1 to {size}"),
        (lambda: audit.inclusion_proof(size, size - 1), f"number is {size}; name one from 1 to {size - 1}"),
        (lambda: audit.inclusion_proof(1, size + 1), f"tree_size is {size + 1}, and the tree has {size}; if"),
        (lambda: audit.consistency_proof(0, size), f"first_size is 0; name one from 1 to {size}"),
        (lambda: audit.consistency_proof(1, -1), f"second_size is -1; name one from 1 to {size}"),
    ):
        with pytest.raises(CallError, match=told) as refused:
            call()
        assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_the_commands_prove_it_with_checkpoints_alone(served_log: Log) -> None:
    code, told, problem = served_log.prove("inclusion", "3", served_log.file("late"))
    assert code == 0, problem
    assert told.startswith("revision 3 is in the ")
    code, told, problem = served_log.prove("consistency", served_log.file("early"), served_log.file("late"))
    assert code == 0, problem
    assert "revisions that were signed first begin the" in told


def test_the_commands_find_out_a_history_that_was_forged(served_log: Log) -> None:
    """With hashes that agree with each other."""
    engine, table = open_engine(served_log.url), tables.leaves
    forged = read_tree(served_log.url).roots
    with write_transaction(engine) as connection:
        first = table.c.revision == 1
        kept = connection.execute(table.select().where(first)).one().hash
        connection.execute(update(table).where(first).values(hash="0" * 64))
    try:
        code, told, _ = served_log.prove("inclusion", "1", served_log.file("late"))
        assert (code, told.splitlines()[0].split()[:4]) == (1, ["revision", "1", "is", "not"])
        code, told, _ = served_log.prove("inclusion", "2", served_log.file("late"))
        assert (code, told.splitlines()[0].split()[:4]) == (1, ["revision", "2", "is", "not"])
    finally:
        with write_transaction(engine) as connection:
            connection.execute(update(table).where(first).values(hash=kept))
        engine.dispose()
    assert read_tree(served_log.url).roots == forged


def test_nothing_is_proved_of_a_tree_without_its_stored_hashes(served_log: Log) -> None:
    engine, table, size = open_engine(served_log.url), tables.leaves, read_tree(served_log.url).size
    with write_transaction(engine) as connection:
        connection.execute(update(table).values(part=None))
    engine.dispose()
    with pytest.raises(CallError, match="hashes of the log are missing; see which with `authz audit verify`"):
        served_log.client.audit.inclusion_proof(1, size)
    told = "the hash of the tree at revision 2 is not that of its leaves"
    assert told in read_tree(served_log.url).faults
