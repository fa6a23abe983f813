"""What the owner of a course may publish in person: nothing that neither the platform nor an owner has."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from authz.domain.errors import PolicyError
from authz.policy.compile import CompiledPolicy
from authz.policy.condition import Condition
from authz.policy.course import COURSE_FILE, load_course_policy
from authz.policy.diff import diff, opened
from authz.policy.grants import excesses
from authz.policy.load import compile_files
from authz.policy.situations import closure, situations_of
from tests.facts import bits
from tests.policies import POLICY, with_rows
from tests.properties import examples

BELOW = ("teaching_assistant", "student", "attendee")
FACTS = ("own", "shared_view", "course_visible", "session_visible", "attending")
ALLOWS = [f"{fact}, allow" for fact in ("", *FACTS)]
DENIES = [f"{fact}, deny" for fact in ("", *FACTS, "!own", "!own & !shared_view", "!attending")]
ROW = "p, {}, course:a, notebook, read, {}".format
ROWS = st.builds(ROW, st.sampled_from((*BELOW, "owner")), st.sampled_from(ALLOWS + DENIES))
ANYBODY = (*BELOW, "teacher", "owner", "*")
ROWS_OF_ANYBODY = st.builds(ROW, st.sampled_from(ANYBODY), st.sampled_from(ALLOWS + DENIES))
MASKS = [bits(*names) for count in range(len(FACTS) + 1) for names in combinations(FACTS, count)]


def can_be(facts: int, roles: tuple[str, ...]) -> bool:
    """Whether exactly these of the facts can hold in the course for somebody with these roles."""
    exactly = Condition(facts, bits(*FACTS) & ~facts)
    declared = [POLICY.vocabulary.roles[name] for name in roles]
    demanded = [each.demands(declared) for each in situations_of("notebook", "read")]
    return any(each is not None and closure(exactly, each) is not None for each in demanded)


def in_course(rows: list[str]) -> CompiledPolicy:
    """The shipped policy with these rows of a course; an example with faults is passed over."""
    try:
        return load_course_policy(POLICY, "a", {COURSE_FILE: "\n".join(rows)})
    except PolicyError:
        assume(False)
        raise


def allows(policy: CompiledPolicy, facts: int, *roles: str) -> bool:
    return policy.rules_for(frozenset(roles), "a", "notebook", "read").verdict(facts).allowed


@examples(300)
@given(st.lists(ROWS, max_size=4, unique=True), st.lists(ROWS, max_size=4, unique=True))
def test_a_course_gets_in_person_only_what_the_platform_the_course_or_an_owner_had(
    old: list[str], new: list[str]
) -> None:
    before, after = in_course(old), in_course(new)
    assume(not [*excesses(before, after, roles={"owner"}, rank=50, platform=POLICY)])
    for facts, count in product(MASKS, (1, 2)):
        had = [name for name in (*BELOW, "owner") if allows(before, facts, name)]
        for roles in combinations(BELOW, count):
            if can_be(facts, roles):
                assert (
                    not allows(after, facts, *roles)
                    or allows(POLICY, facts, *roles)
                    or not {*roles, "owner"}.isdisjoint(had)
                ), (roles, bin(facts))


@examples(200)
@given(st.lists(ROWS_OF_ANYBODY, max_size=4, unique=True))
def test_what_an_owner_publishes_in_person_the_owner_may_lift(rows: list[str]) -> None:
    def found(before: CompiledPolicy, after: CompiledPolicy) -> list[str]:
        return [*excesses(before, after, roles={"owner"}, rank=50, platform=POLICY)]

    changed = in_course(rows)
    assume(not found(POLICY, changed))
    assert found(changed, POLICY) == []


@examples(100)
@given(st.lists(ROWS_OF_ANYBODY, max_size=4, unique=True))
def test_a_course_frees_nobody_of_a_deny_of_the_platform(rows: list[str]) -> None:
    assert not any(each.unblocks for each in diff(POLICY, in_course(rows)).cells)


@pytest.mark.parametrize("platform", [None, POLICY], ids=["platform", "course"])
def test_each_comparison_may_be_cancelled_at_each_step(platform: CompiledPolicy | None) -> None:
    before, after = in_course([]), in_course(["p, student, course:a, notebook, read, !own, deny"])
    asked: list[None] = []

    def ask() -> None:
        asked.append(None)

    diff(before, after, ask)
    if platform is None:
        assert [*opened(before, after, ask)] == []
    else:
        diff(platform, after, ask)
    expected = len(asked)
    asked.clear()
    found = excesses(before, after, roles={"owner"}, rank=50, platform=platform, require_not_cancelled=ask)
    assert (len([*found]), len(asked)) == (1 if platform is None else 0, expected)


def test_what_the_platform_gives_is_given_back_but_not_to_the_own_rank() -> None:
    def found(old: str, new: str = "") -> list[str]:
        before, after = in_course([old]), in_course([new])
        return [*excesses(before, after, roles={"owner"}, rank=50, platform=POLICY)]

    restricts = "p, student, course:a, notebook, read, !own & !shared_view, deny"
    assert found(restricts) == []
    assert found("p, owner, course:a, notebook, read, !own, deny") != []
    assert found(restricts, "p, student, course:a, notebook, read, session_visible, allow") != []


@pytest.mark.parametrize("deny", ["", "p, owner, course:a, material, read, {}, deny"])
@pytest.mark.parametrize("when", ["", "own"])
def test_an_author_gives_what_the_own_roles_have_but_not_what_a_deny_takes_from_them(
    deny: str, when: str
) -> None:
    rows = [deny.format(when)] if deny else []
    before, after = in_course(rows), in_course([*rows, "p, student, course:a, material, read, , allow"])
    found = [*excesses(before, after, roles={"owner"}, rank=50, platform=POLICY)]
    lacks = ["gives read on material to `student`, when !published & !for_ai_response"]
    assert found == (lacks if deny else [])


def replacing(*replaced: tuple[str, str]) -> CompiledPolicy:
    """The shipped policy, with each of these second texts in place of the first."""
    files = with_rows()
    for before, after in replaced:
        assert before in files["default.csv"]
        files["default.csv"] = files["default.csv"].replace(before, after)
    return compile_files(files)


def test_nothing_is_taken_on_the_platform_from_a_role_above() -> None:
    """Its author could not give it back; from the own rank it is taken, as from those below."""
    edits = "p, platform_admin, *, course, edit_policy, , allow\n"
    denied = edits.replace("allow", "deny")

    def found(rank: int, *replaced: tuple[str, str]) -> list[str]:
        return [*excesses(replacing(), replacing(*replaced), roles={"platform_admin"}, rank=rank)]

    for taken in ((edits, ""), (edits, denied), ("p, platform_admin, *, api, *, , allow", "")):
        refused = found(70, taken)
        assert refused
        assert all("from `platform_admin`, whose rank is not below 70" in each for each in refused), refused
        assert found(100, taken) == []
    assert found(70, ("p, teacher, *, course, update, , allow\n", "")) == []


def test_nothing_is_given_on_the_platform_to_the_own_rank_and_every_change_is_looked_at() -> None:
    creates = "p, platform_admin, *, course, create, , allow\n"
    teaches = "p, teacher, *, course, update, , allow\n"

    def found(*replaced: tuple[str, str]) -> list[str]:
        return [*excesses(replacing(), replacing(*replaced), roles={"platform_admin"}, rank=100)]

    own = (creates, creates + creates.replace("course, create", "notebook, read"))
    teacher = (teaches, teaches + teaches.replace("course", "session_note"))
    assert found(own) == ["gives read on notebook to `platform_admin`, whose rank is not below 100"]
    assert [each.partition(", when")[0] for each in found(teacher)] == [
        f"gives update on session_note to `{name}`" for name in ("owner", "teacher")
    ]
    # What the own rank loses is nobody's gift.
    assert found((creates, ""), teacher) == found(teacher)
    assert found(own, teacher) == found(own) + found(teacher)


VISITOR, GUIDE = "role, visitor, course, 10, no, alumni", "role, guide, course, 9, no,"


def found_between(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """What an administrator of the platform may not change, from the shipped policy with some rows to that
    with others."""
    old, new = (compile_files(with_rows(*rows)) for rows in (before, after))
    return [*excesses(old, new, roles={"platform_admin"}, rank=100)]


@pytest.mark.parametrize(
    "rows",
    [
        (VISITOR.replace("10", "11"), GUIDE),
        (VISITOR.replace("no, alumni", "yes, alumni"), GUIDE),
        (VISITOR.replace("alumni", ""), GUIDE),
        (VISITOR.replace("alumni", "guide"), GUIDE),
        ("role, visitor, session, 10, no,", GUIDE),
        (VISITOR, GUIDE, "g, visitor, guide"),
    ],
)
def test_no_author_changes_how_a_role_is_declared_or_what_it_inherits(rows: Sequence[str]) -> None:
    """By its rank others give and take roles; by the rest, its holders get what policies of courses give."""
    changes = ["changes how `visitor` is declared, or what it inherits"]
    assert found_between([VISITOR, GUIDE], rows) == found_between(rows, [VISITOR, GUIDE]) == changes


def test_no_author_declares_or_removes_a_role_of_the_own_rank() -> None:
    for rank in (100, 101):
        chief, chiefs = (
            f"role, chief, course, {rank}, no,",
            "changes the role `chief`, whose rank is not below 100",
        )
        assert found_between([], [chief]) == found_between([chief], []) == [chiefs]
        assert found_between([chief], [chief.replace(str(rank), "10")]) == [chiefs]


def test_a_new_role_becomes_and_inherits_nothing() -> None:
    lets = ["lets the new role `visitor` become or inherit another"]
    assert found_between([GUIDE], [GUIDE, VISITOR]) == lets
    assert found_between([GUIDE], [GUIDE, VISITOR.replace("alumni", ""), "g, visitor, guide"]) == lets
    assert found_between([], [GUIDE]) == found_between([GUIDE], []) == []


def test_a_new_role_gets_and_denies_no_more_than_another() -> None:
    """Memberships may have a role before a policy declares it."""
    gag = "role, gag, platform, 1, no,"
    denied = found_between([], [gag, "p, gag, *, course, edit_policy, , deny"])
    assert denied == ["denies edit_policy on course to each `platform_admin` who is also `gag`"]
    given = found_between([], [GUIDE, "p, guide, *, material, read, , allow"])
    assert given == ["gives read on material to `guide`, when !for_ai_response"]


@pytest.mark.parametrize(
    ("withholds", "given"),
    [
        ("lock, teaching_assistant, material, publish", "publish on material to `teaching_assistant`"),
        (
            "lock, *, material, publish",
            "publish on material to `platform_admin`, whose rank is not below 100",
        ),
        ("p, guide, *, material, publish, !own, deny", "publish on material to `guide`, when !own"),
        ("p, guide, course:a, material, publish, , deny", "publish on material to `guide`, when "),
        ("lock, support_agent, course, create", ""),
    ],
)
def test_no_author_lets_courses_give_what_the_author_lacks(withholds: str, given: str) -> None:
    """Nobody has what is withheld, so the rules of the platform give no more than before."""
    found = found_between([GUIDE, withholds], [GUIDE])
    assert any(f"lets courses give {given}" in each for each in found) == bool(given) == bool(found)
    assert found_between([GUIDE], [GUIDE, withholds]) == []


def test_a_lock_may_be_stated_otherwise() -> None:
    one = ("lock, student, notebook, export", "lock, alumni, notebook, export")
    assert found_between(one, one[::-1]) == found_between(one, ["lock, *, notebook, export"]) == []


def test_who_removes_a_role_removes_no_lock_that_names_it() -> None:
    """A later version could declare the role without the lock."""
    lock = "lock, guide, material, read"
    lets = ["lets courses give read on material to `guide`, when !for_ai_response"]
    assert found_between([GUIDE, lock], [GUIDE]) == lets
    assert found_between([GUIDE, lock], []) == lets
    assert found_between([GUIDE, "lock, *, material, read"], ["lock, *, material, read"]) == []


TESTED, UNTESTED = "type, quiz, read|grade", "type, quiz, read"


@pytest.mark.parametrize(
    "row",
    [
        "lock, student, quiz, grade",
        "lock, student, *, grade",
        "p, student, *, quiz, grade, , deny",
        "p, student, course:a, quiz, grade, , deny",
    ],
)
def test_who_removes_an_action_removes_nothing_that_withholds_it(row: str) -> None:
    """A later version could declare the action again without it."""
    lets = ["lets courses give grade on quiz to `student`, when always"]
    for after in ([TESTED], [UNTESTED], []):
        assert found_between([TESTED, row], after) == lets
    for other in ("p, student, *, quiz, *, , allow", "p, student, course:b, quiz, *, , deny"):
        assert lets[0] in found_between([TESTED, row, other], [UNTESTED, other])


@pytest.mark.parametrize(
    ("row", "after"),
    [
        ("lock, student, quiz, *", [UNTESTED]),
        ("p, student, *, quiz, *, , deny", [UNTESTED]),
        ("p, student, course:a, quiz, *, , deny", [UNTESTED]),
        ("lock, student, *, read", []),
        ("p, student, *, *, export, , deny", []),
    ],
)
def test_an_action_may_be_removed_that_stays_withheld_once_it_is_declared_again(
    row: str, after: Sequence[str]
) -> None:
    assert found_between([TESTED, row], [*after, row]) == []
    assert found_between([TESTED, row], after) != []


def test_who_removes_a_role_frees_nobody_of_the_denies_that_name_it() -> None:
    denied = (GUIDE, "p, guide, *, material, read, , deny")
    for after in ([GUIDE], []):
        found = found_between(denied, after)
        assert any("read on material to `guide`, when !for_ai_response" in each for each in found), found


@pytest.mark.parametrize(
    ("row", "refused"),
    [
        ("p, checker, *, course, edit_policy, , deny", ["edit_policy on course"]),
        ("p, checker, *, api, write_courses, , deny", ["write_courses on api"]),
        ("p, checker, *, session, create, , deny", []),
        ("p, student, *, notebook, read, !own, deny", []),
    ],
)
def test_no_deny_on_the_platform_stops_by_a_role_below_who_is_not_below(row: str, refused: list[str]) -> None:
    """Its author may give the role below to whom the author may take no other."""
    after = compile_files(with_rows(row))
    for rank in (70, 100):
        found = [*excesses(POLICY, after, roles={"platform_admin"}, rank=rank)]
        assert [f"denies {each} to each `platform_admin` who is also `checker`" for each in refused] == [
            each for each in found if "platform_admin" in each
        ]
        assert bool(found) == bool(refused)
