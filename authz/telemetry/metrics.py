"""The metrics that calls and writes count, in one place: no label has values that grow without bound.

A label that is named before anything is counted begins at 0, so that the first count is an increase.

With `PROMETHEUS_MULTIPROC_DIR` set before this is imported, the processes of a machine count in files there,
which one of them adds up. Source: https://prometheus.github.io/client_python/multiprocess/,
https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # of prometheus_client
REGISTRY = CollectorRegistry()
"""The metrics of this process."""

_DURATIONS_S = (
    *(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""A check is decided in microseconds; the buckets that OpenTelemetry advises begin at 5 ms."""

CALL_DURATION = Histogram(
    "rpc_server_call_duration_seconds",
    "Time that a call took in the server.",
    ("rpc_method", "rpc_response_status_code", "caller_kind"),
    buckets=_DURATIONS_S,
    registry=REGISTRY,
)
DECISIONS = Counter(
    "authz_decisions",
    "Decisions of Check and of the calls that ask many questions. A denied check is a call that is OK.",
    ("allowed", "reason", "type", "action"),
    registry=REGISTRY,
)
SHED_CALLS = Counter(
    "authz_shed_calls",
    "Calls refused because of the concurrency limit of their kind, or beyond the rate or the calls in flight"
    " that a caller may have.",
    ("kind", "reason"),
    registry=REGISTRY,
)
LOGGED_DECISIONS = Counter(
    "authz_decision_log_entries",
    "Entries of the decision log that were written to a sink, or lost because it failed or was too slow.",
    ("sink", "outcome"),
    registry=REGISTRY,
)
CHECKPOINTS = Counter(
    "authz_checkpoints",
    "Signed checkpoints that were published everywhere, that failed somewhere, and that were refused because"
    " the change log does not continue the one before.",
    ("outcome",),
    registry=REGISTRY,
)
GROUP_COMMIT_WRITES = Histogram(
    "authz_group_commit_writes",
    "Writes in one group commit; the count is that of group commits.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    registry=REGISTRY,
)
REPLICATION_LAG = Histogram(
    "authz_replication_lag_seconds",
    "Time from the commit of a change until this machine's replica holds it.",
    buckets=_DURATIONS_S,
    registry=REGISTRY,
)
RELOAD_FAILURES = Counter(
    "authz_reload_failures",
    "Failed reloads of certificates, keys, the callers file and the limits file.",
    ("kind",),
    registry=REGISTRY,
)
REFUSED_HANDSHAKES = Counter(
    "authz_refused_handshakes",
    "TLS handshakes that failed, over Envoy; gRPC does not report them.",
    ("reason",),
    registry=REGISTRY,
)
LOG_LINES_LOST = Counter(
    "authz_log_lines_lost",
    "Lines of the log that were not written, because standard error was not read.",
    registry=REGISTRY,
)
SHADOW_CHECKS = Counter(
    "authz_shadow_checks",
    "Sampled checks of shadows, by what their candidates would change; skipped because the budget was spent,"
    " or failed because the candidate could not decide.",
    ("scope", "outcome"),
    registry=REGISTRY,
)
SHADOW_OUTCOMES = ("same", "gains", "loses", "skipped", "failed")
PURGED = Counter(
    "authz_retention_purged",
    "Items that were purged because their retention period was over.",
    ("data",),
    registry=REGISTRY,
)

for kind in ("callers", "certificate", "keys", "limits"):
    RELOAD_FAILURES.labels(kind)
for scope in ("platform", "course"):
    for outcome in SHADOW_OUTCOMES:
        SHADOW_CHECKS.labels(scope, outcome)
