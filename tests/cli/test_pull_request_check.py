"""The example of a check of pull requests: it fails exactly for what `authz policy apply` refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from authz.policy.invariants import INVARIANTS_FILE
from authz.policy.load import POLICY_FILE
from tests.cli.commands import run
from tests.policies import SHIPPED, with_rows

COMMENT = Path(__file__).parents[2] / "examples/pull-request-check/comment.sh"
WEAKER = SHIPPED[INVARIANTS_FILE].replace('when = "!published"', 'when = "!published & locked"')
HEADLESS = SHIPPED[POLICY_FILE].replace("p, platform_admin, *, course, edit_policy, , allow\n", "")


@pytest.mark.parametrize(
    ("files", "is_refused", "says"),
    [
        (with_rows("p, student, *, session, create, , allow"), False, "gains create on session"),
        (with_rows("p, student, *, material, read, , allow"), True, "breaks the invariant"),
        (with_rows("p, teaching_assistant, *, material, publish, , allow"), True, "does not publish` fails"),
        ({INVARIANTS_FILE: WEAKER}, True, "nobody gains or loses"),
        ({POLICY_FILE: HEADLESS}, True, "nobody gains or loses"),
    ],
)
def test_the_check_fails_for_what_is_refused(
    files: dict[str, str], is_refused: bool, says: str, tmp_path: Path, here: tuple[str, str]
) -> None:
    assert run("member", "add", "user:root", "platform", "platform_admin", *here).returncode == 0
    for name, text in (SHIPPED | files).items():
        file = tmp_path / "mine" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    found = subprocess.run(
        [COMMENT, tmp_path / "mine", *here],
        env=os.environ | {"PATH": path},
        check=False,
        capture_output=True,
        text=True,
    )
    assert says in found.stdout
    assert found.returncode == (2 if is_refused else 0), found.stdout
    applied = run("policy", "apply", tmp_path / "mine", *here)
    assert applied.returncode == found.returncode, applied.stderr
