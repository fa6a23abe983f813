"""Signs and publishes checkpoints in the background, with the key and the destinations of the settings."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from authz.audit.destinations import Destination, FileDestination, HttpsDestination, StandardOutput
from authz.audit.notes import NoteSigner
from authz.audit.publisher import CheckpointPublisher
from authz.domain.instants import US_PER_S, Instant
from authz.engine.polling import poll
from authz.runtime.lifecycle import run_abandonable
from authz.runtime.settings import FILE_PREFIX, STDOUT, Settings
from authz.store import Store

_POLL_S = 1.0
"""How often a process looks whether a checkpoint is due."""


def open_checkpoints(
    settings: Settings, store: Store, clock: Callable[[], Instant]
) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
    """The background task that signs checkpoints; none without a key.

    Raises `InvalidArgumentError` for a file that has no key.
    """
    file = settings.checkpoint_key_file
    if not file:
        return ()
    publisher = CheckpointPublisher(
        NoteSigner.parse(Path(file).read_text(encoding="utf-8"), field=file),
        store.proofs,
        store.checkpoints,
        [_destination(name) for name in settings.checkpoint_destinations],
        clock=clock,
        interval_us=round(settings.checkpoint_interval_s * US_PER_S),
    )
    return (partial(_publish_forever, publisher),)


def _destination(name: str) -> Destination:
    if name == STDOUT:
        return StandardOutput()
    if name.startswith(FILE_PREFIX):
        return FileDestination(Path(name.removeprefix(FILE_PREFIX)))
    return HttpsDestination(name)


async def _publish_forever(publisher: CheckpointPublisher) -> None:
    """Publish what is due until cancelled, through every failure."""

    async def publish_due() -> None:
        # In a thread that a stop does not wait for: an address may be slow.
        await run_abandonable(publisher.publish_due)

    await poll(
        publish_due, interval_s=_POLL_S, unavailable="no checkpoint is signed until the database answers"
    )
