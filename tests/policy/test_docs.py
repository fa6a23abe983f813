"""What the page on policies says is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from authz.policy.load import MODEL_FILE, POLICY_FILE, load_policy, policy_directory

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/policies.md"


def test_the_tables_are_those_of_the_policy() -> None:
    command = [sys.executable, str(ROOT / "scripts/generate_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_examples_load_beside_the_default_policy(tmp_path: Path) -> None:
    section = PAGE.read_text().partition("## Examples")[2].partition("\n## ")[0]
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    examples = [text for language, text in fences if not language]
    assert examples
    default = policy_directory()
    (tmp_path / MODEL_FILE).write_bytes((default / MODEL_FILE).read_bytes())
    (tmp_path / POLICY_FILE).write_text((default / POLICY_FILE).read_text() + "".join(examples))
    rows = sum(line.startswith("p,") for line in "".join(examples).splitlines())
    assert len(load_policy(tmp_path).rules) == len(load_policy(default).rules) + rows
