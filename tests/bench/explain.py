"""Print what an explanation costs in process against a check of the same question, for each reason."""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from authz.domain.decisions import Question
from authz.domain.entities import Account, AccountStatus, Kind
from authz.domain.ids import ResourceRef, Subject
from authz.engine.check import Checker
from authz.engine.explain import explain
from authz.policy.load import load_policy, policy_directory
from authz.runtime.compose import system_clock
from authz.runtime.tuning import tune_interpreter
from tests.bench.campus import MEMBERS_A_COURSE, Campus
from tests.bench.measure import cpu_ratios, show
from tests.bench.replica import built

QUESTIONS = 5_000
Asked = Callable[[Subject, ResourceRef], Question]

ABOUT_ANOTHER: dict[str, Asked] = {
    "ROLE_GRANT": lambda subject, ref: Question(subject, "read", ref),
    "CONDITION_NOT_MET": lambda subject, ref: Question(subject, "update", ref),
    "EXPLICIT_DENY": lambda subject, ref: Question(subject, "update", ref, purpose="ai_response"),
    "PURPOSE_NOT_PERMITTED": lambda subject, ref: Question(subject, "read", ref, purpose="training"),
    "SCOPE_MISMATCH": lambda subject, ref: Question(subject, "read", ref, stated_course_id="elsewhere"),
    "RESOURCE_UNKNOWN": lambda subject, ref: Question(subject, "read", ResourceRef(ref.type, f"-{ref.id}")),
}
"""Questions of a member about the notebook of another member, open to their course, by the reason."""


class SuspendedCampus(Campus):
    """Of every 100 members of a course, one has an account that is suspended."""

    def entities(self, kind: Kind, by: str = "") -> Iterator[Any]:
        """See `Dump.entities`."""
        if kind.entity is Account:
            return (Account(self.member(n).subject, AccountStatus.SUSPENDED) for n in range(self.courses))
        return super().entities(kind, by)


def cases(campus: Campus) -> dict[str, list[Question]]:
    """Questions by the reason of their answer."""
    chance = random.Random(2)
    courses, found = campus.courses, dict[str, list[Question]]()
    for _ in range(QUESTIONS):
        course, place = chance.randrange(courses), chance.randrange(1, MEMBERS_A_COURSE - 1)
        member = campus.member(course + place * courses).subject
        ref = campus.notebook(course + (place + 1) * courses).key
        elsewhere = campus.notebook((course + 1) % courses).key
        for name, asked in ABOUT_ANOTHER.items():
            found.setdefault(name, []).append(asked(member, ref))
        found.setdefault("NOT_A_MEMBER", []).append(Question(member, "read", elsewhere))
        in_course = ResourceRef("course", campus.notebook(course).scope.id)
        found.setdefault("NO_RULE", []).append(Question(member, "manage_members", in_course))
        suspended = campus.member(course).subject
        found.setdefault("MEMBERSHIP_NOT_EFFECTIVE", []).append(Question(suspended, "read", ref))
    return found


def main(size: int = 1_000_000) -> None:
    """Over a replica of `size` memberships."""
    campus = SuspendedCampus(size)
    checker = Checker(load_policy(policy_directory()))
    with ExitStack() as stack:
        view = built(campus, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authz-bench-"))))
        stack.callback(view.close)
        tune_interpreter()  # as a server does

        def check(question: Question) -> str:
            return checker.check(view.snapshot(), question, system_clock()).verdict.reason

        def explained(question: Question) -> object:
            return explain(checker, view.snapshot(), question, system_clock())

        for reason, questions in cases(campus).items():
            assert {check(each) for each in questions} == {reason}
            _, ratio = cpu_ratios([(check, questions), (explained, questions)])
            show(f"explaining {reason} against checking it", f"{ratio:.1f}x", "5x")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1_000_000)
