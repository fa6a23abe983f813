"""The pytest plugin. pytest loads it in every session: only what a test uses imports the service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from authz.testing.service import ServiceUnderTest, Template

_SCOPES = ("function", "class", "module", "package", "session")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The settings of the plugin, in the file that configures pytest."""
    parser.addini("authz_policy", "Folder of the policy; the shipped one if empty.", type="paths", default=[])
    parser.addini("authz_directory", "TOML files with the records to begin with.", type="paths", default=[])
    parser.addini(
        "authz_service_scope", f"How long a service lives: {', '.join(_SCOPES)}.", default="function"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse values that mean nothing."""
    chosen = config.getini("authz_service_scope")
    if chosen not in _SCOPES:
        raise pytest.UsageError(f"authz_service_scope is `{chosen}`; write one of {', '.join(_SCOPES)}")
    if len(config.getini("authz_policy")) > 1:
        raise pytest.UsageError("authz_policy names more than one folder")
    for folder in config.getini("authz_policy"):
        if not folder.is_dir():
            raise pytest.UsageError(f"authz_policy is `{folder}`, where there is no folder")
    for file in config.getini("authz_directory"):
        if not file.is_file():
            raise pytest.UsageError(f"authz_directory has `{file}`, where there is no file")


def _scope(fixture_name: str, config: pytest.Config) -> Any:  # one of `_SCOPES`
    return config.getini("authz_service_scope")


@pytest.fixture(scope="session")
def authz_template(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Template:
    """The policy and the directory that each service begins with."""
    from authz.runtime.gc_freeze import without_collections

    try:
        with without_collections():
            from authz.testing.service import Template
    except ModuleNotFoundError as error:
        pytest.fail(
            f"the service needs `{error.name}`, which is not installed; run"
            " `pip install 'qalamchat-authz[server-grpc,testing]'`",
            pytrace=False,
        )
    policies: list[Path] = pytestconfig.getini("authz_policy")
    return Template(
        tmp_path_factory.mktemp("authz") / "template",
        policy=policies[0] if policies else None,
        directories=pytestconfig.getini("authz_directory"),
    )


@pytest.fixture(scope=_scope)
def authz_service(
    authz_template: Template, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceUnderTest]:
    """The real service, with a directory of its own."""
    with authz_template.start(tmp_path_factory.mktemp("authz")) as service:
        yield service
