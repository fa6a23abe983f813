"""A policy that would take long to load or to prove is refused before that, at the row that is too much."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import msgspec
import pytest

from authz.domain.errors import PolicyError
from authz.policy.directory_tables import parse_directory
from authz.policy.invariants import INVARIANTS_FILE
from authz.policy.load import MODEL_FILE, POLICY_FILE, policy_directory
from authz.policy.rows import MAX_FAULTS
from authz.policy.size import MAX_ACTIONS, MAX_CELLS, MAX_INVARIANTS, MAX_ROWS, MAX_RULES_OF_A_CELL
from authz.policy.toml_tables import convert_table
from authz.policy.versions import prove_files
from tests.policies import POLICY

MODEL = (policy_directory() / MODEL_FILE).read_text()
BEGIN = "role, student, course, 20, no,\ntype, note, read\n"
ANY_INVARIANT = "[gaining.any]\nsays = 'a policy needs an invariant'\n"
FACTS = ("own", "published", "attending", "locked", "ai_enabled", "course_archived", "session_live")
CONDITIONS = [" & ".join(names) for count in (1, 2, 3) for names in combinations(FACTS, count)]


def faults_of(text: str, invariants: str = ANY_INVARIANT) -> list[str]:
    """The faults of a policy; none if it is proved."""
    try:
        prove_files({MODEL_FILE: MODEL, POLICY_FILE: text, INVARIANTS_FILE: invariants})
    except PolicyError as error:
        return [str(fault) for fault in error.faults]
    return []


def roles(count: int) -> str:
    return "".join(f"role, r{n}, course, 10, no,\n" for n in range(count))


def actions(count: int) -> str:
    return f"type, many, {'|'.join(f'a{n}' for n in range(count))}\n"


ALLOW = "p, student, *, note, read, , allow\n"
LARGE: dict[str, tuple[Callable[[int], str], int, str]] = {
    "role": (lambda count: ALLOW + roles(count - 1), MAX_ROWS["role"], "is `role` row 251"),
    "g": (
        lambda count: (
            roles(100) + ALLOW + "".join([f"g, r{a}, r{b}\n" for a, b in combinations(range(100), 2)][:count])
        ),
        MAX_ROWS["g"],
        "is `g` row 501",
    ),
    "lock": (
        lambda count: actions(300) + ALLOW + "".join(f"lock, *, many, a{n}\n" for n in range(count)),
        MAX_ROWS["lock"],
        "is `lock` row 251",
    ),
    "action": (lambda count: ALLOW + actions(count - 1), MAX_ACTIONS, "declares action 501"),
    "deny": (
        lambda count: ALLOW + "".join(f"p, *, *, note, *, {c}, deny\n" for c in CONDITIONS[:count]),
        MAX_RULES_OF_A_CELL,
        "is deny row 33 about `read` on note for `student`",
    ),
    "allow": (
        lambda count: "".join(f"p, student, *, note, read, {c}, allow\n" for c in CONDITIONS[:count]),
        MAX_RULES_OF_A_CELL,
        "is allow row 33 about `read` on note for `student`",
    ),
    "deny in a course": (
        lambda count: (
            ALLOW
            + "".join(f"p, *, *, note, read, {c}, deny\n" for c in CONDITIONS[:MAX_RULES_OF_A_CELL])
            + "".join(f"p, *, course:c, note, read, !{c}, deny\n" for c in CONDITIONS[-count:])
        ),
        MAX_RULES_OF_A_CELL,
        "is deny row 33 about `read` on note for `student`",
    ),
}


@pytest.mark.parametrize("what", LARGE)
def test_a_policy_may_have_as_many_rows_and_no_more(what: str) -> None:
    rows, most, problem = LARGE[what]
    assert faults_of(BEGIN + rows(most)) == []
    (fault,) = faults_of(BEGIN + rows(most + 1))
    assert problem in fault


def test_rows_with_a_star_count_for_all_that_they_concern() -> None:
    own, each = 2, MAX_ACTIONS * MAX_ROWS["role"]
    begin = BEGIN + actions(MAX_ACTIONS - 1) + roles(MAX_ROWS["role"] - 1)
    stars = [f"p, *, *, *, *, {condition}, deny\n" for condition in CONDITIONS]
    few = MAX_CELLS // each
    (fault,) = faults_of(begin + "".join(stars[: few + 1]))
    assert f"the rules concern more than {MAX_CELLS} roles and actions" in fault
    assert fault.startswith(f"{POLICY_FILE}:{own + MAX_ROWS['role'] + few + 1}:")


def test_a_policy_may_have_as_many_invariants_and_no_more() -> None:
    tables = [
        f'[never.i{n}]\nsays = "s"\nactions = ["read"]\nwhen = "!own"\n' for n in range(MAX_INVARIANTS + 1)
    ]
    allows_none = BEGIN + "p, student, *, note, read, own, allow\n"
    assert faults_of(allows_none, "\n".join(tables[:-1])) == []
    assert faults_of(allows_none, "\n".join(tables)) == [
        f"{INVARIANTS_FILE}:1:1: has more than {MAX_INVARIANTS} invariants; write fewer"
    ]


@pytest.mark.parametrize(
    ("text", "invariants"),
    [
        (BEGIN + "p, nobody, *, note, read, , allow\n" * 3000, ANY_INVARIANT),
        (
            f"{BEGIN}p, student, *, note, read, {' & '.join(f'x{n}' for n in range(3000))}, allow\n",
            ANY_INVARIANT,
        ),
        (BEGIN + "".join(f"word{n}, a\n" for n in range(3000)), ANY_INVARIANT),
        (BEGIN + ALLOW, "".join(f"key{n} = 1\n" for n in range(3000))),
        (BEGIN + ALLOW, f"[never.a]\nsays = 'x'\nactions = {[f'a{n}' for n in range(3000)]}\n"),
    ],
    ids=["rows", "facts of a row", "kinds of rows", "keys", "names in an invariant"],
)
def test_only_the_first_of_very_many_faults_are_listed(text: str, invariants: str) -> None:
    faults = faults_of(text, invariants)
    assert len(faults) == MAX_FAULTS
    assert sum("no more are listed; correct these first" in fault for fault in faults) == 1


class OneField(msgspec.Struct):
    """A table that knows one key."""

    known: int


def test_no_more_faults_are_found_than_are_listed() -> None:
    unknown = {f"k{n}": 1 for n in range(2 * MAX_FAULTS)}
    rows = [{"k": 1}] * 2 * MAX_FAULTS
    assert len(parse_directory(unknown, POLICY.vocabulary)[1]) == MAX_FAULTS
    assert len(parse_directory({"memberships": rows, "courses": rows}, POLICY.vocabulary)[1]) == MAX_FAULTS
    table, problems = convert_table({"known": 1} | unknown, OneField)
    assert (table, len(problems)) == (OneField(1), MAX_FAULTS)
