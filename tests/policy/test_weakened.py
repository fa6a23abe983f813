"""A version whose invariants prove less than those of the active one is named as such."""

from __future__ import annotations

import pytest

from authz.policy.invariants import INVARIANTS_FILE
from authz.policy.load import POLICY_FILE
from authz.policy.versions import prove_files
from authz.policy.weakened import weakened
from tests.policies import with_rows

FILES = with_rows()
BEFORE = prove_files(FILES)


def warnings_of(file: str, old: str, new: str) -> list[str]:
    """The warnings when the shipped policy is replaced by one with another text in a file."""
    assert old in FILES[file]
    after = prove_files(FILES | {file: FILES[file].replace(old, new)})
    return [each.text for each in weakened(BEFORE.invariants, after.invariants, after.policy.vocabulary)]


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        (
            'except_types = ["course", "session", "material", "api"]\nexcept_actions = ["create"]\nwhen',
            'types = ["notebook", "message"]\nexcept_actions = ["create"]\nwhen',
            "`delete` on session_note",
        ),
        ('when = "!published"', 'when = "!published & locked"', "every case when `!published`"),
        ('rank_below = 30\nwhen = "!pub', 'rank_below = 20\nwhen = "!pub', "`student`"),
        (
            "[never.private-content]",
            "[never.other-content]",
            "`private-content` of the active version is gone",
        ),
    ],
)
def test_an_invariant_that_covers_less_is_named_with_what_it_lost(old: str, new: str, lost: str) -> None:
    (warning,) = warnings_of(INVARIANTS_FILE, old, new)
    assert lost in warning


def test_a_role_that_leaves_an_invariant_by_its_rank_is_named() -> None:
    found = warnings_of(POLICY_FILE, "role, auditor, course, 15,", "role, auditor, course, 35,")
    assert any("`unpublished-materials`" in each and "no longer covers `auditor`" in each for each in found)


def test_a_policy_with_another_invariant_alone_loses_each() -> None:
    after = prove_files(FILES | {INVARIANTS_FILE: "[gaining.mine]\nsays = 'mine'\n"})
    found = [*weakened(BEFORE.invariants, after.invariants, after.policy.vocabulary)]
    assert len(found) == len(BEFORE.invariants) > 0


@pytest.mark.parametrize(
    "after",
    [
        with_rows("role, grader, course, 25, no,", "type, quiz, create|read"),
        FILES
        | {
            INVARIANTS_FILE: FILES[INVARIANTS_FILE]
            + '[never.x]\nsays = "x"\nactions = ["share"]\nwhen = "!own"\n'
        },
    ],
)
def test_an_invariant_that_covers_as_much_or_more_is_not(after: dict[str, str]) -> None:
    proved = prove_files(after)
    assert [*weakened(BEFORE.invariants, proved.invariants, proved.policy.vocabulary)] == []
