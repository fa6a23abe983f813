"""`authz token`: create one on the machine with the database, use it, list it, revoke it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from authz.domain.kinds.access_token import token_id
from tests.callers import grant
from tests.cli.commands import run
from tests.serving import served


def test_a_token_is_created_used_listed_and_revoked(sqlite_url: str, tmp_path: Path) -> None:
    grant(sqlite_url, {"service:notebooks": "watcher"})
    here = ("--database", sqlite_url)
    created = run("token", "create", "service:notebooks", "--expires", "2099-12-31", *here)
    token = created.stdout.strip()
    id_ = token_id(token)
    assert created.returncode == 0 and id_ is not None
    assert "until 2099-12-31T00:00:00Z" in created.stderr and id_ in created.stderr
    file = tmp_path / "token"
    file.write_text(token)
    with served(sqlite_url, access_tokens="true") as address:
        there = ("courses", "--address", address, "--token-file", file)
        assert run(*there).returncode == 0
        refused = run("courses", "--address", address).stderr
        assert "carries no credential" in refused
        assert "set `--token-file`" in refused
    listed = run("token", "list", *here).stdout
    assert id_ in listed and "service:notebooks" in listed
    assert token.rpartition("_")[2] not in listed
    assert run("token", "revoke", token, *here).stdout == f"revoked access token {id_}\n"
    assert id_ not in run("token", "list", *here).stdout
    again = run("token", "revoke", id_, *here)
    assert again.returncode == 2 and f"access token {id_}" in again.stderr
    other = token_id(run("token", "create", "service:notebooks", *here).stdout.strip())
    assert other is not None
    revoked = json.loads(run("token", "revoke", other, *here, "--json").stdout)
    assert revoked["deleted"]["id"] == other


def test_a_caller_that_may_write_and_not_read_is_told_that_its_write_was_done(
    sqlite_url: str, tmp_path: Path
) -> None:
    grant(sqlite_url, {"service:notebooks": "notebook_service"})
    here = ("--database", sqlite_url)
    run("course", "create", "alg", "--state", "active", *here)
    file = tmp_path / "token"
    file.write_text(run("token", "create", "service:notebooks", *here).stdout)
    with served(sqlite_url, access_tokens="true") as address:
        created = run(
            "resource", "create", "notebook:nb", "course:alg", "--address", address, "--token-file", file
        )
    assert (created.returncode, created.stdout) == (0, "")
    assert created.stderr == "note: written; this caller has no permission to read the record\n"
    assert "notebook:nb" in run("resources", *here).stdout


def test_a_token_ends_in_90_days_unless_it_is_said_when(sqlite_url: str) -> None:
    created = run("token", "create", "service:x", "--json", "--database", sqlite_url)
    told = json.loads(created.stdout)
    assert token_id(told["token"])
    listed = json.loads(run("token", "list", "--json", "--database", sqlite_url).stdout)
    assert listed["entity"]["ends_at"] == told["ends_at"]
    for end in ("soon", "2020-01-01"):
        bad = run("token", "create", "service:x", "--expires", end, "--database", sqlite_url)
        assert bad.returncode == 2 and f"--expires `{end}` is" in bad.stderr


def test_what_is_suggested_for_a_name_without_a_type_is_a_caller(empty_sqlite_url: str) -> None:
    here = ("--database", empty_sqlite_url)
    refused = run("token", "create", "notebooks", *here).stderr
    (suggested,) = re.findall(r"write it like `(.*)`", refused)
    assert run("token", "create", suggested, *here).returncode == 0


def test_an_operator_gives_a_missing_permission_from_any_machine_with_the_command_that_is_told(
    sqlite_url: str, tmp_path: Path
) -> None:
    grant(sqlite_url, {"service:ops": "operator"})
    files = {}
    for caller in ("ops", "sync"):
        files[caller] = tmp_path / caller
        created = run("token", "create", f"service:{caller}", "--database", sqlite_url)
        files[caller].write_text(created.stdout)
    with served(sqlite_url, access_tokens="true") as address:

        def called_by(caller: str, *command: str) -> tuple[int, str]:
            done = run(*command, "--address", address, "--token-file", files[caller])
            return done.returncode, done.stderr

        code, told = called_by("sync", "courses")
        assert code == 2
        command = re.search(r"with `authz (.*) service:<id> platform <role>`", told)
        assert command is not None, told
        assert called_by("ops", *command[1].split(), "service:sync", "platform", "watcher") == (0, "")
        assert called_by("sync", "courses") == (0, "")
