"""Clients in other languages: the example in TypeScript, and that Node and Go see one service."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz.client import CallError, Client, proto_directory
from authz.domain.entities import Course, CourseState, Membership, Resource
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation
from tests.callers import grant
from tests.databases import create_sqlite
from tests.runtime.test_mutual_tls import certify
from tests.serving import drain, serving

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/typescript"
PROGRAMS = Path(__file__).parent / "languages"
AUTHORIZATION, DIRECTORY = "/authz.v1.AuthorizationService/", "/authz.v1.DirectoryService/"
WATCH = "/authz.v1.WatchService/Watch"
WATCHES = 4
"""That one client may have."""
PAGE = 1000
GO_BUILD = (
    *("env", "CGO_ENABLED=0", "go", "build", "-mod=readonly", "-tags=grpcnotrace"),
    *("-gcflags=all=-N -l -dwarf=false", "-ldflags=-s -w"),
)
"""Without C, optimizations, debug information and traces: the first build on a machine, of all of gRPC and
the standard library, takes half of the processor time."""
QUESTION = {
    "subject": {"type": "SUBJECT_TYPE_USER", "id": "maya"},
    "resource": {"type": "material", "id": "m-1"},
    "action": "read",
}
ALLOWED = {"allowed": True, "reason": "REASON_ROLE_GRANT"}


def courses(count: int) -> dict[str, Any]:
    """A message of an import, of courses with long names."""
    ids = (f"imported-{number:0100}" for number in range(count))
    return {"mutations": [{"operation": "OPERATION_TOUCH", "course": {"id": each}} for each in ids]}


CALLS: dict[str, dict[str, Any]] = {
    "check": {"method": AUTHORIZATION + "Check", "requests": [QUESTION]},
    "compressed": {"method": AUTHORIZATION + "Check", "requests": [QUESTION], "compress": True},
    "many": {"method": AUTHORIZATION + "Check", "requests": [QUESTION], "times": 200},
    "malformed": {"method": AUTHORIZATION + "Check", "requests": [QUESTION | {"action": "raed"}]},
    "too large": {"method": DIRECTORY + "Write", "requests": [{"reason": "r" * 5_000_000}]},
    "import": {"method": DIRECTORY + "Import", "requests": [courses(PAGE)] * 3},
    "deadline": {"method": WATCH, "requests": [{}], "timeout_s": 0.3},
    "left": {"method": WATCH, "requests": [{}], "cancel_after": 1, "times": WATCHES - 1},
    "page": {"method": DIRECTORY + "ReadCourses", "requests": [{"page_size": PAGE}]},
}
"""In order: each is over for the client before the next begins.

The server may still hold the watch of "deadline" when those of "left" begin, so there is a place for both.
"""


def campus() -> list[Mutation]:
    """A student of a course with a material."""
    algebra = course_scope("algebra-1")
    entities = (
        Course(id="algebra-1", state=CourseState.ACTIVE),
        Membership(subject=parse_subject("user:maya"), scope=algebra, role="student"),
        Resource(type="material", id="m-1", scope=algebra, published=True),
    )
    return [Mutation(Operation.CREATE, entity) for entity in entities]


def shown_output() -> str:
    """What docs/clients.md says that the example prints."""
    [text] = re.findall(r"^\$ npm start\n(.*?)^```$", (ROOT / "docs/clients.md").read_text(), re.M | re.S)
    return str(text)


def run(
    command: list[str | Path], folder: Path, *, given: str = "", environ: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        input=given,
        env=environ,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example in TypeScript, with the packages that it installs."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    clone = tmp_path_factory.mktemp("clone")
    (clone / "protos").symlink_to(ROOT / "protos")
    folder = clone / "examples/typescript"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules", "gen", "build"))
    install = [
        "npm",
        "install",
        "--ignore-scripts",
        "--prefer-offline",
        "--fetch-retries=0",
        "--fetch-timeout=30000",
    ]
    done = run([*install], folder)
    if done.returncode:
        pytest.skip(f"npm cannot install what the example needs: {done.stderr[-200:]}")
    return folder


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program in Go."""
    if shutil.which("go") is None:
        pytest.skip("needs go")
    folder = tmp_path_factory.mktemp("go")
    done = run([*GO_BUILD, "-o", folder / "calls", "."], PROGRAMS / "go")
    if done.returncode:
        pytest.skip(f"go cannot build the program: {done.stderr[-200:]}")
    return folder


def test_the_example_in_typescript_compiles_and_prints_what_the_page_says(
    node: Path, sqlite_url: str
) -> None:
    with serving(sqlite_url) as (_, address):
        with Client(address) as client:
            client.write(campus())
        done = run(["npm", "start", "--silent"], node, environ=os.environ | {"AUTHZ_ADDRESS": address})
    assert done.stdout == shown_output(), done.stderr


@pytest.fixture(scope="module", params=["grpc", "envoy"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """What a client must know of a server that demands its certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates")
    folder = tmp_path_factory.mktemp("languages")
    for name, known in (("localhost", "DNS:localhost"), ("caller", "URI:spiffe://caller")):
        certify(folder, name, "-addext", f"subjectAltName={known}")
    (folder / "callers.toml").write_text('[uri]\n"spiffe://caller" = "service:caller"\n')
    url = create_sqlite(folder / "authz.db")
    grant(url, {"service:caller": "platform_admin"})
    variables = {
        "AUTHZ_ADDRESS": "localhost:0",
        "AUTHZ_TRANSPORT": request.param,
        "AUTHZ_TLS_CERTIFICATE_FILE": str(folder / "localhost.pem"),
        "AUTHZ_TLS_KEY_FILE": str(folder / "localhost.key"),
        "AUTHZ_TLS_CLIENT_CA_FILE": str(folder / "caller.pem"),
        "AUTHZ_CALLERS_FILE": str(folder / "callers.toml"),
        "AUTHZ_MAX_WATCHES": str(2 * WATCHES),
    }
    with serving(url, **variables) as (process, address):
        drain(process)
        files = {"ca": "localhost.pem", "certificate": "caller.pem", "key": "caller.key"}
        known_of = {"address": address} | {name: str(folder / file) for name, file in files.items()}
        with client_of(known_of) as client:
            known_of["begun"] = client.current_token()
            client.write(campus())
        yield known_of


def client_of(server: Mapping[str, str]) -> Client:
    """A client in Python of the same server, as the same caller."""
    return Client(
        server["address"],
        tls_ca_file=server["ca"],
        tls_certificate_file=server["certificate"],
        tls_key_file=server["key"],
    )


@pytest.mark.parametrize("language", ["node", "go"])
def test_every_kind_of_call_ends_as_it_should_in_other_languages(
    request: pytest.FixtureRequest, server: dict[str, str], language: str
) -> None:
    folder: Path = request.getfixturevalue(language)
    program: list[str | Path] = [folder / "calls"] if language == "go" else ["node", PROGRAMS / "node.mjs"]
    calls = [{"name": name, "timeout_s": 60, **call} for name, call in CALLS.items()]
    described = {**server, "descriptor_set": str(proto_directory() / "descriptor_set.binpb"), "calls": calls}
    done = run(program, folder, given=json.dumps(described))
    assert done.returncode == 0, done.stderr
    ended: dict[str, list[Any]] = {
        each["name"]: [
            (grpc_code(one["code"]), one["reason"], one["messages"] or []) for one in each["outcomes"]
        ]
        for each in json.loads(done.stdout)
    }
    for name in ("check", "compressed", "many"):
        for code, _, [answer] in ended[name]:
            assert (code, ALLOWED.items() <= answer.items()) == (grpc.StatusCode.OK, True)
    assert len(ended["many"]) == 200
    assert ended["malformed"] == [(grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_ACTION", [])]
    assert ended["too large"][0][0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    [(code, _, [imported])] = ended["import"]
    assert (code, int(imported["written"]) + int(imported["unchanged"])) == (grpc.StatusCode.OK, 3 * PAGE)
    [(code, _, [page])] = ended["page"]
    assert (code, len(page["courses"])) == (grpc.StatusCode.OK, PAGE)
    assert ended["deadline"][0][0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert {code for code, _, _ in ended["left"]} == {grpc.StatusCode.CANCELLED}
    assert_places_are_free(server)


def grpc_code(number: int) -> grpc.StatusCode:
    """The code of this number."""
    return next(code for code in grpc.StatusCode if code.value[0] == number)


def assert_places_are_free(server: Mapping[str, str]) -> None:
    """Open as many watches as a caller may have, once the server knows that the others have ended."""
    with client_of(server) as client:
        opened: list[Any] = []
        while len(opened) < WATCHES:
            watch = client.watch(after=server["begun"])
            try:
                next(watch)
                opened.append(watch)
            except CallError as error:
                assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        for watch in opened:
            watch.close()


def test_grpcurl_finds_the_methods_by_reflection(server: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("grpcurl") is None:
        pytest.skip("needs grpcurl")
    files = [f"-{flag}={server[name]}" for flag, name in (("cacert", "ca"), ("cert", "certificate"))]
    command: list[str | Path] = ["grpcurl", *files, f"-key={server['key']}"]
    check = "authz.v1.AuthorizationService/Check"
    answered = run([*command, "-d", json.dumps(QUESTION), server["address"], check], tmp_path)
    assert ALLOWED.items() <= json.loads(answered.stdout).items()
    refused = run(
        [*command, "-d", json.dumps(QUESTION | {"action": "raed"}), server["address"], check], tmp_path
    )
    assert "Code: InvalidArgument" in refused.stderr
    assert "UNKNOWN_ACTION" in refused.stderr
