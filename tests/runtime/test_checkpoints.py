"""A server that publishes checkpoints of what is written to it, on both databases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import update

from authz.client import CallError, Client
from authz.domain.entities import Course
from authz.domain.errors import InvalidArgumentError
from authz.domain.mutations import Mutation, Operation
from authz.runtime.settings import load_settings
from authz.store import tables
from authz.store.database.engine import open_engine, write_transaction
from tests.cli.commands import run
from tests.serving import served
from tests.waiting import until


def test_what_is_written_is_in_a_published_checkpoint_that_finds_out_who_changes_it(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.runtime.audit._POLL_S", 0.05)
    public = run("audit", "keygen", "example.org/authz", tmp_path / "key").stdout.strip()
    file = tmp_path / "checkpoint"
    settings = {
        "checkpoint_key_file": str(tmp_path / "key"),
        "checkpoint_publish": f"file:{file}",
        "checkpoint_interval_s": "0.05",
    }
    with served(store_url, **settings) as address, Client(address) as client:
        client.write([Mutation(Operation.CREATE, Course("c"))], reason="the term begins")
        head = max(each.revision for each in client.audit.changes())
        until(lambda: file.exists() and int(file.read_text().splitlines()[1]) >= head, "nothing is published")
        assert client.audit.checkpoint() == file.read_text()
        printed = run("audit", "newest-checkpoint", "--address", address)
        assert printed.stdout == file.read_text()
    verify = ("audit", "verify", file, "--public-key", public, "--database", store_url)
    kept = run(*verify)
    assert kept.returncode == 0, kept.stderr
    assert kept.stdout.splitlines()[0] == f"revisions 1 to {head} are as they were signed"
    engine = open_engine(store_url)
    with write_transaction(engine) as connection:
        last = tables.revisions.c.revision == head
        connection.execute(update(tables.revisions).where(last).values(reason="the term ends"))
    engine.dispose()
    changed = run(*verify)
    assert changed.returncode == 1
    assert f"revision {head} is not as it was committed" in changed.stderr


def test_a_server_that_signs_nothing_says_what_to_set(sqlite_url: str) -> None:
    with (
        served(sqlite_url) as address,
        Client(address) as client,
        pytest.raises(CallError, match="AUTHZ_CHECKPOINT_KEY_FILE"),
    ):
        client.audit.checkpoint()


@pytest.mark.parametrize("content", [b"no key", b"\xff"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_start_without_a_key_that_signs_is_refused_by_name_before_a_database_is_made(
    empty_sqlite_url: str, tmp_path: Path, workers: str, content: bytes
) -> None:
    (tmp_path / "key").write_bytes(content)
    serve = ("serve", "--workers", workers, "--address", "127.0.0.1:0", "--database", empty_sqlite_url)
    ended = run(*serve, AUTHZ_CHECKPOINT_KEY_FILE=str(tmp_path / "key"))
    assert ended.returncode == 2
    *_, line = map(json.loads, ended.stderr.splitlines())
    assert "make one with `authz audit keygen`" in line["error"]
    assert [each.name for each in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"checkpoint_publish": "stdout"}, "AUTHZ_CHECKPOINT_KEY_FILE"),
        ({"checkpoint_publish": "http://log.test/"}, "`http://log.test/`"),
        ({"checkpoint_publish": "stdout, syslog"}, "`syslog`"),
        ({"checkpoint_publish": "file:/none/here"}, "/none/here"),
        ({"checkpoint_interval_s": "0"}, "AUTHZ_CHECKPOINT_INTERVAL_S"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(
    tmp_path: Path, given: dict[str, str], named: str
) -> None:
    (tmp_path / "key").write_text("a key")
    key = {} if named.startswith("AUTHZ_CHECKPOINT_KEY") else {"checkpoint_key_file": str(tmp_path / "key")}
    with pytest.raises(InvalidArgumentError, match=named):
        load_settings(key | given, environ={})
