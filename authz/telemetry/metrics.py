"""The metrics that calls and writes count, in one place: no label has values that grow without bound.

With `PROMETHEUS_MULTIPROC_DIR` set before this is imported, the processes of a machine count in files there,
which one of them adds up. Source: https://prometheus.github.io/client_python/multiprocess/,
https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/.
"""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # of prometheus_client
REGISTRY = CollectorRegistry()
"""The metrics of this process."""

_DURATIONS_S = (
    *(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""A check is decided in microseconds; the buckets that OpenTelemetry advises begin at 5 ms."""

_CALLS = Histogram(
    "rpc_server_call_duration_seconds",
    "Time that a call took in the server.",
    ("rpc_method", "rpc_response_status_code", "caller_kind"),
    buckets=_DURATIONS_S,
    registry=REGISTRY,
)
_DECISIONS = Counter(
    "authz_decisions",
    "Decisions of Check and of the calls that ask many questions. A denied check is a call that is OK.",
    ("allowed", "reason", "type", "action"),
    registry=REGISTRY,
)
_SHED = Counter(
    "authz_shed_calls",
    "Calls refused because of the concurrency limit of their kind, or beyond the rate or the calls in flight"
    " that a caller may have.",
    ("kind", "reason"),
    registry=REGISTRY,
)
_LOGGED = Counter(
    "authz_decision_log_entries",
    "Entries of the decision log that were written to a sink, or lost because it failed or was too slow.",
    ("sink", "outcome"),
    registry=REGISTRY,
)
_CHECKPOINTS = Counter(
    "authz_checkpoints",
    "Signed checkpoints that were published everywhere, that failed somewhere, and that were refused because"
    " the change log does not continue the one before.",
    ("outcome",),
    registry=REGISTRY,
)
_GROUPS = Histogram(
    "authz_group_commit_writes",
    "Writes in one group commit; the count is that of group commits.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    registry=REGISTRY,
)
_REPLICATION_LAG = Histogram(
    "authz_replication_lag_seconds",
    "Time from the commit of a change until this machine's replica holds it.",
    buckets=_DURATIONS_S,
    registry=REGISTRY,
)
_RELOAD_FAILURES = Counter(
    "authz_reload_failures",
    "Failed reloads of certificates, keys, the callers file and the limits file.",
    ("kind",),
    registry=REGISTRY,
)

_LOG_LINES_LOST = Counter(
    "authz_log_lines_lost",
    "Lines of the log that were not written, because standard error was not read.",
    registry=REGISTRY,
)
_PURGED = Counter(
    "authz_retention_purged",
    "Items that were purged because their retention period was over.",
    ("data",),
    registry=REGISTRY,
)

for kind in ("callers", "certificate", "keys", "limits"):
    _RELOAD_FAILURES.labels(kind)  # from 0 on, so that the first failure is an increase


def count_call(method: str, code: str, caller_kind: str, duration_s: float) -> None:
    """Count a call that has ended. `method` is `/<service>/<method>`."""
    _CALLS.labels(method.removeprefix("/"), code, caller_kind).observe(duration_s)


def count_decision(reason: str, type_name: str, action: str, *, allowed: bool) -> None:
    """Count a decision. The type and the action must be declared by the policy."""
    _DECISIONS.labels(str(allowed).lower(), reason, type_name, action).inc()


def count_shed(kind: str, reason: str, calls: int = 1) -> None:
    """Count calls that were refused by the `concurrency` limit of their kind, or because one caller exceeds
    its `rate` or has too many `in_flight`. With 0, let the count begin at 0."""
    _SHED.labels(kind, reason).inc(calls)


def count_logged(sink: str, *, written: int = 0, lost: int = 0) -> None:
    """Count entries of the decision log; with 0, let the count begin at 0."""
    _LOGGED.labels(sink, "written").inc(written)
    _LOGGED.labels(sink, "lost").inc(lost)


class CheckpointOutcome(StrEnum):
    """The outcome of signing or publishing a checkpoint."""

    PUBLISHED = "published"
    FAILED = "failed"
    REFUSED = "refused"


def count_checkpoint(outcome: CheckpointOutcome, checkpoints: int = 1) -> None:
    """Count checkpoints; with 0, let the count begin at 0."""
    _CHECKPOINTS.labels(outcome.value).inc(checkpoints)


def count_group_commit(writes: int) -> None:
    """Count a group commit."""
    _GROUPS.observe(writes)


def count_replication_lag(delay_s: float) -> None:
    """Count a change that the replica holds now. A negative lag, of clocks that differ, counts as 0."""
    _REPLICATION_LAG.observe(max(delay_s, 0.0))


def count_purged(data: str, items: int) -> None:
    """Count items that were purged; with 0, let the count begin at 0."""
    _PURGED.labels(data).inc(items)


def count_lost_log_lines(lines: int) -> None:
    """Count lines of the log that were not written."""
    _LOG_LINES_LOST.inc(lines)


def count_reload_failure(kind: str) -> None:
    """Count a failed reload of a file or an address: `certificate`, `callers`, `keys` or `limits`."""
    _RELOAD_FAILURES.labels(kind).inc()
