"""What the page on policies says is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from authz.domain.errors import PolicyError
from authz.policy.invariants import INVARIANTS_FILE
from authz.policy.versions import prove_files
from tests.policies import POLICY, with_rows

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/policies.md"


def test_the_tables_are_those_of_the_policy() -> None:
    command = [sys.executable, str(ROOT / "scripts/generate_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_examples_are_proved_once_the_invariants_name_the_new_type() -> None:
    section = PAGE.read_text().partition("## Examples")[2].partition("\n## ")[0]
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    rows = [line for language, text in fences if not language for line in text.splitlines()]
    files = with_rows(*rows)
    with pytest.raises(PolicyError, match=r"`private-content` .*, or what is of a new type"):
        prove_files(files)
    named = files[INVARIANTS_FILE].replace('"material", "api"]', '"material", "quiz", "api"]')
    materials = 'types = ["material"]\nexcept_actions'
    named = named.replace(materials, materials.replace('"]', '", "quiz"]'))
    both = prove_files(files | {INVARIANTS_FILE: named}).policy
    assert len(both.rules) == len(POLICY.rules) + sum(line.startswith("p,") for line in rows)
