"""What the page on policies says is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from authz.policy.load import POLICY_FILE
from tests.policies import POLICY, SHIPPED, compiled

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/policies.md"


def test_the_tables_are_those_of_the_policy() -> None:
    command = [sys.executable, str(ROOT / "scripts/generate_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_examples_load_beside_the_default_policy() -> None:
    section = PAGE.read_text().partition("## Examples")[2].partition("\n## ")[0]
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    examples = [text for language, text in fences if not language]
    assert examples
    rows = sum(line.startswith("p,") for line in "".join(examples).splitlines())
    both = compiled(SHIPPED[POLICY_FILE] + "".join(examples))
    assert len(both.rules) == len(POLICY.rules) + rows
