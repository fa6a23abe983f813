"""Commands that publish, while answers are lost and others publish, and which calls they make."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from authz.client import Client
from tests.cli.commands import run
from tests.cli.test_policy_versions import folder_of
from tests.client.test_retries import Front, fronting
from tests.policies import SHIPPED, with_rows
from tests.serving import over_grpc, served

pytestmark = over_grpc

MINE = with_rows("p, support_agent, *, course, create, , allow")
THEIRS = with_rows("p, privacy_officer, *, course, create, , allow")


class Overtaken(Front):
    """Publishes a version of another admin just before it passes on the change of a command."""

    def __init__(self, service: grpc.Channel, other: Client) -> None:
        super().__init__(service)
        self._other = other

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Every method, by its bytes."""
        if details.method.endswith(("/ApplyPolicy", "/RollBackPolicy")):
            self._other.policies.apply(THEIRS)
        return super().service(details)


@contextmanager
def overtaken(url: str) -> Iterator[tuple[str, str]]:
    """The option that names a server on which another admin is always a little faster."""
    with served(url) as behind, grpc.insecure_channel(behind) as channel, Client(behind) as other:
        other.policies.apply(MINE)
        with fronting(Overtaken(channel, other)) as address:
            yield "--address", address


@pytest.mark.parametrize("command", ["apply", "rollback"])
def test_a_publication_tells_what_it_changes_in_the_version_that_it_replaces(
    tmp_path: Path, sqlite_url: str, command: str
) -> None:
    folder = folder_of(SHIPPED, tmp_path / "mine")
    with overtaken(sqlite_url) as here:
        done = run("policy", command, folder if command == "apply" else "1", "--json", *here)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["active"]["number"] == 4
    assert [(cell["role"], bool(cell["losses"])) for cell in outcome["changes"]["cells"]] == [
        ("privacy_officer", True)
    ]


def test_a_change_whose_answer_is_lost_may_have_been_made(sqlite_url: str) -> None:
    with served(sqlite_url) as behind, grpc.insecure_channel(behind) as channel:
        front = Front(channel)
        front.after = [None]
        with fronting(front) as address:
            lost = run("policy", "draft", "create", "mine", "--address", address)
            listed = run("policy", "draft", "list", "--json", "--address", address)
    assert lost.returncode == 2
    assert lost.stderr == (
        f"error: the server at `{address}` went away before it answered; if the command changes anything,"
        " it is unknown whether it did: look, then run it again (Socket closed)\n"
    )
    assert json.loads(listed.stdout)["id"] == "mine"


class Noted(Front):
    """Notes the methods that are called."""

    def __init__(self, service: grpc.Channel) -> None:
        super().__init__(service)
        self.methods: list[str] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Every method, by its bytes."""
        self.methods.append(details.method.rpartition("/")[2])
        return super().service(details)


def test_a_policy_without_faults_is_proved_once(tmp_path: Path, sqlite_url: str) -> None:
    folder = folder_of(MINE, tmp_path / "mine")
    row = "p, privacy_officer, *, course, create, , allow"
    with served(sqlite_url) as behind, grpc.insecure_channel(behind) as channel:
        front = Noted(channel)
        with fronting(front) as address:
            here = ("--address", address)
            assert run("policy", "apply", folder, *here).returncode == 0
            run("policy", "draft", "create", "more", *here)
            run("policy", "edit", "more", "--add", row, *here)
            assert run("policy", "publish", "more", *here).returncode == 0
    assert "ApplyPolicy" in front.methods
    assert "PublishPolicyDraft" in front.methods
    assert "ValidatePolicy" not in front.methods
