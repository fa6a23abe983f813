"""A counterexample is a campus that a replica holds and on which a check goes wrong; no leak goes unfound."""

from __future__ import annotations

import pytest

from authz.domain.decisions import Reason
from authz.domain.errors import PolicyError
from authz.domain.trace import Trace
from authz.engine.check import Checker
from authz.policy.cases import case_file_of, read_case_file, render
from authz.policy.counterexample import Counterexample, counterexample
from authz.policy.invariants import Gaining, read_invariants
from authz.policy.prove import Breach, prove
from tests.engine.campus import Campus
from tests.policies import SHIPPED
from tests.policy.leaks import LEAKS, REFUSED, Leak, leaking


def breaches_of(leak: Leak) -> tuple[Checker, list[tuple[Breach, Counterexample]]]:
    policy = leaking(leak)
    proof = prove(policy, read_invariants(SHIPPED, policy.vocabulary))
    assert (proof.certificate is None) is bool(proof.breaches)
    found = [(breach, counterexample(breach, policy.vocabulary)) for breach in proof.breaches]
    return Checker(policy), found


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_found_with_a_campus_on_which_check_goes_wrong(name: str) -> None:
    leak = LEAKS[name]
    checker, found = breaches_of(leak)
    assert {breach.obligation.invariant.name for breach, _ in found} == set(leak.broken)
    for breach, example in found:
        trace = Trace()
        decision = checker.check(Campus(example.entities), example.question, example.now, trace)
        assert decision.reason is Reason.ROLE_GRANT
        assert trace.facts == breach.facts
        assert {each.gives for each in trace.memberships} == set(breach.obligation.roles)
        if isinstance(breach.obligation.invariant, Gaining):
            assert example.gained is not None
            more = Campus([*example.entities, example.gained])
            assert checker.check(more, example.question, example.now).reason is Reason.EXPLICIT_DENY
        else:
            assert example.gained is None


@pytest.mark.parametrize("name", LEAKS)
def test_a_counterexample_is_a_test_file_that_fails_until_the_leak_is_mended(name: str) -> None:
    checker, found = breaches_of(LEAKS[name])
    vocabulary = checker.policy.vocabulary
    for _, example in found:
        text = render(case_file_of("says", example))
        read = read_case_file("leak.toml", text, vocabulary)
        gained = () if example.gained is None else (example.gained,)
        assert set(read.entities) == {*example.entities, *gained}
        (case,) = read.cases
        assert (case.question, case.now) == (example.question, example.now)
        campus = Campus(read.entities)
        assert checker.check(campus, case.question, case.now).allowed is not case.allowed


@pytest.mark.parametrize("name", REFUSED)
def test_a_leak_that_no_policy_can_have_is_refused_when_it_is_loaded(name: str) -> None:
    rows, message = REFUSED[name]
    with pytest.raises(PolicyError, match=message):
        leaking(Leak(rows, ()))
