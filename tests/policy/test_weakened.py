"""A version whose invariants cover less than those of the active one says what they lost."""

from __future__ import annotations

import msgspec
import pytest

from authz.domain.errors import FailedPreconditionError
from authz.policy.invariants import INVARIANTS_FILE, Never
from authz.policy.load import POLICY_FILE
from authz.policy.versions import prove_files
from authz.policy.weakened import require_not_weakened, weakened
from authz.wire.errors import status_of
from tests.policies import with_rows

FILES = with_rows()
BEFORE = prove_files(FILES)


def lost_by(file: str, old: str, new: str) -> list[str]:
    """What is lost when the shipped policy is replaced by one with another text in a file."""
    assert old in FILES[file]
    after = prove_files(FILES | {file: FILES[file].replace(old, new)})
    return [*weakened(BEFORE.invariants, after.invariants, after.policy.vocabulary)]


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        (
            'except_types = ["course", "session", "material", "api"]\nexcept_actions = ["create"]\nwhen',
            'types = ["notebook", "message"]\nexcept_actions = ["create"]\nwhen',
            "`update` on session_note",
        ),
        ('when = "!published"', 'when = "!published & locked"', "every case when `!published`"),
        ('rank_below = 30\nwhen = "!pub', 'rank_below = 20\nwhen = "!pub', "`student`"),
    ],
)
def test_an_invariant_that_covers_less_is_named_with_what_it_lost(old: str, new: str, lost: str) -> None:
    (text,) = lost_by(INVARIANTS_FILE, old, new)
    assert lost in text


def test_an_invariant_that_is_gone_is_named_and_not_one_that_another_name_covers() -> None:
    assert lost_by(INVARIANTS_FILE, "[never.private-content]", "[never.other-content]") == []
    table = FILES[INVARIANTS_FILE].partition("[never.private-content]")[2].partition("\n\n")[0]
    (text,) = lost_by(INVARIANTS_FILE, f"[never.private-content]{table}", "")
    assert "`private-content` of the active version (" in text
    assert text.endswith("is gone")


def test_invariants_may_share_what_one_covered() -> None:
    head, found, tail = FILES[INVARIANTS_FILE].partition("[never.private-content]")
    assert found
    table, _, rest = tail.partition("\n\n")
    kept = 'except_types = ["course", "session", "material", "api"]\nexcept_actions = ["create"]\n'
    assert kept in table

    def part(name: str, selection: str) -> str:
        return f"[never.{name}]" + table.replace(kept, f'{selection}\nexcept_actions = ["create"]\n')

    notebooks = part("notebooks", 'types = ["notebook"]')
    others = part("others", 'except_types = ["course", "session", "material", "api", "notebook"]')
    for text, lost in (("\n\n".join((notebooks, others)), 0), (others, 1)):
        after = prove_files(FILES | {INVARIANTS_FILE: f"{head}{text}\n\n{rest}"})
        assert len([*weakened(BEFORE.invariants, after.invariants, after.policy.vocabulary)]) == lost


def test_a_role_that_leaves_an_invariant_by_its_rank_is_named() -> None:
    found = lost_by(POLICY_FILE, "role, auditor, course, 15,", "role, auditor, course, 35,")
    assert any("`unpublished-materials`" in each and "no longer covers `auditor`" in each for each in found)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["type, quiz, create|read"], []),
        (["type, quiz, create|read"], ["type, quiz, create"]),
        (["role, grader, course, 25, no,"], []),
    ],
    ids=["type", "action", "role"],
)
def test_what_the_new_version_declares_no_more_is_not_missed(before: list[str], after: list[str]) -> None:
    earlier, files = prove_files(with_rows(*before)), with_rows(*after)
    later = prove_files(files)
    assert [*weakened(earlier.invariants, later.invariants, later.policy.vocabulary)] == []
    old = "!own & !shared_view & !course_visible & !attending"
    files[INVARIANTS_FILE] = files[INVARIANTS_FILE].replace(f'"{old}"', f'"{old} & locked"')
    narrowed = prove_files(files)
    (told,) = weakened(earlier.invariants, narrowed.invariants, narrowed.policy.vocabulary)
    assert told.endswith(f"no longer covers every case when `{old}`")


def test_a_policy_with_another_invariant_alone_loses_each() -> None:
    after = prove_files(FILES | {INVARIANTS_FILE: "[gaining.mine]\nsays = 'mine'\n"})
    found = [*weakened(BEFORE.invariants, after.invariants, after.policy.vocabulary)]
    # `mine` covers what the shipped one of its kind does.
    assert len(found) == sum(isinstance(each, Never) for each in BEFORE.invariants) > 0


@pytest.mark.parametrize("says", ["nobody reads it", "никто не читает", "100 %"])
@pytest.mark.parametrize("length", range(1, 99, 7))
def test_an_error_names_what_is_lost_and_the_remedy_and_fits_a_status(says: str, length: int) -> None:
    many = [
        msgspec.structs.replace(each, name=f"{'n' * length}-{number}", says=says)
        for number in range(50)
        for each in BEFORE.invariants
        if isinstance(each, Never)
    ]
    with pytest.raises(FailedPreconditionError, match="cover less") as caught:
        require_not_weakened(many, [], BEFORE.policy.vocabulary)
    lines = status_of(caught.value).message.splitlines()
    assert "`weaken_invariants`" in lines[0]
    assert all(line.endswith("is gone") for line in lines[1:-1])
    assert lines[-1] == f"… and {len(many) - len(lines[1:-1])} more; `ValidatePolicy` warns of each"


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
