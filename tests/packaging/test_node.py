"""A client in Node, as docs/clients.md shows it, against a real server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from authz.client import Client, proto_directory
from authz.domain.entities import Course, CourseState, Membership, Resource
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation
from tests.serving import serving

DOCUMENT = Path(__file__).parents[2] / "docs/clients.md"
PACKAGES = ("@grpc/grpc-js@1", "@grpc/proto-loader@0.8")


def block(language: str) -> str:
    """The one code block of a language in the document."""
    [text] = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return str(text)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A folder with the packages that the document installs."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    (tmp_path / "package.json").write_text("{}")
    npm = ("npm", "install", "--ignore-scripts", "--fetch-retries=0", "--fetch-timeout=30000", *PACKAGES)
    done = subprocess.run(npm, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install {', '.join(PACKAGES)}: {done.stderr[-200:]}")
    return tmp_path


def test_node_loads_the_protos_and_reads_answers_and_errors(node: Path, sqlite_url: str) -> None:
    (node / "check.mjs").write_text(block("js"))
    algebra = course_scope("algebra-1")
    entities = (
        Course(id="algebra-1", state=CourseState.ACTIVE),
        Membership(subject=parse_subject("user:maya"), scope=algebra, role="student"),
        Resource(type="material", id="m-1", scope=algebra, published=True),
    )
    with serving(sqlite_url) as (_, address):
        with Client(address) as client:
            client.write([Mutation(Operation.CREATE, entity) for entity in entities])
        environ = os.environ | {"AUTHZ_ADDRESS": address, "AUTHZ_PROTOS": str(proto_directory())}
        done = subprocess.run(
            ["node", "check.mjs"],
            cwd=node,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stdout == block("text"), done.stderr
