"""What the README and the guides show: their commands run as pasted, and print what the page says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from authz.client import Client
from authz.domain.entities import Membership
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation
from authz.runtime.settings import PREFIX, Settings
from tests.forkserver import Process, run
from tests.serving import drain

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
STATED_ADDRESS = "127.0.0.1:50051"
STATED_METRICS_ADDRESS = "127.0.0.1:9464"
TIMEOUT_S = 120
NOTES = ("read ", "the token is shown only now")
"""How lines begin that a command prints next to its output."""
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)


class Reader:
    """A person who pastes what a page shows into a shell in a fresh clone. Only addresses differ, and two
    workers are enough."""

    def __init__(self, clone: Path, address: str) -> None:
        self._address = address
        self._clone = clone
        self._exports: list[str] = []
        self._exported: dict[str, str] = {}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self._environ = kept | {"AUTHZ_ADDRESS": address}
        for name in ("examples", "policies"):
            shutil.copytree(ROOT / name, clone / name)
        (clone / ".venv").symlink_to(sys.prefix)

    def paste(self, page: Path) -> None:
        """Run every block of a page, and compare the output with what the page shows."""
        with ExitStack() as server:
            for language, block in BLOCK.findall(page.read_text()):
                if language == "python":
                    self._paste_python(block)
                    continue
                for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                    command, _, shown = part.partition("\n")
                    self._paste_command(re.sub(r"\s+# .*", "", command), shown, server)

    def _paste_command(self, command: str, shown: str, server: ExitStack) -> None:
        if command.startswith("make "):
            command = recipe_of(command.removeprefix("make "))
        if command.startswith("export "):
            self._exports.append(command)
            name, _, value = shlex.split(command)[1].partition("=")
            self._exported[name] = value
        elif "authz serve" in command:
            server.close()
            server.enter_context(self._serving(command))
        elif command.startswith("authz watch"):
            self._watch(command)
        elif "pytest" not in command:  # that is this run
            code, output, errors = self._run(command)
            found = shown.startswith(("denied", "failed")) or (
                command.startswith("authz policy diff") and not shown.startswith("no access changes")
            )
            notes = [line for line in errors.splitlines() if not line.startswith(NOTES)]
            assert (code, notes) == (0 if "|" in command else int(found), []), command
            assert output == shown or not shown, command

    def _paste_python(self, block: str) -> None:
        (self._clone / "example.py").write_text(block.replace(STATED_ADDRESS, self._address))
        output, errors = self._start("python example.py").communicate(timeout=TIMEOUT_S)
        assert errors == ""
        assert output.splitlines() == re.findall(r"# prints: (.*)", block)

    @contextmanager
    def _serving(self, command: str) -> Iterator[None]:
        """A server, from when it serves until it is stopped."""
        changed = command.replace(STATED_METRICS_ADDRESS, "127.0.0.1:0").replace("--workers 4", "--workers 2")
        process = Process(
            *shlex.split(changed.removeprefix(".venv/bin/"))[1:],
            environ=self._environ | self._exported,
            stderr=subprocess.PIPE,
            folder=self._clone,
        )
        try:
            assert process.stderr is not None
            assert any('"address"' in line for line in process.stderr), f"`{command}` did not serve"
            drain(process)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(TIMEOUT_S)

    def _watch(self, command: str) -> None:
        """A watch of one change, which ends after it. When the watch has begun is not told: change on."""
        nora = Membership(subject=parse_subject("user:nora"), scope=course_scope("algebra-1"), role="student")
        watch = self._start(command)
        with Client(self._address) as client:
            deadline = time.monotonic() + TIMEOUT_S
            while watch.poll() is None and time.monotonic() < deadline:
                client.write([Mutation(Operation.TOUCH, nora)])
                client.write([Mutation(Operation.DELETE, nora.key)])
                time.sleep(0.1)
        watch.kill()
        output, errors = watch.communicate()
        assert (watch.returncode, errors) == (0, "")
        assert str(nora.key) in output

    def _run(self, command: str) -> tuple[int, str, str]:
        """The exit code and both outputs. A shell runs what needs one; an `authz` starts sooner without."""
        words, piped = words_of(command)
        if words[0] != "authz":
            return self._run_in_shell(command)
        done = run(*words[1:], environ=self._environ | self._exported, folder=self._clone)
        if not piped:
            return done.returncode, done.stdout, done.stderr
        code, output, errors = self._run_in_shell(piped, done.stdout)
        return code, output, done.stderr + errors

    def _run_in_shell(self, command: str, given: str = "") -> tuple[int, str, str]:
        done = self._start(command)
        output, errors = done.communicate(given, timeout=TIMEOUT_S)
        return done.returncode, output, errors

    def _start(self, command: str) -> subprocess.Popen[str]:
        script = "\n".join((*self._exports, command))
        return subprocess.Popen(
            ["bash", "-c", script],
            cwd=self._clone,
            env=self._environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def words_of(command: str) -> tuple[list[str], str]:
    """The words of a command, and the command that its output is piped to, if any. A command that needs more
    of a shell is one word."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>()$`*~")
    lexer.whitespace_split = True
    words = list(lexer)
    operators = [number for number, word in enumerate(words) if not set(word) - set(lexer.punctuation_chars)]
    if not operators:
        return words, ""
    if [words[number] for number in operators] != ["|"]:
        return [command], ""
    return words[: operators[0]], command.partition("|")[2]


def recipe_of(target: str) -> str:
    """What `make` runs for a target, once the environment is there."""
    found = re.search(rf"^{target}:.*\n\t(.+)\n", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found, f"the Makefile has no target `{target}`"
    return found[1].replace("$(BIN)", ".venv/bin")


def test_what_the_readme_and_a_guide_show_runs_as_pasted(tmp_path: Path, free_port: int) -> None:
    reader = Reader(tmp_path, f"127.0.0.1:{free_port}")
    reader.paste(README)
    reader.paste(ROOT / "docs/questions.md")
    reader.paste(ROOT / "docs/policies.md")
    reader.paste(ROOT / "docs/rosters.md")
    reader.paste(ROOT / "docs/cli.md")
    reader.paste(ROOT / "docs/security.md")


def test_the_readme_names_settings_and_targets_that_exist() -> None:
    text = README.read_text()
    settings = {PREFIX + field.name.upper() for field in msgspec.structs.fields(Settings)}
    named = set(re.findall(rf"`({PREFIX}[A-Z_]+)`", text))
    assert named
    assert named <= settings
    for target in re.findall(r"`make ([a-z-]+)`", text):
        recipe_of(target)


def test_the_architecture_page_names_every_package() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    named = {*re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE), "v1"}  # which is generated
    packages = {path.parent.name for path in (ROOT / "authz").glob("*/__init__.py")}
    assert named == packages
