"""What the error of a command suggests is accepted by the same command."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.cli.commands import run
from tests.serving import served


@pytest.fixture(scope="module")
def here(shared_sqlite_url: str) -> Iterator[tuple[str, str]]:
    """The option that names a server with a course and a draft."""
    with served(shared_sqlite_url) as address:
        named = ("--address", address)
        run("course", "create", "algebra", "--state", "active", *named)
        run("policy", "draft", "create", "NAME", *named)
        run("policy", "draft", "create", "NAME", "--course", "algebra", *named)
        edit = ("p, auditor, *, material, read, , deny", "p, auditor, course:algebra, material, read, , deny")
        run("policy", "edit", "NAME", "--add", edit[0], *named)
        run("policy", "edit", "NAME", "--add", edit[1], "--course", "algebra", *named)
        yield named


OF_COURSE = ("--course", "algebra")


@pytest.mark.parametrize(
    "command",
    [
        ("policy", "shadow", "start", "?"),
        ("policy", "shadow", "start", "?", *OF_COURSE),
        ("policy", "show", "--version", "?"),
        ("policy", "show", "--version", "?", *OF_COURSE),
        ("policy", "preview", "--version", "?"),
        ("policy", "diff", "--old", "?", "--new", "1"),
        ("policy", "prove", "--version", "?"),
        ("policy", "test", "--version", "?"),
    ],
    ids=" ".join,
)
def test_a_command_takes_each_name_that_it_suggests_for_a_version(
    command: tuple[str, ...], here: tuple[str, str]
) -> None:
    if OF_COURSE[0] in command and "show" in command:
        run("policy", "publish", "NAME", *OF_COURSE, *here)
        run("policy", "draft", "create", "NAME", *OF_COURSE, *here)
    refused = run(*command, *here)
    assert refused.returncode == 2
    [(names, history)] = re.findall("name (.*), or a number that `authz (.*)` lists", refused.stderr)
    for name in re.findall("`(.*?)`", names):
        accepted = run(*(name if word == "?" else word for word in command), *here)
        assert accepted.returncode in (0, 1), accepted.stderr  # 1: there are changes
        run("policy", "shadow", "stop", *(OF_COURSE if OF_COURSE[0] in command else ()), *here)
    assert run(*history.split(), *here).returncode == 0


@pytest.mark.parametrize(
    ("command", "never"),
    [
        (("resource", "create", "sesion:x", "course:algebra"), "session"),
        (("resource", "create", "curse:x", "course:algebra"), "course"),
        (("share", "add", "sesion:x", "user:maya"), "session"),
        (("list-resources", "user:maya", "creat"), "create"),
        (("list-resources", "user:maya", "creat", "notebook"), "create"),
        (("list-resources", "user:maya", "read", "apis"), "api"),
        (("check", "user:maya", "creat", "notebook:n"), "create"),
        (("explain", "user:maya", "creat", "notebook:n"), "create"),
        (("list-subjects", "creat", "notebook:n"), "create"),
        (("policy", "apply", "active"), "--version active"),
        (("policy", "apply", "3"), "--version 3"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else each,
)
def test_a_command_suggests_nothing_that_it_refuses(
    command: tuple[str, ...], never: str, here: tuple[str, str]
) -> None:
    failed = run(*command, *here)
    assert failed.returncode == 2
    assert re.search("did you mean|known are|there is no folder", failed.stderr), failed.stderr
    assert f"`{never}`" not in failed.stderr, failed.stderr


@pytest.mark.parametrize("name", ["sesion", "apis"])
def test_no_type_is_suggested_that_a_request_may_not_describe(name: str, sqlite_url: str) -> None:
    failed = run("serve", "--database", sqlite_url, "--inline-types", name, "--address", "127.0.0.1:0")
    assert failed.returncode != 0
    assert "unknown resource type" in failed.stderr
    assert not re.search("`(session|course|api)`", failed.stderr)
