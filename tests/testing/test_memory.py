"""`authz serve --memory`: a server for the tests of any language, which leaves nothing behind."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from authz.client import Client
from authz.domain.entities import Course, CourseFilter
from authz.domain.mutations import Mutation, Operation
from tests.forkserver import Process, run, without_settings

PAGE = Path(__file__).parents[2] / "docs/testing.md"
READY = re.findall("The line with `(.+?)`", PAGE.read_text())[0]
"""By which programs know that they may begin."""


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (("--memory",), "sqlite:///{}/other.db"),
        (("--memory", "--workers", "2"), "sqlite:///{}/other.db"),
        (("--database", "sqlite://"), "sqlite:///{}/other.db"),
        (("--database", "sqlite:///:memory:"), "sqlite:///{}/other.db"),
        ((), "sqlite://"),
        ((), "sqlite+pysqlite:///:memory:"),
    ],
    ids=["option", "two workers", "url", "named url", "variable", "variable with the driver"],
)
def test_it_begins_empty_and_leaves_nothing(given: tuple[str, ...], url: str, tmp_path: Path) -> None:
    environ = without_settings()
    environ |= {"AUTHZ_DATABASE_URL": url.format(tmp_path), "AUTHZ_FOLLOW": "false"}
    options = ("--address", "127.0.0.1:0")
    process = Process("serve", *given, *options, environ=environ, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        folder = address = ""
        for line in process.stderr:
            folder = next(iter(re.findall(r'"folder": ?"([^"]+)/replica"', line)), folder)
            if found := re.search(r'"address":"([^"]+)"', line):
                assert READY in line
                address = found[1]
                break
        assert Path(folder).is_dir()
        with Client(address) as client:
            assert list(client.read(CourseFilter())) == []
            client.write([Mutation(Operation.CREATE, Course(id="algebra"))])
            assert not client.check("user:maya", "read", "course:algebra")
        process.send_signal(15)
        assert process.wait(30) == 0
        assert not Path(folder).exists()
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.wait()


def test_a_url_whose_path_is_empty_is_no_database_in_memory() -> None:
    refused = run(
        "serve", "--address", "127.0.0.1:0", environ=without_settings() | {"AUTHZ_DATABASE_URL": "sqlite:///"}
    )
    assert refused.returncode == 2
    assert "names no file" in refused.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--database", "sqlite:///authz.db"), "has a database of its own; leave --database out"),
        (("--replica-dir", "replica"), "has a replica of its own; leave --replica-dir out"),
        (("--transport", "envoy"), "has a transport of its own; leave --transport out"),
        (("--no-follow",), "has a follower of its own; leave --no-follow out"),
    ],
)
def test_it_takes_no_option_for_what_it_has_of_its_own(given: tuple[str, ...], told: str) -> None:
    refused = run("serve", "--memory", *given)
    assert refused.returncode == 2
    assert told in refused.stderr
