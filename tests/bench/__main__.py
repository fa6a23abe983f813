"""Print all figures in one run: deciding, proofs, the replica, lists, the service, writes, revocations."""

from __future__ import annotations

import logging

from authz.domain.facts import fact_names
from authz.domain.ids import course_scope
from authz.policy.load import load_policy, policy_directory
from tests.bench import (
    activation,
    attacks,
    authentication,
    cascade,
    course_policies,
    decision_log,
    explain,
    greedy,
    lists,
    log_tree,
    past,
    pipeline,
    plans,
    preview,
    privacy,
    replica,
    restarts,
    serving,
    shadow,
    transports,
    waiting,
    writes,
)
from tests.bench import policy as policies
from tests.bench.measure import cost_us, show
from tests.facts import bits
from tests.policy.reference import decide, reference_enforcer


def bench_deciding() -> None:
    """The rules alone, compiled against Casbin."""
    policy = load_policy(policy_directory())
    enforcer = reference_enforcer(policy_directory())
    logging.disable(logging.CRITICAL)
    student, here, facts = frozenset(["student"]), course_scope("c"), bits("published")
    names = fact_names(facts)
    rounds = [None] * 10_000
    ours, _ = cost_us(lambda _: decide(policy, student, here, "material", "read", facts), rounds)
    theirs, _ = cost_us(
        lambda _: enforcer.enforce(("student",), "course:c", "material", "read", names),
        rounds[:200],
        a_round=20,
    )
    logging.disable(logging.NOTSET)
    show("deciding from facts: Casbin enforcer, default policy", f"{theirs:,.1f} us")
    show("deciding from facts: compiled", f"{ours:.2f} us")
    show("compiled against Casbin", f"{theirs / ours:,.0f}x", "goal 100x")


def main() -> None:
    """Everything. The first size of a campus is the one that larger ones are held against."""
    bench_deciding()
    policies.main()
    replica.main((10_000, 1_000_000))
    lists.main((10_000, 100_000, 1_000_000))
    explain.main()
    plans.main()
    past.main()
    serving.main(1_000_000)
    authentication.main()
    pipeline.main()
    transports.main()
    attacks.main(2)
    shadow.main()
    decision_log.main()
    preview.main(1_000_000)
    activation.main()
    course_policies.main()
    waiting.main()
    writes.main()
    log_tree.main()
    privacy.main()
    cascade.main()
    greedy.main(15)
    restarts.main(4)


if __name__ == "__main__":
    main()
