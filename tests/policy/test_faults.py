"""A faulty policy is refused whole, with every fault by file, line and column."""

from __future__ import annotations

from pathlib import Path

import casbin
import pytest

from authz.domain.errors import PolicyError
from authz.policy.diff import diff
from authz.policy.load import MODEL_FILE, POLICY_FILE, load_policy, policy_directory
from tests.policies import compiled

FAULTS = Path(__file__).parent / "faults"
CASES = sorted(path.stem for path in FAULTS.glob("*.csv"))


@pytest.mark.parametrize("name", CASES)
def test_a_faulty_policy_is_refused_with_its_faults(name: str, tmp_path: Path) -> None:
    (tmp_path / MODEL_FILE).write_bytes((policy_directory() / MODEL_FILE).read_bytes())
    (tmp_path / POLICY_FILE).write_bytes((FAULTS / f"{name}.csv").read_bytes())
    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path)
    assert "\n".join(map(str, caught.value.faults)) + "\n" == (FAULTS / f"{name}.txt").read_text()


def test_a_file_that_casbin_saved_is_the_same_policy_once_its_declarations_are_back(tmp_path: Path) -> None:
    shipped, saved = policy_directory(), tmp_path / POLICY_FILE
    for name in (MODEL_FILE, POLICY_FILE):
        (tmp_path / name).write_bytes((shipped / name).read_bytes())
    enforcer = casbin.Enforcer(str(tmp_path / MODEL_FILE), str(saved))
    declarations = [
        line for line in saved.read_text().splitlines() if line.startswith(("role,", "type,", "lock,"))
    ]
    enforcer.save_policy()
    with pytest.raises(PolicyError, match="declares no role and no type"):
        load_policy(tmp_path)
    saved.write_text("\n".join([*declarations, saved.read_text()]))
    before, after = load_policy(shipped), load_policy(tmp_path)
    assert not diff(before, after)


def test_a_missing_folder_is_an_error_that_names_both_files(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path / "none")
    assert [fault.file for fault in caught.value.faults] == [POLICY_FILE, MODEL_FILE]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("!some(where (p.eft == deny))", "some(where (p.eft == allow))"),
        ("has_role(r.roles, p.role) && ", ""),
        ("[role_definition]\ng = _, _\n", ""),
        ("[policy_effect]\n", ""),
        ("[role_definition]", "[role_definitions]"),
        ("[matchers]", "[matchers"),
        ("g = _, _", "g = _, _\ng = _, _"),
        ("g = _, _", "g = _, _\ng2 = _, _"),
        ("m = ", "m = true || "),
    ],
)
def test_another_model_is_refused(old: str, new: str, tmp_path: Path) -> None:
    text = (policy_directory() / MODEL_FILE).read_text()
    assert old in text
    (tmp_path / MODEL_FILE).write_text(text.replace(old, new))
    (tmp_path / POLICY_FILE).write_bytes((policy_directory() / POLICY_FILE).read_bytes())
    with pytest.raises(PolicyError, match=r"restore the shipped model\.conf"):
        load_policy(tmp_path)


def test_a_rank_of_thousands_of_digits_is_a_fault_like_another() -> None:
    with pytest.raises(
        PolicyError, match=r"default\.csv:1:24: rank `9+ … 9+` is not a number from 0 to 1000"
    ):
        compiled(f"role, student, course, {'9' * 5000}, no,\ntype, quiz, read\n")
