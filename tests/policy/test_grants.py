"""What the owner of a course may publish in person: nothing that neither the platform nor an owner has."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from authz.domain.errors import PolicyError
from authz.policy.compile import CompiledPolicy
from authz.policy.condition import Condition
from authz.policy.course import COURSE_FILE, load_course_policy
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


def test_what_the_platform_gives_is_given_back_but_not_to_the_own_rank() -> None:
    def found(old: str, new: str = "") -> list[str]:
        before, after = in_course([old]), in_course([new])
        return [*excesses(before, after, roles={"owner"}, rank=50, platform=POLICY)]

    restricts = "p, student, course:a, notebook, read, !own & !shared_view, deny"
    assert found(restricts) == []
    assert found("p, owner, course:a, notebook, read, !own, deny") != []
    assert found(restricts, "p, student, course:a, notebook, read, session_visible, allow") != []


def test_a_role_may_become_what_its_author_has_and_nothing_else() -> None:
    """Also one that is new."""

    def found(becomes: str, *author: str) -> list[str]:
        after = compile_files(with_rows(f"role, visitor, course, 10, no, {becomes}"))
        return [*excesses(POLICY, after, roles=author, rank=100)]

    assert found("alumni", "alumni") == found("", "support_agent") == []
    assert all("lets `visitor` become `alumni`" in each for each in found("alumni", "support_agent"))
    assert found("alumni", "support_agent")


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


def test_no_author_changes_the_rank_of_a_role() -> None:
    """It decides whose roles those who manage members may give and take."""

    def found(rank: str) -> list[str]:
        declared = "role, teacher, course, 40, yes,"
        after = replacing((declared, declared.replace("40", rank)))
        return [*excesses(replacing(), after, roles={"platform_admin"}, rank=100)]

    changes = ["changes the rank of `teacher`, by which others may give and take roles"]
    assert found("60") == found("35") == changes
    assert found("40") == []


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
