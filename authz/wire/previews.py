"""Previews of policies between protobuf and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from authz.domain.decisions import Rule, Verdict
from authz.domain.errors import malformed
from authz.domain.facts import FACTS_BY_NAME, fact_names
from authz.domain.ids import ResourceRef
from authz.domain.impact import (
    MAX_EXAMPLES,
    MAX_LARGEST,
    AccessChange,
    AccessKind,
    Example,
    Impact,
    KindTotal,
    PreviewProgress,
    PreviewTotals,
    RecentDecisions,
)
from authz.v1 import policy_pb2 as pb
from authz.wire.decisions import INACTIVE_REASONS, REASONS, rule_message
from authz.wire.values import (
    parse_scope_message,
    parse_subject_message,
    scope_message,
    subject_message,
    time_message,
)

_DEFAULT_EXAMPLES, _DEFAULT_LARGEST = 1, 20


def parse_preview_limits(request: pb.PreviewPolicyRequest) -> tuple[int, int]:
    """How many examples and how many of the largest rows; 0 means the default."""
    for field, most in (("max_examples", MAX_EXAMPLES), ("max_largest", MAX_LARGEST)):
        if not 0 <= getattr(request, field) <= most:
            raise malformed(field, f"is {getattr(request, field)}; ask for 1 to {most}")
    return request.max_examples or _DEFAULT_EXAMPLES, request.max_largest or _DEFAULT_LARGEST


def preview_message(events: Iterable[Impact | PreviewProgress | PreviewTotals]) -> pb.PreviewPolicyResponse:
    """A part of a preview."""
    message = pb.PreviewPolicyResponse()
    for event in events:
        if isinstance(event, Impact):
            message.rows.append(_rows_message(event))
        elif isinstance(event, PreviewProgress):
            message.progress.CopyFrom(pb.PreviewProgress(members=event.members, total=event.total))
        else:
            message.totals.CopyFrom(_totals_message(event))
    return message


def parse_preview(message: pb.PreviewPolicyResponse) -> Iterator[Impact | PreviewProgress | PreviewTotals]:
    """What a part says."""
    yield from map(_parse_rows, message.rows)
    if message.HasField("progress"):
        yield PreviewProgress(message.progress.members, message.progress.total)
    if message.HasField("totals"):
        yield _parse_totals(message.totals)


def _rows_message(impact: Impact) -> pb.PreviewRows:
    return pb.PreviewRows(
        scope=scope_message(impact.scope),
        subjects=map(subject_message, impact.subjects),
        changes=map(_change_message, impact.changes),
    )


def _parse_rows(message: pb.PreviewRows) -> Impact:
    return Impact(
        parse_scope_message(message.scope, field="scope"),
        tuple(parse_subject_message(each, field="subject") for each in message.subjects),
        tuple(map(_parse_change, message.changes)),
    )


def _change_message(change: AccessChange) -> pb.AccessChange:
    return pb.AccessChange(
        **change.kind._asdict(),
        count=change.count,
        examples=[
            pb.AccessExample(type=ref.type, id=ref.id, scope=scope_message(scope))
            for ref, scope in change.examples
        ],
        before=verdict_message(change.before),
        after=verdict_message(change.after),
    )


def verdict_message(verdict: Verdict | None) -> pb.AccessVerdict:
    """What a policy answers; None where it does not declare the type or the action."""
    if verdict is None:
        return pb.AccessVerdict()
    return pb.AccessVerdict(
        allowed=verdict.allowed,
        reason=REASONS.number(verdict.reason),
        rule=None if verdict.rule is None else rule_message(verdict.rule),
        unmet_facts=fact_names(verdict.unmet),
        inactive_reason=INACTIVE_REASONS.number(verdict.inactive_reason),
    )


def _parse_change(message: pb.AccessChange) -> AccessChange:
    return AccessChange(
        kind=_parse_kind(message),
        count=message.count,
        examples=tuple(
            Example(ResourceRef(each.type, each.id), parse_scope_message(each.scope, field="scope"))
            for each in message.examples
        ),
        before=parse_verdict(message.before),
        after=parse_verdict(message.after),
    )


def _parse_kind(message: pb.AccessChange | pb.AccessTotal) -> AccessKind:
    return AccessKind(message.type, message.action, tuple(message.purposes), message.gains)


def parse_verdict(message: pb.AccessVerdict) -> Verdict | None:
    """The answer of a message."""
    if not message.reason:
        return None
    rule, why = message.rule, message.inactive_reason
    fields = Rule.__struct_fields__
    return Verdict(
        allowed=message.allowed,
        reason=REASONS.parse(message.reason, field="reason"),
        rule=Rule(*(getattr(rule, name) for name in fields)) if message.HasField("rule") else None,
        unmet=sum(FACTS_BY_NAME[name].bit for name in message.unmet_facts if name in FACTS_BY_NAME),
        inactive_reason=INACTIVE_REASONS.parse(why, field="inactive_reason") if why else None,
    )


def _totals_message(totals: PreviewTotals) -> pb.PreviewTotals:
    message = pb.PreviewTotals(
        policy_version=totals.policy_version,
        now=time_message(totals.now),
        members=totals.members,
        rows=totals.rows,
        scopes=totals.scopes,
        kinds=[
            pb.AccessTotal(**each.kind._asdict(), subjects=each.subjects, count=each.count)
            for each in totals.kinds
        ],
        largest=map(_rows_message, totals.largest),
    )
    message.checked_at.token = totals.checked_at
    if totals.recent is not None:
        recent = totals.recent
        message.recent.CopyFrom(
            pb.RecentDecisions(count=recent.count, changed=recent.changed, since=time_message(recent.since))
        )
    return message


def _parse_totals(message: pb.PreviewTotals) -> PreviewTotals:
    kinds: Sequence[pb.AccessTotal] = message.kinds
    recent = None
    if message.HasField("recent"):
        since = message.recent.since.ToMicroseconds()
        recent = RecentDecisions(message.recent.count, message.recent.changed, since)
    return PreviewTotals(
        policy_version=message.policy_version,
        checked_at=message.checked_at.token,
        now=message.now.ToMicroseconds(),
        members=message.members,
        rows=message.rows,
        scopes=message.scopes,
        kinds=tuple(KindTotal(_parse_kind(each), each.subjects, each.count) for each in kinds),
        largest=tuple(map(_parse_rows, message.largest)),
        recent=recent,
    )
