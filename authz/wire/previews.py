"""Previews of policies between protobuf and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from authz.domain.decisions import Verdict
from authz.domain.errors import malformed
from authz.domain.facts import FACTS_BY_NAME, fact_names
from authz.domain.impact import (
    MAX_EXAMPLES,
    MAX_LARGEST,
    AccessChange,
    Impact,
    PreviewProgress,
    PreviewTotals,
)
from authz.v1 import policy_pb2 as pb
from authz.wire.forms import Codec, Form

_DEFAULT_EXAMPLES, _DEFAULT_LARGEST = 1, 20


def parse_preview_limits(request: pb.PreviewPolicyRequest) -> tuple[int, int]:
    """How many examples and how many of the largest rows; 0 means the default."""
    for field, most in (("max_examples", MAX_EXAMPLES), ("max_largest", MAX_LARGEST)):
        if not 0 <= getattr(request, field) <= most:
            raise malformed(field, f"is {getattr(request, field)}; ask for 1 to {most}")
    return request.max_examples or _DEFAULT_EXAMPLES, request.max_largest or _DEFAULT_LARGEST


_VERDICTS = Form(
    Verdict,
    pb.AccessVerdict,
    names={"unmet": "unmet_facts"},
    unmet=Codec(
        fact_names, lambda names: sum(FACTS_BY_NAME[name].bit for name in names if name in FACTS_BY_NAME)
    ),
)
VERDICT = Codec(
    lambda verdict: pb.AccessVerdict() if verdict is None else _VERDICTS.message(verdict),
    lambda m: _VERDICTS.parse(m) if m.reason else None,
)
"""What a policy answers; None where it does not declare the type or the action."""
_IMPACTS = Form(
    Impact, pb.PreviewRows, changes=Form(AccessChange, pb.AccessChange, before=VERDICT, after=VERDICT)
)
_PROGRESS = Form(PreviewProgress, pb.PreviewProgress)
_TOTALS = Form(PreviewTotals, pb.PreviewTotals, largest=_IMPACTS)


def preview_message(events: Iterable[Impact | PreviewProgress | PreviewTotals]) -> pb.PreviewPolicyResponse:
    """A part of a preview."""
    message = pb.PreviewPolicyResponse()
    for event in events:
        if isinstance(event, Impact):
            message.rows.append(_IMPACTS.message(event))
        elif isinstance(event, PreviewProgress):
            message.progress.CopyFrom(_PROGRESS.message(event))
        else:
            message.totals.CopyFrom(_TOTALS.message(event))
    return message


def parse_preview(message: pb.PreviewPolicyResponse) -> Iterator[Impact | PreviewProgress | PreviewTotals]:
    """What a part says."""
    yield from map(_IMPACTS.parse, message.rows)
    if message.HasField("progress"):
        yield _PROGRESS.parse(message.progress)
    if message.HasField("totals"):
        yield _TOTALS.parse(message.totals)
