"""The policy of one course: its own rules, loaded as those of the platform are, and held to its locks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from authz.domain.decisions import Rule
from authz.domain.entities import PolicyVersion
from authz.domain.errors import PolicyError, PolicyFault
from authz.domain.files import files_text
from authz.domain.ids import course_scope
from authz.domain.vocabulary import suggest
from authz.policy.compile import CompiledPolicy
from authz.policy.invariants import Invariant
from authz.policy.load import require_same_as_casbin
from authz.policy.locks import cells_of
from authz.policy.obligations import Obligation, obligations
from authz.policy.prove import Prover
from authz.policy.rows import WIDTHS, Faults, Row, read_rows, trim_padding
from authz.policy.rules import inheritors_of, read_rules
from authz.policy.versions import compile_version, require_unbroken

COURSE_FILE = "course.csv"
"""The one file of a course's policy."""
MAX_COURSE_BYTES = 16_384
MAX_COURSE_RULES = 100
"""Few, because a check may have to compile them."""
MAX_COURSES_NAMED = 100
"""Of those whose policy does not pass under a new one of the platform."""
_MAX_FAULTS_EACH = 5
_RULE, _SCOPE_FIELD = "p", 2


def course_files(text: str) -> str:
    """The files of a course's policy as one text, as a version has them."""
    return files_text({COURSE_FILE: text})


def load_course_policy(platform: CompiledPolicy, course_id: str, files: Mapping[str, str]) -> CompiledPolicy:
    """The platform's policy with the rules of a course's own; the platform's itself if it has none.

    Raises `PolicyError` with every fault: those of rows, names and conditions as in `load_policy`; a row of
    another kind or scope; and a rule that speaks of what the platform locks.
    """
    faults = Faults()
    rows = _read(files, faults)
    scope = str(course_scope(course_id))
    for row in rows:
        _check_row(row, scope, faults)
    rules = read_rules(rows, platform.vocabulary, platform.inherited, faults)
    faulty, by_source = faults.lines(), {rule.source: rule for rule in rules}
    for row in rows:
        if row.line not in faulty:
            _check_locks(row, by_source[f"{row.file}:{row.line}"], platform, faults)
    faults.require_none()
    return platform.with_override(course_id, rules) if rules else platform


def validate_course(
    platform: CompiledPolicy, invariants: Sequence[Invariant], course_id: str, files: Mapping[str, str]
) -> CompiledPolicy:
    """As `load_course_policy`. Raises `PolicyError` also with every rule that breaks an invariant of the
    platform, which its own rules keep."""
    policy = load_course_policy(platform, course_id, files)
    require_same_as_casbin(files[COURSE_FILE], policy.own_rules, file=COURSE_FILE)
    require_unbroken(Prover().breaches(_added(policy, platform, invariants, course_id)))
    return policy


class CourseReview:
    """Finds the policies of courses that do not pass under a policy of the platform.

    Many courses have the same rules: what passes in one course is not proved again in another.
    """

    def __init__(self, platform: CompiledPolicy, invariants: Sequence[Invariant]) -> None:
        self._platform, self._invariants = platform, invariants
        self._prover = Prover()
        self._passed: set[str] = set()
        self._faults: list[PolicyFault] = []
        self._failed = 0

    def add(self, course_id: str, files: Mapping[str, str]) -> None:
        """Look at the policy of a course."""
        scope, text = str(course_scope(course_id)), files.get(COURSE_FILE, "")
        # A course with an exception of the platform's own is like no other.
        common = course_id not in self._platform.overrides
        if common and (shape := text.replace(scope, "\0")) in self._passed:
            return
        try:
            policy = load_course_policy(self._platform, course_id, files)
            added = _added(policy, self._platform, self._invariants, course_id)
            require_unbroken(self._prover.breaches(added))
        except PolicyError as error:
            self._failed += 1
            if self._failed <= MAX_COURSES_NAMED:
                self._faults += _first_faults(error, scope)
        else:
            if common:
                self._passed.add(shape)

    def require_passed(self) -> None:
        """Raise `PolicyError` with the faults of the first courses whose policy does not pass."""
        if not self._failed:
            return
        more = self._failed - MAX_COURSES_NAMED
        if more > 0:
            courses = "1 more course" if more == 1 else f"{more} more courses"
            text = f"of {courses} no longer pass; mend those that are named first"
            self._faults.append(PolicyFault("policies", 1, 1, text))
        raise PolicyError(tuple(self._faults))


def _first_faults(error: PolicyError, scope: str) -> Iterator[PolicyFault]:
    """Few of each course: else the faults of a few courses would leave no room to name the others."""
    shown, more = error.faults[:_MAX_FAULTS_EACH], len(error.faults) - _MAX_FAULTS_EACH
    for fault in shown[:-1]:
        yield _in_course(fault, scope)
    last = _in_course(shown[-1], scope)
    yield last if more <= 0 else last._replace(text=f"{last.text} (and {more} more of this course)")


def _in_course(fault: PolicyFault, scope: str) -> PolicyFault:
    file = f"{scope}/{COURSE_FILE}"
    if fault.file == COURSE_FILE:
        return fault._replace(file=file)
    # A deny row of the platform's that takes away what the course gives.
    return PolicyFault(file, 1, 1, f"with {fault.file}:{fault.line}: {fault.text}")


def _added(
    policy: CompiledPolicy, platform: CompiledPolicy, invariants: Sequence[Invariant], course_id: str
) -> Iterator[Obligation]:
    """The obligations that a course's own policy adds to those of the platform."""
    if policy is not platform:
        yield from obligations(policy, invariants, [course_id])


def compile_course_version(platform: CompiledPolicy, version: PolicyVersion) -> CompiledPolicy:
    """Compile a version of a course's policy. Raises `UnusablePolicyError` if this release cannot read it."""
    return compile_version(version, partial(load_course_policy, platform, version.scope.id))


def _read(files: Mapping[str, str], faults: Faults) -> list[Row]:
    for name in files:
        if name != COURSE_FILE:
            faults.add(name, 1, 1, f"is not read; a course's policy is one file, {COURSE_FILE}")
    text = files.get(COURSE_FILE)
    if text is None:
        faults.add(COURSE_FILE, 1, 1, "is missing; send the rules of the course in it")
        return []
    size_bytes = len(text.encode())
    if size_bytes > MAX_COURSE_BYTES:
        faults.add(
            COURSE_FILE, 1, 1, f"has {size_bytes} bytes; a course's policy has at most {MAX_COURSE_BYTES}"
        )
        return []
    rows = trim_padding(list(read_rows(COURSE_FILE, text, faults)), faults)
    if len(rows) > MAX_COURSE_RULES:
        excess = rows[MAX_COURSE_RULES]
        faults.at(
            excess, 0, f"is rule {MAX_COURSE_RULES + 1}; a course has at most {MAX_COURSE_RULES}: use `*`"
        )
        return []
    return rows


def _check_row(row: Row, scope: str, faults: Faults) -> None:
    kind = row.kind
    if kind != _RULE:
        text = (
            f"unknown kind of line `{kind}`; {suggest(kind, [_RULE])}"
            if kind not in WIDTHS
            else f"`{kind}` is for the platform's policy; a course's own has `p` rows only: remove the row"
        )
        faults.at(row, 0, text)
    elif len(row.fields) == WIDTHS[_RULE] and row.fields[_SCOPE_FIELD] != scope:
        text = f"scope `{row.fields[_SCOPE_FIELD]}` is not this course; write `{scope}`"
        faults.at(row, _SCOPE_FIELD, text)


def _check_locks(row: Row, rule: Rule, platform: CompiledPolicy, faults: Faults) -> None:
    for cell in cells_of(rule, platform.vocabulary, inheritors_of(rule.role, platform.inherited)):
        lock = platform.locked.get(cell)
        if lock is not None:
            role, type_name, action = cell
            text = (
                f"speaks of `{action}` on {type_name} for `{role}`, which the platform locks"
                f" ({lock.source}: {lock}); remove the row, or have those who run the platform"
                " remove the lock"
            )
            faults.at(row, 0, text)
            return
