"""The shadow of the policy between protobuf and the domain."""

from __future__ import annotations

from operator import attrgetter

from msgspec.structs import replace

from authz.domain.errors import malformed
from authz.domain.impact import Example
from authz.domain.shadow import PolicyShadow, ShadowExample, ShadowReport, ShadowTally
from authz.v1 import policy_pb2 as pb
from authz.wire.forms import Codec, Form
from authz.wire.policies import parse_policy_scope
from authz.wire.previews import VERDICT
from authz.wire.values import missing

_DEFAULT_SAMPLE_RATE, _DEFAULT_BUDGET_US, _MAX_BUDGET_US = 0.01, 10_000, 1_000_000


def parse_trial(request: pb.StartPolicyShadowRequest) -> tuple[float, int]:
    """The sampling rate and the budget in microseconds of a second; 0 means the default."""
    sample_rate, budget_us = request.sample_rate, request.budget_us
    if request.WhichOneof("candidate") is None:
        raise missing("candidate")
    if not 0 <= sample_rate <= 1:
        raise malformed(
            "sample_rate", f"is {sample_rate:g}; set it to more than 0 and at most 1, such as 0.01"
        )
    if not 0 <= budget_us <= _MAX_BUDGET_US:
        raise malformed("budget_us", f"is {budget_us}; set it to 1 to {_MAX_BUDGET_US}")
    return sample_rate or _DEFAULT_SAMPLE_RATE, budget_us or _DEFAULT_BUDGET_US


# One of the two names the candidate: the other one must not be sent.
_UNLESS_EMPTY = Codec(lambda value: value or None, lambda value: value)
_SHADOWS = Form(
    PolicyShadow,
    pb.PolicyShadow,
    names={"scope": "course_id"},
    without=("id", "files"),
    scope=Codec(attrgetter("id"), parse_policy_scope),
    number=_UNLESS_EMPTY,
    draft_id=_UNLESS_EMPTY,
)
_PLACES = Form(Example, pb.AccessExample)
_EXAMPLES = Form(
    ShadowExample,
    pb.PolicyShadowExample,
    names={"at": "checked_at"},
    without=("resource", "scope"),
    active=VERDICT,
    candidate=VERDICT,
)
_TALLIES = Form(
    ShadowTally,
    pb.PolicyShadow,
    examples=Codec(
        lambda examples: [
            pb.PolicyShadowExample(
                **_EXAMPLES.fields(each), resource=_PLACES.message(Example(each.resource, each.scope))
            )
            for each in examples
        ],
        lambda messages: tuple(
            ShadowExample(**_EXAMPLES.values(each), **_PLACES.values(each.resource)) for each in messages
        ),
    ),
)
_REPORTS = Form(ShadowReport, pb.PolicyShadow, shadow=_SHADOWS, tally=_TALLIES)


def shadow_message(report: ShadowReport) -> pb.PolicyShadow:
    """A shadow with what came of it, the most frequent cells first."""
    tally = report.tally
    by_checks = sorted(tally.cells, key=lambda each: (-each.checks, each.cell))
    message: pb.PolicyShadow = _REPORTS.message(replace(report, tally=replace(tally, cells=tuple(by_checks))))
    return message


parse_shadow = _REPORTS.parse
"""The shadow of a message."""
