"""Purges what is older than the retention periods allow."""

from __future__ import annotations

from functools import partial

from authz.domain.entities import RetainedData
from authz.domain.tokens import ConsistencyToken
from authz.engine.background_steps import BackgroundSteps
from authz.engine.consistency import ConsistencyGate
from authz.engine.group_commit import GroupCommitter
from authz.store.privacy.retention import Retention
from authz.telemetry.metrics import PURGED

_INTERVAL_S = 60.0
"""A purge may be a day late, so it need not be looked for more often."""


def purge_steps(retention: Retention, gate: ConsistencyGate, committer: GroupCommitter) -> BackgroundSteps:
    """The purge, which one server at a time runs."""
    for data in RetainedData:
        PURGED.labels(data.lower())
    advance = partial(_advance, retention)
    return BackgroundSteps(
        "purge", retention.purge_progress, advance, gate, committer, interval_s=_INTERVAL_S
    )


def _advance(retention: Retention) -> ConsistencyToken:
    purged = retention.advance_purge()
    if purged.data is not None:
        PURGED.labels(purged.data.lower()).inc(purged.removed)
    return purged.state
