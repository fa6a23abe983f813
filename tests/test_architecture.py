"""The layers of the house, read from the imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "authz"
FILES = sorted(path for path in ROOT.rglob("*.py") if "v1" not in path.relative_to(ROOT).parts)
OURS = ("domain", "policy", "store", "service", "client", "cli", "roster", "server", "settings", "v1")
ALLOWED = {
    "domain": {"domain"},
    "policy": {"policy", "domain"},
    "store": {"store", "domain"},
    "roster": {"roster", "domain"},
    "service": {"service", "policy", "domain", "v1"},
    "client": {"client", "service", "domain", "v1"},
    "settings": {"domain"},
    "server": {"service", "policy", "store", "domain", "settings", "v1"},
    "cli": set(OURS),
}
ONLY_IN = {"casbin": "policy", "sqlalchemy": "store", "alembic": "store"}
IMPURE = {"grpc", "sqlalchemy", "casbin", "lmdb", "os", "time", "random", "secrets", "pathlib"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            if node.module == "authz":
                names |= {f"authz.{alias.name}" for alias in node.names}
    return names


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    here = layer(path)
    for name in imported(path):
        head, _, rest = name.partition(".")
        if head == "authz" and rest and here in ALLOWED:
            assert rest.split(".")[0] in ALLOWED[here], name
        if head in ("casbin", "sqlalchemy", "alembic"):
            assert here == ONLY_IN[head], name
        if here == "domain":
            assert head not in IMPURE, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_outgrows_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
