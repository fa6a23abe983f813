"""The decision log and the checkpoints, with the destinations of the settings."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from authz.audit import destinations
from authz.audit.decision_log import DecisionLog, DecisionSink
from authz.audit.erased_names import ErasedNames
from authz.audit.lines import LinesFile, StandardOutput
from authz.audit.table import TableSink
from authz.domain.decision_log import DecisionEntry
from authz.domain.errors import invalid
from authz.domain.instants import US_PER_S, Instant
from authz.engine.polling import poll
from authz.runtime.lifecycle import run_abandonable
from authz.runtime.settings import FILE_PREFIX, OTLP, STDOUT, TABLE, Settings
from authz.store import Store

if TYPE_CHECKING:
    from authz.audit.notes import NoteSigner
    from authz.audit.publisher import CheckpointPublisher

_POLL_S = 1.0
"""How often a process looks whether a checkpoint is due."""


class SynchronousDecisionLog(DecisionLog):
    """Calls a function with every question, before its answer is sent."""

    keeps_questions = True

    def __init__(self, on_question: Callable[[DecisionEntry], None]) -> None:
        super().__init__((), sample_rate=1)
        self._on_question = on_question

    def put(self, make: Callable[[], DecisionEntry]) -> None:
        self._on_question(make())


def open_decision_log(settings: Settings, store: Store, generation: Callable[[], int]) -> DecisionLog | None:
    """The decision log with the configured sinks; None without sinks. `generation` is as in `ErasedNames`.

    Raises `InvalidArgumentError` for `otlp` without OpenTelemetry.
    """
    sinks = [_sink(settings, store, generation, name) for name in settings.decision_sinks]
    return DecisionLog(sinks, sample_rate=settings.decision_log_sample_rate) if sinks else None


def decision_files(settings: Settings) -> tuple[LinesFile, ...]:
    """The files among the sinks."""
    return tuple(_file(settings, name) for name in settings.decision_sinks if name.startswith(FILE_PREFIX))


def _sink(settings: Settings, store: Store, generation: Callable[[], int], name: str) -> DecisionSink:
    if name == STDOUT:
        return StandardOutput()
    if name == TABLE:
        return TableSink(store.decisions)
    if name == OTLP:
        return open_otlp_sink()
    return _file(settings, name, ErasedNames(store.personal_data, generation))


def _file(settings: Settings, name: str, erased: ErasedNames | None = None) -> LinesFile:
    path = Path(name.removeprefix(FILE_PREFIX))
    max_bytes, kept = settings.decision_log_max_bytes, settings.decision_log_files
    return LinesFile(path, max_bytes=max_bytes, kept=kept, erased=erased)


def open_otlp_sink() -> DecisionSink:
    """The sink `otlp`. Raises `InvalidArgumentError` without its packages."""
    try:
        from authz.audit.otlp import OtlpSink
        from authz.runtime.otel import VERSION, open_exporter, open_resource
    except ImportError:
        raise invalid(
            "AUTHZ_DECISION_LOG",
            "AUTHZ_DECISION_LOG names `otlp`, and its release of OpenTelemetry is not installed; run"
            " `pip install 'qalamchat-authz[otel]'`",
        ) from None
    exporter = open_exporter("logs", OTLP, variable="AUTHZ_DECISION_LOG")
    return OtlpSink(exporter, open_resource(), VERSION)


def open_checkpoints(
    settings: Settings, store: Store, clock: Callable[[], Instant]
) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
    """The background task that signs checkpoints; none without a key. Raises as `open_signer`."""
    signer = open_signer(settings)
    if signer is None:
        return ()
    from authz.audit.publisher import CheckpointPublisher

    publisher = CheckpointPublisher(
        signer,
        store.proofs,
        store.checkpoints,
        checkpoint_destinations(settings),
        clock=clock,
        interval_us=round(settings.checkpoint_interval_s * US_PER_S),
    )
    return (partial(_publish_forever, publisher),)


def open_signer(settings: Settings) -> NoteSigner | None:
    """What signs checkpoints; None without a file. Raises `InvalidArgumentError` for one that has no key."""
    file = settings.checkpoint_key_file
    if not file:
        return None
    from authz.audit.notes import NoteSigner

    field = f"AUTHZ_CHECKPOINT_KEY_FILE names `{file}`, which"
    return NoteSigner.parse(Path(file).read_text("utf-8", "replace"), field=field)


def checkpoint_destinations(settings: Settings) -> list[destinations.Destination]:
    """Where the settings publish checkpoints."""
    return [_destination(name) for name in settings.checkpoint_destinations]


def _destination(name: str) -> destinations.Destination:
    if name == STDOUT:
        return destinations.StandardOutput()
    if name.startswith(FILE_PREFIX):
        return destinations.FileDestination(Path(name.removeprefix(FILE_PREFIX)))
    return destinations.HttpsDestination(name)


async def _publish_forever(publisher: CheckpointPublisher) -> None:
    """Publish what is due until cancelled, through every failure."""

    async def publish_due() -> None:
        # In a thread that a stop does not wait for: an address may be slow.
        await run_abandonable(publisher.publish_due)

    await poll(publish_due, interval_s=_POLL_S, work="checkpoints")
