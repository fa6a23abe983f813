"""buf.gen.yaml hands each plugin the files that its language needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUF = Path(sys.executable).parent / "buf"
PLUGIN = f"""#!{sys.executable}
import sys
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
response = CodeGeneratorResponse(supported_features=1)
packages = {{file.name: file.options.go_package for file in request.proto_file}}
for name in request.file_to_generate:
    response.file.add(name=name + "." + sys.argv[0].rpartition("-")[2], content=packages[name])
sys.stdout.buffer.write(response.SerializeToString())
"""
AUTHZ = {
    f"authz/v1/{name}.proto"
    for name in (
        "audit",
        "authorization",
        "common",
        "directory",
        "error_reason",
        "policy",
        "privacy",
        "watch",
    )
}
GOOGLE = {"google/rpc/status.proto", "google/rpc/error_details.proto"}


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    """What buf generates with plugins that name the files that they are given."""
    for name in ("es", "go", "go-grpc"):
        plugin = tmp_path / f"protoc-gen-{name}"
        plugin.write_text(PLUGIN)
        plugin.chmod(0o755)
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run([BUF, "generate", "-o", tmp_path], cwd=ROOT, env=environ, check=True, timeout=120)
    return tmp_path / "gen"


def _files(folder: Path, suffix: str) -> set[str]:
    return {
        str(path.relative_to(folder)).removesuffix(suffix)
        for path in folder.rglob("*")
        if path.suffix == suffix
    }


def test_typescript_gets_the_details_of_errors_too(generated: Path) -> None:
    assert _files(generated / "ts", ".es") == AUTHZ | GOOGLE


def test_go_takes_those_from_the_module_that_has_them(generated: Path) -> None:
    assert _files(generated / "go", ".go") == AUTHZ
    assert _files(generated / "go", ".grpc") == AUTHZ
    package = (generated / "go/authz/v1/common.proto.go").read_text()
    assert package.startswith("example.com/app/gen/go/authz/v1")
