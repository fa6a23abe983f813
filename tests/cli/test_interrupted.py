"""Ctrl-C ends a command without a traceback, also while it starts, which takes a second or more."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.forkserver import without_settings

INTERRUPTED = """
import sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == {name!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from authz.cli.__main__ import main
main()
"""


@pytest.mark.parametrize("name", ["typer", "authz.client", "authz.importers.resources"])
def test_an_interrupt_ends_a_command_with_its_exit_code_alone(name: str) -> None:
    command = ["import", "resources", "none.csv", "--database", "sqlite:///none.db"]
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(name=name), *command],
        env=without_settings(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
