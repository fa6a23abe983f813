"""An option means the same in every command, and `--help` describes it in the same words."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import authz.client
from authz.cli.main import whole_command
from authz.cli.options import TIME
from authz.cli.output import is_time
from authz.domain.instants import parse_instant
from authz.runtime.settings import Settings
from tests.cli.commands import run
from tests.databases import create_sqlite

DIFFERENT = {
    "--address": {"The server to call", "Where to listen"},
    "--tls-certificate-file": {"PEM chain of the client certificate", "PEM chain of the server"},
    "--tls-key-file": {"PEM key of the client certificate", "PEM key of the server"},
    "--database": {"Run without a server", "sqlite:///relative.db"},
    "--course": {
        "The id of the course that the resource is in",
        "Only of the course with this id",
        "The id of the course that it is in, for good",
        "The id of a course, for its own policy",
    },
    "--scope": {
        "Only what is in course:<id>, with its sessions, or session:<id>",
        "Only in course:<id>, with its sessions, session:<id> or platform.",
        "Only in course:<id>, with its sessions, session:<id> or platform. May be repeated.",
        "Only in course:<id>, without its sessions",
    },
    "--allow-removals": {"End any number of memberships", "With --remove-absent, end any number"},
    "--type": {"Only this type", "The type of rows without one"},
    "--owner": {
        "Only of this owner",
        "The owner, as user:<id>, of rows without one",
        "The owner, user:<id>. Default: none",
    },
    "--until": {"End", "Only before this time"},
}
"""How the help texts of an option begin, if they differ: because a list is filtered by what another command
sets, or because the command is another kind of program."""


def commands(parent: Any, path: str = "authz") -> Iterator[tuple[str, Any]]:
    """All commands of a group, and of the groups in it, with the words that call them."""
    for name, command in parent.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


PARAMETERS = [(path, each) for path, command in commands(whole_command()) for each in command.params]
OPTIONS = [(path, each) for path, each in PARAMETERS if each.param_type_name == "option"]


def test_an_option_says_the_same_of_itself_in_every_command() -> None:
    texts: dict[str, set[str]] = defaultdict(set)
    for _, option in OPTIONS:
        texts[option.opts[0]].add(option.help)
    for flag, found in texts.items():
        expected = DIFFERENT.get(flag, {""})
        assert len(found) == len(expected), (flag, found)
        for beginning in expected:
            assert any(text.startswith(beginning) for text in found), (flag, found)


def test_every_database_is_shown_with_the_form_for_an_absolute_path() -> None:
    found = [option.help for _, option in OPTIONS if "--database" in option.opts]
    assert len(found) > 50
    assert all("sqlite:////absolute.db or postgresql://user@host/name" in text for text in found)


def test_every_time_is_called_one_and_has_the_same_example() -> None:
    times = {flag for _, option in OPTIONS if option.metavar == "TIME" for flag in option.opts}
    assert times == {"--from", "--until", "--since", "--as-of", "--at", "--expires"}
    for path, option in OPTIONS:
        if times & set(option.opts):
            assert (option.metavar, TIME in option.help) == ("TIME", True), path


def test_every_argument_is_in_capitals_in_the_usage_line() -> None:
    arguments = [(path, each.metavar) for path, each in PARAMETERS if each.param_type_name == "argument"]
    assert len(arguments) > 50
    for path, metavar in arguments:
        assert metavar and metavar == metavar.upper(), path


@pytest.mark.parametrize("path", sorted({path for path, _ in OPTIONS}))
def test_an_option_of_which_one_value_would_be_lost_is_refused(path: str) -> None:
    options = [each for each_path, each in OPTIONS if each_path == path and not each.multiple]
    for option in options[:3]:
        given = [option.opts[0], *["1"] * (0 if option.is_flag else option.nargs)]
        refused = run(*path.split()[1:], *given, *given)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"{option.opts[0]}" in refused.stderr
        assert "is given twice; give it once" in refused.stderr, refused.stderr


@pytest.mark.parametrize("path", sorted({path for path, _ in OPTIONS}))
def test_an_option_that_is_given_empty_is_refused(path: str) -> None:
    """Such as by a variable that a script has not set."""
    may_be_empty = {"purpose", "reason", *Settings.__struct_fields__} - {"database_url"}
    for option in [each for each_path, each in OPTIONS if each_path == path]:
        takes_text = not option.is_flag and option.nargs == 1 and not option.multiple
        if not takes_text or option.name in may_be_empty:
            continue
        refused = run(*path.split()[1:], option.opts[0], "")
        assert (refused.returncode, refused.stdout) == (2, "")
        told = (
            f"error: {'/'.join(option.opts)} is empty; give a value, or leave it out (see `{path} --help`)\n"
        )
        assert refused.stderr == told


def test_an_option_that_is_repeated_says_what_it_takes_and_that_it_may_be() -> None:
    repeated = [(path, each) for path, each in OPTIONS if each.multiple]
    assert len(repeated) > 5
    for path, option in repeated:
        assert "May be repeated." in option.help, (path, option.opts)
        assert option.metavar or "--kind" in option.opts, (path, option.opts)


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        ("memberships --subject maya", "--subject"),
        ("memberships --scope algebra", "--scope"),
        ("resources --owner maya", "--owner"),
        ("shares --resource m-1", "--resource"),
        ("watch --scope algebra", "--scope"),
        ("list-resources user:maya read --scope algebra", "--scope"),
        ("audit changes --by maya", "--by"),
        ("audit changes --since soon", "--since"),
        ("audit decisions --until soon", "--until"),
        ("explain user:maya read material:m-1 --as-of soon", "--as-of"),
        ("policy publish mine --at soon", "--at"),
        ("policy shadow start 1 --until soon", "--until"),
        ("privacy erase user:maya --reason x --resources-to omar", "--resources-to"),
        ("token create service:tutor --expires soon", "--expires"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_option(command: str, flag: str, sqlite_url: str) -> None:
    refused = run(*command.split(), "--database", sqlite_url)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"error: {flag} `")
    assert refused.stderr.count("\n") == 1


def test_an_integer_is_a_time_in_json_exactly_if_it_is_one_in_the_code() -> None:
    """By the names of the fields of everything that a client returns."""
    structs = [*_structs(msgspec.Struct)]
    assert authz.client.LoggedChange in structs
    fields = {
        (name, "Instant" in str(hint))
        for struct in structs
        for name, hint in vars(struct).get("__annotations__", {}).items()
        if str(hint).removesuffix(" | None") in {"int", "Instant", "DurationUs", "Number"}
    }
    assert {name for name, is_instant in fields if is_instant != is_time(name)} == {
        "course_policies_at",  # a revision, of a write: no client returns it
        "asked_at",  # a revision, in the cache of a client
    }


def _structs(parent: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for struct in parent.__subclasses__():
        if struct.__module__.startswith(("authz.domain", "authz.client")):
            yield struct
        yield from _structs(struct)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with a record of each kind that has a time."""
    url = create_sqlite(tmp_path_factory.mktemp("json") / "authz.db")
    for command in (
        "course create alg --state active",
        "session create live --course alg --from 2096-01-01 --until 2096-01-02",
        "member add user:maya course:alg student --until 2096-01-01",
        "member update user:maya course:alg student --until 2097-01-01",
        "account suspend user:omar --until 2096-01-01",
        "token create service:tutor",
        "policy draft create mine",
        "policy edit mine --delete-file tests/callers.toml",
        "policy publish mine --at 2096-01-01",
        "policy shadow start draft:mine",
        "privacy hold user:omar --reason claim",
        "privacy erase user:nora --reason asked --orphan-resources",
    ):
        done = run(
            *command.split(), *(["--yes", "--no-wait"] if "erase" in command else []), "--database", url
        )
        assert done.returncode == 0, done.stderr
    return url


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("sessions", "starts_at"),
        ("memberships", "ends_at"),
        ("accounts", "suspended_until"),
        ("token list", "ends_at"),
        ("audit changes", "committed_at"),
        ("policy history", "created_at"),
        ("policy draft list", "at"),
        ("policy shadow show", "ends_at"),
        ("privacy holds", "since"),
        ("privacy erasures", "started_at"),
    ],
)
def test_json_is_a_line_an_item_with_times_as_rfc_3339(command: str, name: str, used: str) -> None:
    printed = run(*command.split(), "--json", "--database", used)
    items = [json.loads(line) for line in printed.stdout.splitlines()]
    times = [text for item in items for text in _values(item, name) if text is not None]
    assert times, printed
    for text in times:
        assert text.endswith("Z") and parse_instant(text, field=name)


def test_json_names_subjects_scopes_and_resources_as_commands_take_them(used: str) -> None:
    listed = run("memberships", "--subject", "user:maya", "--json", "--database", used).stdout
    membership = json.loads(listed)["entity"]
    assert (membership["subject"], membership["scope"]) == ("user:maya", "course:alg")


def test_the_audit_shows_what_changed_with_times_as_rfc_3339(used: str) -> None:
    printed = run("audit", "changes", "--subject", "user:maya", "--database", used).stdout
    assert "ends_at 2096-01-01T00:00:00Z > 2097-01-01T00:00:00Z" in printed


def _values(data: Any, name: str) -> Iterator[Any]:
    """The values of every field with a name, at any depth."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from [value] if key == name else _values(value, name)
    elif isinstance(data, list):
        for each in data:
            yield from _values(each, name)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("check user:maya read material:m-1 --course a,b", "--course `a,b` has the character"),
        ("session create live --from 2096-01-02 --until 2096-01-01", "--until is not after --from"),
        ("courses --acting-for maya", "--acting-for `maya` has no type"),
        ("policy shadow start 1 --until 2099-01-01", "--until is not within the next 30 days"),
    ],
)
def test_an_error_names_the_option_and_not_the_field_of_the_api(
    command: str, told: str, sqlite_url: str
) -> None:
    assert run(*command.split(), "--database", sqlite_url).stderr.startswith(f"error: {told}")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            "course update alg --state running",
            "invalid value for '--state': 'running' is not one of 'draft', ",
        ),
        ("courses --stat", "no such option: --stat (see `authz courses --help`)"),
        ("member add user:maya course:alg", "missing argument 'ROLE' (see `authz member add --help`)"),
        ("share add notebook:n user:maya viewer", "got unexpected extra argument(s) (viewer) (see "),
        ("memberships --subjects", "no such option: --subjects (Possible options: --subject"),
        ("privacy retention set", "missing argument 'DATA'. Choose from: changes, memberships, "),
        ("audit changes --limit", "option '--limit' requires an argument\n"),
        ("curses", "no such command 'curses'. Did you mean 'courses'"),
    ],
)
def test_arguments_that_a_command_does_not_take_are_one_line_with_the_help_to_read(
    command: str, told: str
) -> None:
    done = run(*command.split())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith(f"error: {told}")


def test_a_group_without_a_command_shows_its_commands() -> None:
    done = run("member")
    assert (done.returncode, "suspend  " in done.stderr) == (2, True)
