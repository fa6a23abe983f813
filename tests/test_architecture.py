"""The layers of the house, read from the imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "authz"
FILES = sorted(path for path in ROOT.rglob("*.py") if "v1" not in path.relative_to(ROOT).parts)
ALLOWED = {
    "domain": {"domain"},
    "policy": {"policy", "domain"},
    "store": {"store", "domain"},
    "replica": {"replica", "telemetry", "domain"},
    "engine": {"engine", "telemetry", "policy", "store", "domain"},
    "access": {"access", "https", "telemetry", "domain"},
    "audit": {"audit", "https", "telemetry", "domain"},
    "wire": {"wire", "domain", "v1"},
    "telemetry": {"telemetry"},
    "https": set(),
    "api": {"api", "telemetry", "engine", "access", "audit", "store", "wire", "domain", "v1"},
    "runtime": {
        "runtime",
        "telemetry",
        "api",
        "access",
        "audit",
        "engine",
        "policy",
        "store",
        "replica",
        "wire",
        "domain",
        "v1",
    },
    "importers": {"importers", "domain"},
    "client": {"client", "wire", "domain", "v1"},
    "testing": {"testing", "client", "runtime", "policy", "domain"},
    "cli": {"cli", "client", "importers", "runtime", "audit", "store", "policy", "domain", "__init__"},
    "__init__": set(),
}
ONLY_IN = {"casbin": "policy", "sqlalchemy": "store", "alembic": "store", "lmdb": "replica"}
EXCEPT = ROOT / "client/sql.py"
"""Makes clauses for the tables of a caller, and reads none of ours."""
NO_TRANSPORT = {"domain", "policy", "store", "replica", "engine", "access", "audit"}
"""Neither grpc nor protobuf: what these do is the same whichever way a call came in."""
IMPURE = {"grpc", "sqlalchemy", "casbin", "lmdb", "os", "time", "random", "secrets", "pathlib"}


def imported(path: Path, nodes: Iterable[ast.AST]) -> set[str]:
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path.name}:{node.lineno}: a relative import hides its layer")
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            if node.module == "authz":
                names |= {f"authz.{alias.name}" for alias in node.names}
    return names


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def require_right_imports(path: Path, nodes: Iterable[ast.AST]) -> None:
    here = layer(path)
    for name in imported(path, nodes):
        head, _, rest = name.partition(".")
        if head == "authz" and rest:
            assert rest.split(".")[0] in ALLOWED[here], name
        if head in ONLY_IN and path != EXCEPT:
            assert here == ONLY_IN[head], name
        if here == "domain":
            assert head not in IMPURE, name
        if here in NO_TRANSPORT:
            assert head not in {"grpc", "google"}, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_small_has_small_functions_and_imports_only_what_its_layer_may(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    nodes = [*ast.walk(ast.parse(text))]
    require_right_imports(path, nodes)
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            body = node.end_lineno - node.lineno + 1
            assert body <= 40, f"{node.name} has {body} lines"


def test_what_decides_what_stores_and_what_replicates_know_nothing_of_each_other() -> None:
    peers = {"policy", "store", "replica"}
    for peer in peers:
        assert ALLOWED[peer] - {"telemetry"} == {peer, "domain"}


def test_only_the_edges_speak_protobuf() -> None:
    assert {name for name, may in ALLOWED.items() if "v1" in may} == {"wire", "api", "client", "runtime"}


def test_no_file_looks_outside_the_project() -> None:
    for path in (*ROOT.rglob("*.py"), *ROOT.parent.glob("[des-t]*/**/*.py")):
        folders = len(path.relative_to(ROOT.parent).parts)
        ups = [int(found) for found in re.findall(r"\.parents\[(\d+)\]", path.read_text())]
        assert all(up < folders for up in ups), path


def test_no_property_says_by_itself_how_many_examples_it_is_held_to() -> None:
    """By `tests.properties.examples`, a long run draws more of them."""
    own = re.compile(r"settings\([^()]*max_examples")
    files = [path for path in (ROOT.parent / "tests").rglob("*.py") if path.name != "properties.py"]
    assert files
    assert [path.name for path in files if own.search(path.read_text())] == []
