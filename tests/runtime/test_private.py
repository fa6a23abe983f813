"""What the service writes is for its own user alone."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from authz.domain.errors import InvalidArgumentError
from authz.runtime.preflight import require_startable
from authz.runtime.settings import load_settings
from tests.cli.commands import run
from tests.faults.processes import Node, running
from tests.serving import over_grpc

_NOBODY = 65_534


def test_files_are_readable_by_their_owner_alone_in_folders_of_their_own(tmp_path: Path) -> None:
    replica = tmp_path / "made" / "for" / "it"
    url = f"sqlite:///{tmp_path / 'authz.db'}"
    before = os.umask(0)
    try:
        node = Node("one", url, tmp_path, AUTHZ_REPLICA_DIR=str(replica), AUTHZ_WORKERS="2")
        node.log.touch()
        with running(node):
            made = [path for path in tmp_path.rglob("*") if path != node.log]
            modes = {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path in made}
            folders = {name for name in modes if (tmp_path / name).is_dir()}
    finally:
        os.umask(before)
    assert {"authz.db", "authz.db-wal", "made/for/it/state", "made/for/it/lock"} <= modes.keys()
    assert {name: mode for name, mode in modes.items() if mode != (0o700 if name in folders else 0o600)} == {}
    assert "other users may read" not in node.log.read_text()


@over_grpc
def test_files_that_others_may_read_are_left_and_told(tmp_path: Path) -> None:
    file, replica = tmp_path / "authz.db", tmp_path / "replica"
    assert run("migrate", "--database", f"sqlite:///{file}").returncode == 0
    replica.mkdir(mode=0o755)
    file.chmod(0o640)
    node = Node("one", f"sqlite:///{file}", tmp_path, AUTHZ_REPLICA_DIR=str(replica))
    with running(node):
        warned = [line for line in node.log.read_text().splitlines() if "other users may read" in line]
        assert [str(file) in line or str(replica) in line for line in warned] == [True, True]
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
        assert stat.S_IMODE(replica.stat().st_mode) == 0o755
        for line in warned:
            subprocess.run(shlex.split(json.loads(line)["remedy"].split("`")[1]), check=True)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(replica.stat().st_mode) == 0o700


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read what nobody else may."""
    is_root = os.geteuid() == 0
    if is_root:
        os.setresuid(_NOBODY, _NOBODY, 0)
    try:
        yield
    finally:
        if is_root:
            os.setresuid(0, 0, 0)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AUTHZ_CALLERS_FILE", "{}"),
        ("AUTHZ_CHECKPOINT_KEY_FILE", "{}"),
        ("AUTHZ_DATABASE_PASSWORD_FILE", "{}"),
        ("AUTHZ_DATABASE_URL", "sqlite:///{}"),
        ("AUTHZ_DECISION_LOG", "file:{}"),
        ("AUTHZ_LIMITS_FILE", "{}"),
        ("AUTHZ_REPLICA_DIR", "{}"),
    ],
)
def test_what_the_server_may_not_use_ends_the_start_with_the_setting(
    tmp_path: Path, variable: str, value: str
) -> None:
    shut = tmp_path / "shut"
    shut.mkdir(mode=0)
    given = {"AUTHZ_DATABASE_URL": "sqlite:////tmp/authz.db", variable: value.format(shut / "file")}
    with without_privileges(), pytest.raises(InvalidArgumentError) as caught:
        require_startable(load_settings(environ=given))
    shut.chmod(0o700)
    assert variable in caught.value.message
    assert str(shut) in caught.value.message


@pytest.mark.parametrize(
    ("variable", "own"),
    [
        ("AUTHZ_DECISION_LOG", '{"id":"1"}\n'),
        ("AUTHZ_CHECKPOINT_PUBLISH", "example.org/authz\n1\nAAAA\n\n\u2014 example.org/authz BBBB\n"),
    ],
)
def test_a_file_that_holds_something_else_is_never_written_to(
    tmp_path: Path, variable: str, own: str
) -> None:
    database, other, key = tmp_path / "authz.db", tmp_path / "other", tmp_path / "key"
    run("audit", "keygen", "example.org/authz", key)
    given = {"AUTHZ_DATABASE_URL": f"sqlite:///{database}", "AUTHZ_CHECKPOINT_KEY_FILE": str(key)}
    other.write_text("the notes of somebody")
    for path in (other, key):
        with pytest.raises(InvalidArgumentError) as caught:
            require_startable(load_settings(environ={**given, variable: f"file:{path}"}))
        assert f"{variable} names the file `{path}`, which holds something else" in caught.value.message
    for content in ("", own):
        other.write_text(content)
        require_startable(load_settings(environ={**given, variable: f"file:{other}"}))


@pytest.mark.parametrize("variable", ["AUTHZ_DECISION_LOG", "AUTHZ_CHECKPOINT_PUBLISH"])
def test_a_file_that_the_server_makes_for_something_else_is_refused_before_it_is_there(
    tmp_path: Path, variable: str
) -> None:
    database, key, link = tmp_path / "authz.db", tmp_path / "key", tmp_path / "link"
    run("audit", "keygen", "example.org/authz", key)
    given = {"AUTHZ_DATABASE_URL": f"sqlite:///{database}", "AUTHZ_CHECKPOINT_KEY_FILE": str(key)}
    link.symlink_to(f"{database}-wal")
    made = (database, *(Path(f"{database}-{each}") for each in ("wal", "shm", "journal", "queue")))
    for path in (*made, link, Path(f"{database}.replica")):
        with pytest.raises(InvalidArgumentError) as caught:
            require_startable(load_settings(environ={**given, variable: f"file:{path}"}))
        assert f"{variable} names the file `{path}`, which is for the " in caught.value.message
    (tmp_path / "elsewhere").mkdir()
    in_replica = {
        "AUTHZ_REPLICA_DIR": str(tmp_path / "elsewhere"),
        variable: f"file:{tmp_path}/elsewhere/state",
    }
    with pytest.raises(InvalidArgumentError, match="which is for the replica"):
        require_startable(load_settings(environ=given | in_replica))
    both = dict.fromkeys(("AUTHZ_DECISION_LOG", "AUTHZ_CHECKPOINT_PUBLISH"), f"file:{tmp_path}/both")
    with pytest.raises(InvalidArgumentError, match="which is for AUTHZ_DECISION_LOG"):
        require_startable(load_settings(environ=given | both))
    require_startable(load_settings(environ=given | {variable: f"file:{database}.log"}))
