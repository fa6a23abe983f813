"""The shadow of the policy between protobuf and the domain."""

from __future__ import annotations

from authz.domain.errors import malformed
from authz.domain.ids import ResourceRef
from authz.domain.shadow import (
    PolicyShadow,
    ShadowCell,
    ShadowCount,
    ShadowExample,
    ShadowReport,
    ShadowState,
    ShadowTally,
)
from authz.v1 import policy_pb2 as pb
from authz.wire.policies import parse_policy_scope
from authz.wire.previews import parse_verdict, verdict_message
from authz.wire.values import (
    WireEnum,
    missing,
    parse_scope_message,
    parse_subject_message,
    scope_message,
    subject_message,
    time_message,
)

_DEFAULT_SAMPLE_RATE, _DEFAULT_BUDGET_US, _MAX_BUDGET_US = 0.01, 10_000, 1_000_000
_STATES = WireEnum(pb.PolicyShadowState.DESCRIPTOR, ShadowState)
_HOW = ("number", "draft_id", "against_number", "against_course_number", "sample_rate", "budget_us", "author")
_COUNTS = ("compared", "differing", "skipped", "failed", "last_failure", "elapsed_us")


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


def shadow_message(report: ShadowReport) -> pb.PolicyShadow:
    """A shadow with what came of it, the most frequent cells first."""
    shadow, tally = report.shadow, report.tally
    by_checks = sorted(tally.cells, key=lambda each: (-each.checks, each.cell))
    return pb.PolicyShadow(
        **{name: getattr(shadow, name) for name in _HOW if getattr(shadow, name)},
        course_id=shadow.scope.id,
        started_at=time_message(shadow.started_at),
        ends_at=time_message(shadow.ends_at),
        state=_STATES.number(report.state),
        **{name: getattr(tally, name) for name in _COUNTS},
        cells=[_cell_message(*each) for each in by_checks],
        examples=map(_example_message, tally.examples),
    )


def parse_shadow(message: pb.PolicyShadow) -> ShadowReport:
    """The shadow of a message."""
    shadow = PolicyShadow(
        **{name: getattr(message, name) for name in _HOW},
        scope=parse_policy_scope(message.course_id),
        started_at=message.started_at.ToMicroseconds(),
        ends_at=message.ends_at.ToMicroseconds(),
    )
    tally = ShadowTally(
        **{name: getattr(message, name) for name in _COUNTS},
        cells=tuple(ShadowCount(_parse_cell(each), each.checks) for each in message.cells),
        examples=tuple(map(_parse_example, message.examples)),
    )
    state = _STATES.parse(message.state, field="state")
    return ShadowReport(shadow, state, tally)


def _cell_message(cell: ShadowCell, checks: int = 0) -> pb.PolicyShadowCell:
    return pb.PolicyShadowCell(**cell._asdict(), checks=checks)


def _parse_cell(message: pb.PolicyShadowCell) -> ShadowCell:
    return ShadowCell(tuple(message.roles), message.type, message.action, message.gains)


def _example_message(example: ShadowExample) -> pb.PolicyShadowExample:
    ref = example.resource
    return pb.PolicyShadowExample(
        cell=_cell_message(example.cell),
        subject=subject_message(example.subject),
        resource=pb.AccessExample(type=ref.type, id=ref.id, scope=scope_message(example.scope)),
        purpose=example.purpose,
        checked_at=time_message(example.at),
        facts=example.facts,
        active=verdict_message(example.active),
        candidate=verdict_message(example.candidate),
    )


def _parse_example(message: pb.PolicyShadowExample) -> ShadowExample:
    return ShadowExample(
        cell=_parse_cell(message.cell),
        subject=parse_subject_message(message.subject, field="subject"),
        resource=ResourceRef(message.resource.type, message.resource.id),
        scope=parse_scope_message(message.resource.scope, field="scope"),
        purpose=message.purpose,
        at=message.checked_at.ToMicroseconds(),
        facts=tuple(message.facts),
        active=parse_verdict(message.active),
        candidate=parse_verdict(message.candidate),
    )
