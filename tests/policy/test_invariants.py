"""Invariants as data: what a table selects, and the faults of a file, all at once."""

from __future__ import annotations

import pytest

from authz.domain.errors import PolicyError
from authz.policy.invariants import INVARIANTS_FILE, Gaining, Never, read_invariants
from tests.facts import bits
from tests.policies import POLICY

VOCABULARY = POLICY.vocabulary


def test_a_table_selects_roles_and_actions_by_what_it_names_and_leaves_out() -> None:
    text = (
        "[never.a]\nsays = 'a'\nexcept_types = ['course', 'session']\nactions = ['publish', 'read']\n"
        "rank_below = 30\nkind = 'course'\nexcept_roles = ['alumni']\nwhen = '!own & published'\n"
        "[gaining.b]\nsays = 'b'\ntypes = ['material']\nexcept_actions = ['ai_process']\n"
    )
    never, gaining = read_invariants({INVARIANTS_FILE: text}, VOCABULARY)
    assert isinstance(never, Never)
    assert never.roles == {"student", "auditor"}
    assert never.cells == {
        *((name, "read") for name in ("material", "message", "notebook", "session_note")),
        ("material", "publish"),
    }
    assert (never.when.required, never.when.forbidden) == (bits("published"), bits("own"))
    assert isinstance(gaining, Gaining)
    assert {action for _, action in gaining.cells} == {"create", "read", "update", "delete", "publish"}


def test_a_policy_without_the_file_has_no_invariants() -> None:
    assert read_invariants({}, VOCABULARY) == ()


def test_every_fault_is_listed_at_its_table_with_the_remedy() -> None:
    text = (
        "[never.a]\nsays = 'a'\ntypes = ['materiel']\nroles = ['studnet']\nwhen = '!onw'\n\n"
        "[never.b]\nsays = 'b'\ntypes = ['course']\nactions = ['publish']\n"
        "when = 'session_live & session_ended'\n"
    )
    with pytest.raises(PolicyError) as caught:
        read_invariants({INVARIANTS_FILE: text}, VOCABULARY)
    assert list(map(str, caught.value.faults)) == [
        "invariants.toml:1:1: unknown fact `onw`; did you mean `own`?",
        "invariants.toml:1:1: unknown role `studnet`; did you mean `student`?",
        "invariants.toml:1:1: unknown type `materiel`; did you mean `material`?",
        "invariants.toml:7:1: `when` never holds: `session_live & session_ended` contradicts itself;"
        " remove a fact",
        "invariants.toml:7:1: selects no action of any type; widen `types` or `actions`",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "\n[never.a\n",
            "2:9: is no TOML: expected ']' at the end of a table declaration; see docs/policies.md",
        ),
        ("\ufeff[never.a]\n", "1:1: starts with a byte order mark; save it as UTF-8 without one"),
        ("[never.a]\nsays = 'a'\ntyps = []\n", "1:1: `a`: unknown key `typs`; did you mean `types`?"),
        ("\n[never.a]\nactions = ['read']\n", "2:1: `a`: needs `says`"),
        ("[never.a]\nsays = 'a'\nactions = 'read'\n", "1:1: `a`: `actions`: expected `array`, got `str`"),
        (
            "[never.a]\nsays = 'a'\nkind = 'courses'\n",
            "1:1: unknown kind of scope `courses`; did you mean `course`?",
        ),
        (
            "[never.a]\nsays = 'a'\nrank_below = 1\n",
            "1:1: selects no role; widen `roles`, `rank_below` or `kind`",
        ),
        (
            "[never.a]\nsays = 'a'\nwhen = 'own || locked'\n",
            '1:1: `own || locked` is no fact; join facts with `&`; for "or", write two invariants',
        ),
        ("[gaining.a]\nsays = 'a'\nwhen = 'own'\n", "1:1: `a`: unknown key `when`; known are "),
        (
            "\n[sometimes.a]\nsays = 'a'\n",
            "2:1: `sometimes` is no kind of invariant; write `[never.NAME]` or `[gaining.NAME]`",
        ),
        (
            "[never]\nsays = 'a'\n",
            "2:1: `says`: is not a table; write `key = value` lines below a header, or `{ key = value, … }`",
        ),
        ("never = 3", "1:1: `never` is no kind of invariant; write `[never.NAME]` or `[gaining.NAME]`"),
    ],
)
def test_a_table_that_is_no_invariant_is_refused_at_its_line(text: str, fault: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read_invariants({INVARIANTS_FILE: text}, VOCABULARY)
    assert [str(each)[: len(fault) + 16] for each in caught.value.faults] == [f"invariants.toml:{fault}"]


def test_an_unknown_key_hides_no_other_fault_of_its_table() -> None:
    text = "[never.a]\nsays = 'a'\nroels = ['student']\ntypes = ['materail']\nwhen = 'publishd'\n"
    with pytest.raises(PolicyError) as caught:
        read_invariants({INVARIANTS_FILE: text}, VOCABULARY)
    assert [fault.text.partition(";")[0] for fault in caught.value.faults] == [
        "`a`: unknown key `roels`",
        "unknown fact `publishd`",
        "unknown type `materail`",
    ]
