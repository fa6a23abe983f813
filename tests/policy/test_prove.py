"""The prover decides as brute force does, and only what it leaves behind convinces the checker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain, combinations
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from authz.domain.errors import FailedPreconditionError, PolicyError
from authz.domain.facts import ALL_FACTS, ATTENDING, FACTS, consequences, fact_names
from authz.domain.ids import ScopeKind
from authz.policy.certificate import Certificate, check_certificate
from authz.policy.compile import CompiledPolicy
from authz.policy.condition import parse_condition
from authz.policy.invariants import Gaining, Invariant, Never, read_invariants
from authz.policy.load import POLICY_FILE, load_policy, policy_directory
from authz.policy.prove import prove
from authz.policy.search import Refutation
from authz.policy.situations import Situation, closure, situations_of
from tests.facts import bits
from tests.policies import POLICY, SHIPPED, compiled, written
from tests.policy.reference import reference_enforcer
from tests.properties import examples

logging.getLogger("casbin").setLevel(logging.CRITICAL)

INVARIANTS = read_invariants(SHIPPED, POLICY.vocabulary)

DECLARATIONS = [
    "role, owner, course, 3, yes,",
    "role, student, course, 1, no, alumni",
    "role, alumni, course, 1, no,",
    "role, guest, session, 1, no,",
    "role, admin, platform, 9, no,",
    "type, notebook, create|read",
    "type, session, read",
    "type, course, read",
]
ROLES = ("owner", "student", "alumni", "guest", "admin")
CELLS = [("notebook", "create"), ("notebook", "read"), ("session", "read"), ("course", "read")]
NAMES = ("own", "shared_view", "shared_edit", "attending", "course_archived", "session_live", "session_ended")
CONSISTENT = [
    facts
    for names in chain.from_iterable(combinations(NAMES, size) for size in range(len(NAMES) + 1))
    for facts in [bits(*names)]
    if consequences(facts, ALL_FACTS & ~facts) is not None
]


@st.composite
def conditions(draw: st.DrawFn, *, negated: bool) -> str:
    names = draw(st.lists(st.sampled_from(NAMES), max_size=2, unique=True))
    terms = ["!" * (negated and draw(st.booleans())) + name for name in names]
    text = " & ".join(terms)
    return text if closure(parse_condition(text)) is not None else ""


@st.composite
def policies(draw: st.DrawFn) -> str:
    rows = {f"p, {draw(st.sampled_from(ROLES))}, *, notebook, read, , allow"}
    for _ in range(draw(st.integers(2, 7))):
        effect = draw(st.sampled_from(["allow", "deny"]))
        type_name = draw(st.sampled_from(["notebook", "notebook", "session", "course", "*"]))
        action = draw(st.sampled_from(["read", "*"]))
        scope = draw(st.sampled_from(["*", "*", "course:a"]))
        condition = draw(conditions(negated=effect == "deny"))
        role = draw(st.sampled_from([*ROLES, "*"]))
        rows.add(f"p, {role}, {scope}, {type_name}, {action}, {condition}, {effect}")
    links = ["g, owner, student"] if draw(st.booleans()) else []
    return "\n".join([*DECLARATIONS, *links, *sorted(rows)]) + "\n"


@st.composite
def invariants(draw: st.DrawFn) -> Invariant:
    cells = frozenset(draw(st.sets(st.sampled_from(CELLS), min_size=1)))
    if draw(st.booleans()):
        return Gaining("gaining", "", cells)
    roles = frozenset(draw(st.sets(st.sampled_from(ROLES), min_size=1)))
    return Never("never", "", cells, roles, parse_condition(draw(conditions(negated=True))))


class Brute:
    """Every set of roles and every combination of the considered facts, decided by Casbin's enforcer."""

    def __init__(self, folder: Path, policy: CompiledPolicy) -> None:
        self._enforcer = reference_enforcer(folder)
        self._policy = policy
        self._roles = policy.vocabulary.roles
        self._known: dict[tuple[object, ...], bool] = {}

    def allowed(self, roles: tuple[str, ...], scope: str, cell: tuple[str, str], facts: int) -> bool:
        key = (roles, scope, cell, facts)
        if key not in self._known:
            self._known[key] = self._enforcer.enforce(roles, scope, *cell, fact_names(facts))
        return self._known[key]

    def subjects(self, situation: Situation) -> Iterator[tuple[tuple[str, ...], int]]:
        """Everybody who can be, where somebody asks."""
        for roles in chain.from_iterable(combinations(ROLES, size) for size in range(1, len(ROLES) + 1)):
            demands = situation.demands([self._roles[name] for name in roles])
            for facts in CONSISTENT if demands is not None else ():
                if demands is not None and facts & demands.named == demands.required:
                    yield roles, facts

    def breaks(self, invariant: Invariant) -> bool:
        return any(
            self._goes_wrong(invariant, scope, cell, roles, facts, situation)
            for cell in invariant.cells
            for situation in situations_of(*cell)
            for scope in (["*", "course:a"] if ScopeKind.COURSE in situation.kinds else ["*"])
            for roles, facts in self.subjects(situation)
        )

    def _goes_wrong(  # noqa: PLR0917  one case of brute force
        self,
        invariant: Invariant,
        scope: str,
        cell: tuple[str, str],
        roles: tuple[str, ...],
        facts: int,
        situation: Situation,
    ) -> bool:
        if not self.allowed(roles, scope, cell, facts):
            return False
        if isinstance(invariant, Never):
            granting = (role in invariant.roles and self._grants(role, scope, cell, facts) for role in roles)
            return invariant.when.holds(facts) and any(granting)
        return any(
            not self.allowed(more, scope, cell, after)
            for gained in set(ROLES) - set(roles)
            if not self._is_named_by_a_deny(gained, scope, cell)
            for more in [tuple(sorted({*roles, gained}))]
            for after in self._facts_after(situation, roles, gained, facts)
        )

    def _facts_after(
        self, situation: Situation, roles: tuple[str, ...], gained: str, facts: int
    ) -> Iterator[int]:
        """What can hold after a role is gained: attending may begin with it, and nothing else changes."""
        demands = situation.demands([self._roles[name] for name in (*roles, gained)])
        kinds = {self._roles[name].scope_kind for name in roles}
        begins = self._roles[gained].scope_kind is ScopeKind.SESSION or kinds == {ScopeKind.PLATFORM}
        for after in {facts, facts | ATTENDING} if begins else {facts}:
            if demands is not None and after & demands.named == demands.required:
                yield after

    def _grants(self, role: str, scope: str, cell: tuple[str, str], facts: int) -> bool:
        course = None if scope == "*" else "a"
        return any(c.condition.holds(facts) for c in self._policy.clauses(course, role, *cell)[1])

    def _is_named_by_a_deny(self, role: str, scope: str, cell: tuple[str, str]) -> bool:
        denies, _ = self._policy.clauses(None if scope == "*" else "a", role, *cell)
        return any(clause.rule.role != "*" for clause in denies)


OF_THE_PLATFORM = """p, admin, *, notebook, *, attending, deny
p, admin, *, notebook, create, , allow
"""
"""Who has this role and one of a course loses the access by a role of a session."""


@examples(30)
@given(text=policies(), invariant=invariants())
@example("\n".join([*DECLARATIONS, OF_THE_PLATFORM]), Gaining("gaining", "", frozenset(CELLS)))
def test_the_prover_decides_as_brute_force_through_casbin(
    tmp_path_factory: pytest.TempPathFactory, text: str, invariant: Invariant
) -> None:
    folder = written(tmp_path_factory.mktemp("policy"), text)
    try:
        policy = load_policy(folder)
    except PolicyError:  # a row that can never match
        assume(False)
    proof = prove(policy, [invariant])
    assert bool(proof.breaches) is Brute(folder, policy).breaks(invariant)
    if proof.certificate is not None:
        check_certificate(proof.certificate, policy, [invariant])


def certificate() -> Certificate:
    found = prove(POLICY, INVARIANTS).certificate
    assert found is not None
    return found


def test_the_shipped_policy_keeps_every_shipped_invariant() -> None:
    assert len(INVARIANTS) >= 15
    assert prove(POLICY, INVARIANTS).breaches == ()
    check_certificate(certificate(), POLICY, INVARIANTS)


def test_a_certificate_survives_being_written_down() -> None:
    text = msgspec.json.encode(certificate())
    check_certificate(msgspec.json.decode(text, type=Certificate), POLICY, INVARIANTS)


def test_a_certificate_is_for_one_policy_and_its_invariants() -> None:
    text = (policy_directory() / POLICY_FILE).read_text()
    other = compiled(text + "p, student, *, material, read, , allow\n")
    with pytest.raises(FailedPreconditionError, match="of another policy"):
        check_certificate(certificate(), other, INVARIANTS)
    with pytest.raises(FailedPreconditionError, match="of other invariants"):
        check_certificate(certificate(), POLICY, INVARIANTS[1:])
    moved = compiled("# moved\n\n" + text)
    check_certificate(certificate(), moved, INVARIANTS)


SPLIT = """\
p, teacher, *, notebook, share, , allow
p, teacher, *, notebook, share, !own & published, deny
p, teacher, *, notebook, share, !own & !published, deny
"""
"""Rows of which no single deny keeps `only the owner shares`: the prover must look at both cases."""


def test_a_forged_certificate_is_rejected() -> None:
    text = (policy_directory() / POLICY_FILE).read_text()
    policy = compiled(text + SPLIT)
    good = prove(policy, INVARIANTS).certificate
    assert good is not None
    check_certificate(good, policy, INVARIANTS)
    shown = next(each for each in good.shown if each.because.escapes)
    place = good.shown.index(shown)
    forgeries = [
        msgspec.structs.replace(shown, because=because)
        for because in (
            Refutation(),
            Refutation(0, ()),
            Refutation(99, shown.because.escapes),
            Refutation(shown.because.deny, shown.because.escapes[1:]),
        )
    ]
    for forged in forgeries:
        everything = (*good.shown[:place], forged, *good.shown[place + 1 :])
        with pytest.raises(FailedPreconditionError, match="does not show"):
            check_certificate(msgspec.structs.replace(good, shown=everything), policy, INVARIANTS)
    with pytest.raises(FailedPreconditionError, match=r"says nothing of default\.csv:"):
        check_certificate(msgspec.structs.replace(good, shown=good.shown[1:]), policy, INVARIANTS)
    with pytest.raises(FailedPreconditionError, match=r"is over \d+ obligations, not \d+"):
        counted = msgspec.structs.replace(good, obligations=good.obligations + 1)
        check_certificate(counted, policy, INVARIANTS)


def test_every_fact_that_excludes_or_implies_another_does_so_in_the_search() -> None:
    pairs = {
        (a.name, b.name) for a in FACTS for b in FACTS if consequences(a.bit, b.bit) is None and a is not b
    }
    assert pairs == {("shared_edit", "shared_view")}
    never = {
        frozenset((a.name, b.name)) for a in FACTS for b in FACTS if consequences(a.bit | b.bit, 0) is None
    }
    assert never == {
        frozenset(("course_visible", "session_visible")),
        frozenset(("session_live", "session_ended")),
    }
    assert consequences(bits("shared_edit"), 0) == (bits("shared_edit", "shared_view"), 0)
    assert consequences(0, bits("shared_view")) == (0, bits("shared_edit", "shared_view"))
