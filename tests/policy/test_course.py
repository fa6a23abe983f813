"""The policy of a course: what it may say, and that it decides and is proved as the platform's rows are."""

from __future__ import annotations

import logging
import tracemalloc
from itertools import combinations, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.errors import PolicyError
from authz.domain.facts import ALL_FACTS, fact_names
from authz.domain.ids import course_scope
from authz.policy.compile import CompiledPolicy
from authz.policy.condition import parse_condition
from authz.policy.course import (
    COURSE_FILE,
    MAX_COURSE_BYTES,
    MAX_COURSE_RULES,
    MAX_COURSES_NAMED,
    CourseReview,
    load_course_policy,
    validate_course,
)
from authz.policy.invariants import read_invariants
from authz.policy.load import POLICY_FILE, policy_directory
from authz.policy.prove import prove
from authz.policy.rows import MAX_FAULTS
from authz.policy.situations import closure
from tests.policies import POLICY, SHIPPED, compiled, written
from tests.policy.reference import decide, reference_enforcer
from tests.policy.test_reference import DECLARATIONS, ROLES, TYPES, policies, rows
from tests.properties import examples

logging.getLogger("casbin").setLevel(logging.CRITICAL)

INVARIANTS = read_invariants(SHIPPED, POLICY.vocabulary)
KEPT_APART = "p, student, course:a, notebook, read, !own & !shared_view, deny"
CREATES = "p, teaching_assistant, course:a, material, create, , allow"


def files(*rows: str) -> dict[str, str]:
    return {COURSE_FILE: "".join(f"{row}\n" for row in rows)}


def faults_of(policy: dict[str, str], platform: CompiledPolicy = POLICY) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load_course_policy(platform, "a", policy)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("p, student, *, notebook, read, own, allow", "1:13: scope `*` is not this course; write `course:a`"),
        ("p, student, course:b, notebook, read, own, allow", "1:13: scope `course:b` is not this course"),
        ("role, grader, course, 25, no,", "1:1: `role` is for the platform's policy"),
        ("type, quiz, read", "1:1: `type` is for the platform's policy"),
        ("g, student, teacher", "1:1: `g` is for the platform's policy"),
        ("lock, *, *, read", "1:1: `lock` is for the platform's policy"),
        ("P, student, course:a, notebook, read, own, allow", "1:1: unknown kind of line `P`"),
        ("p, student, course:a, notebook, raed, own, allow", "1:33: unknown action `raed` on notebook"),
        ("p, student, course:a, notebook, read, !own, allow", "1:39: negates `own` in an allow row"),
        ("p, student, course:a, notebook", "`p` has 3 fields; it needs 6"),
        ("p, student", "`p` has 1 field; it needs 6"),
        (f"{KEPT_APART}\n{KEPT_APART}", "2:1: repeats line 1"),
        (f"# {'x' * MAX_COURSE_BYTES}", f"a course's policy has at most {MAX_COURSE_BYTES}"),
        (
            f"{CREATES}\n" * (MAX_COURSE_RULES + 1),
            f"{MAX_COURSE_RULES + 1}:1: is rule {MAX_COURSE_RULES + 1}",
        ),
        ("\ufeffp, student, course:a, notebook, read, , deny", "starts with a byte order mark"),
        ("p;student;course:a;notebook;read;;deny", "fields are not separated by commas"),
    ],
)
def test_what_a_course_cannot_say_is_refused_with_its_place_and_what_to_write(row: str, says: str) -> None:
    assert any(says in fault for fault in faults_of(files(row))), faults_of(files(row))


def test_a_course_may_have_as_many_rules_and_bytes_as_are_allowed() -> None:
    names = [name for name in fact_names(ALL_FACTS) if name != "session_visible"]  # never with course_visible
    pairs = islice(combinations(names, 2), MAX_COURSE_RULES // 2)
    rows = [
        f"p, {role}, course:a, notebook, read, {' & '.join(pair)}, deny"
        for pair in pairs
        for role in ("teacher", "auditor")
    ]
    text = files(*rows)[COURSE_FILE]
    text += f"# {'x' * (MAX_COURSE_BYTES - len(text) - 2)}"
    assert len(load_course_policy(POLICY, "a", {COURSE_FILE: text}).own_rules) == MAX_COURSE_RULES


def test_another_file_is_refused_and_the_one_is_needed() -> None:
    assert faults_of({"default.csv": ""}) == [
        "course.csv:1:1: is missing; send the rules of the course in it",
        "default.csv:1:1: is not read; a course's policy is one file, course.csv",
    ]


@pytest.mark.parametrize("effect", ["allow", "deny"])
@pytest.mark.parametrize(
    ("lock", "role", "cell", "is_locked"),
    [
        ("teacher, quiz, read", "teacher", "quiz, read", True),
        ("teacher, quiz, read", "owner", "quiz, read", True),
        ("owner, quiz, read", "teacher", "quiz, read", True),
        ("owner, quiz, read", "*", "quiz, *", True),
        ("*, quiz, read", "student", "*, read", True),
        ("student, *, read", "student", "notebook, read", True),
        ("student, quiz, *", "student", "quiz, grade", True),
        ("teacher, quiz, read", "student", "quiz, read", False),
        ("teacher, quiz, read", "teacher", "quiz, grade", False),
        ("*, quiz, *", "teacher", "notebook, read", False),
    ],
)
def test_a_lock_is_of_a_role_with_its_heirs_whatever_the_effect(
    lock: str, role: str, cell: str, is_locked: bool, effect: str
) -> None:
    text = [*DECLARATIONS, "g, owner, teacher", "p, owner, *, quiz, read, , allow", f"lock, {lock}"]
    platform = compiled("\n".join(text) + "\n")
    row = files(f"p, {role}, course:a, {cell}, , {effect}")
    if is_locked:
        (fault,) = faults_of(row, platform)
        assert "which the platform locks" in fault
        assert f"default.csv:{len(text)}: lock, {lock}" in fault
    else:
        assert load_course_policy(platform, "a", row).overrides.keys() == {"a"}


def test_the_policy_of_a_course_takes_no_memory_for_the_rows_of_other_courses() -> None:
    def used_bytes(exceptions: int) -> int:
        rows = [f"p, teacher, course:x{number}, quiz, read, , allow" for number in range(exceptions)]
        platform = compiled("\n".join([*DECLARATIONS, *rows]) + "\n")
        row = files("p, student, course:a, quiz, read, , deny")
        kept = [load_course_policy(platform, "a", row)]  # what is made once is made
        tracemalloc.start()
        kept += [load_course_policy(platform, "a", row) for _ in range(20)]
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert all(len(policy.overrides) == exceptions + 1 for policy in kept)
        return used

    assert used_bytes(1000) < 1.5 * used_bytes(1)


def test_the_policies_of_two_courses_in_one_lose_none_of_their_rows() -> None:
    platform = compiled("\n".join([*DECLARATIONS, "p, student, *, quiz, read, , allow"]) + "\n")
    both = platform
    for course in ("a", "b"):
        both = load_course_policy(both, course, files(f"p, student, course:{course}, quiz, read, , deny"))
    student = frozenset({"student"})
    denied = [bool(both.rules_for(student, course, "quiz", "read").denies) for course in ("a", "b", "c")]
    assert denied == [True, True, False]


def test_the_shipped_locks_leave_a_course_what_is_taught_in_it() -> None:
    for row in (
        KEPT_APART,
        CREATES,
        "p, *, course:a, *, export, , deny",
        "p, student, course:a, message, create, , deny",
    ):
        validate_course(POLICY, INVARIANTS, "a", files(row))
    for row in (
        "p, student, course:a, notebook, ai_process, own & ai_enabled & for_ai_response, allow",
        "p, teacher, course:a, course, edit_policy, , allow",
        "p, platform_admin, course:a, course, archive, , deny",
        "p, *, course:a, course, delete, , deny",
    ):
        assert "which the platform locks" in faults_of(files(row))[0]


def test_a_course_without_rules_is_decided_by_the_platform_alone() -> None:
    assert load_course_policy(POLICY, "a", files("# nothing")) is POLICY


@examples(60)
@given(text=policies(), rows=st.sets(rows(["course:a"], ["allow", "deny"]), max_size=5), data=st.data())
def test_a_course_policy_decides_as_casbin_with_its_rows_behind_those_of_the_platform(
    tmp_path_factory: pytest.TempPathFactory, text: str, rows: set[str], data: st.DataObject
) -> None:
    added = sorted(rows.difference(["", *text.splitlines()]))
    platform = compiled(text)
    both = written(tmp_path_factory.mktemp("both"), text + "".join(f"{row}\n" for row in added))
    policy, enforcer = load_course_policy(platform, "a", files(*added)), reference_enforcer(both)
    for _ in range(12):
        roles = tuple(data.draw(st.sets(st.sampled_from(ROLES))))
        scope = course_scope(data.draw(st.sampled_from(["a", "a", "b", "c"])))
        type_name = data.draw(st.sampled_from(list(TYPES)))
        action = data.draw(st.sampled_from(TYPES[type_name]))
        mask = data.draw(st.integers(0, ALL_FACTS))
        ours = decide(policy, frozenset(roles), scope, type_name, action, mask)
        theirs = enforcer.enforce(roles, str(scope), type_name, action, fact_names(mask))
        assert ours.allowed == theirs
        if scope != course_scope("a"):
            assert ours == decide(platform, frozenset(roles), scope, type_name, action, mask)


CHOICES = [
    f"p, {role}, course:a, {cell}, {condition}, {effect}"
    for role in ("teacher", "teaching_assistant", "student", "alumni", "guest", "*")
    for cell in ("notebook, read", "material, read", "material, update", "message, update", "session, join")
    for condition, effect in (
        ("", "allow"),
        ("attending", "allow"),
        ("own & published", "allow"),
        ("attending", "deny"),
        ("!own & !shared_view", "deny"),
    )
    if closure(parse_condition(condition)) is not None
]


def is_valid(row: str) -> bool:
    try:
        load_course_policy(POLICY, "a", files(row))
    except PolicyError:
        return False
    return True


def test_it_is_proved_apart_as_with_the_whole_policy() -> None:
    proved = broken = 0
    for row in [row for row in CHOICES if is_valid(row)][::6]:
        whole = prove(load_course_policy(POLICY, "a", files(row)), INVARIANTS)
        review = CourseReview(POLICY, INVARIANTS)
        review.add("a", files(row))
        if whole.certificate is not None:
            validate_course(POLICY, INVARIANTS, "a", files(row))
            review.require_passed()
            proved += 1
            continue
        broken += 1
        names = {breach.obligation.invariant.name for breach in whole.breaches}
        for file, refuse in (
            ("course.csv", lambda row=row: validate_course(POLICY, INVARIANTS, "a", files(row))),
            ("course:a/course.csv", review.require_passed),
        ):
            with pytest.raises(PolicyError) as caught:
                refuse()
            for fault, name in zip(caught.value.faults, sorted(names), strict=True):
                assert (fault.file, fault.line) == (file, 1)
                assert any(f"`{name}`" in each.text for each in caught.value.faults), name
    assert proved > 3
    assert broken > 3


def test_a_review_names_the_first_courses_that_fail_and_counts_the_rest() -> None:
    review = CourseReview(POLICY, INVARIANTS)
    for number in range(MAX_COURSES_NAMED + 7):
        scope = f"course:c{number}"
        review.add(f"c{number}", files(f"p, student, {scope}, material, read, , allow"))
        review.add(f"d{number}", files(f"p, student, course:d{number}, notebook, read, !own, deny"))
    with pytest.raises(PolicyError) as caught:
        review.require_passed()
    *named, last = caught.value.faults
    assert [fault.file for fault in named] == [f"course:c{n}/course.csv" for n in range(MAX_COURSES_NAMED)]
    assert all("`unpublished-materials`" in fault.text for fault in named)
    assert "7 more courses" in last.text


@pytest.mark.parametrize(("beyond", "says"), [(1, "of 1 more course no"), (2, "of 2 more courses no")])
def test_courses_with_many_faults_leave_room_to_name_the_others(beyond: int, says: str) -> None:
    review = CourseReview(POLICY, INVARIANTS)
    for number in range(MAX_COURSES_NAMED + beyond):
        unknown = f"p, nobody, course:c{number}, material, read, "
        review.add(f"c{number}", files(*(f"{unknown}{fact}, allow" for fact in fact_names(ALL_FACTS)[:12])))
    with pytest.raises(PolicyError) as caught:
        review.require_passed()
    *named, last = caught.value.faults
    assert len(caught.value.faults) < MAX_FAULTS
    assert {fault.file for fault in named} == {f"course:c{n}/course.csv" for n in range(MAX_COURSES_NAMED)}
    assert says in last.text
    assert named[4].text.endswith("(and 7 more of this course)")


def test_a_course_with_an_exception_of_the_platform_is_looked_at_on_its_own() -> None:
    """The same rule passes in a course without the exception, and takes an access away in the one with it."""
    text = (policy_directory() / POLICY_FILE).read_text()
    text += "type, quiz, grade\np, *, *, quiz, grade, for_ai_response, deny\n"
    text += "p, teacher, course:b, quiz, grade, own, allow\n"
    platform = compiled(text)
    review = CourseReview(platform, read_invariants(SHIPPED, platform.vocabulary))
    for course_id in "ab":
        review.add(course_id, files(f"p, *, course:{course_id}, quiz, grade, attending, deny"))
    with pytest.raises(PolicyError) as caught:
        review.require_passed()
    (fault,) = caught.value.faults
    assert fault.file == "course:b/course.csv"
    assert "`a-role-takes-nothing-away`" in fault.text
