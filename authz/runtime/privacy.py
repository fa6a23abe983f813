"""Builds the parts of PrivacyService, and what reports this machine's replica."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from authz.api.grpc.privacy import PrivacyServicer
from authz.domain.ports import View
from authz.engine.background_steps import BackgroundSteps
from authz.engine.consistency import ConsistencyGate
from authz.engine.erasure import Eraser, ReplicaReporter
from authz.engine.exports import Exporter
from authz.engine.group_commit import GroupCommitter
from authz.engine.retention import Purger
from authz.engine.rights import Rights
from authz.runtime.settings import Settings
from authz.store import Store

_UNNAMED = "-"


class Upkeep(msgspec.Struct, frozen=True):
    """What erases, what purges, and all that runs in the background, these two among it."""

    erasing: BackgroundSteps
    purger: Purger
    background: tuple[Callable[[], Coroutine[Any, Any, None]], ...]


def privacy_servicer(  # noqa: PLR0917  parts, each of a type of its own
    settings: Settings,
    store: Store,
    gate: ConsistencyGate,
    committer: GroupCommitter,
    upkeep: Upkeep,
    rights: Rights,
) -> PrivacyServicer:
    """What answers the calls."""
    data = store.personal_data
    exporter = Exporter(data, gate, write_timeout_s=settings.watch_write_timeout_s)
    eraser = Eraser(data, gate, committer, upkeep.erasing)
    return PrivacyServicer(
        data, exporter, eraser, upkeep.purger, gate, recipients=store.recipients, rights=rights
    )


def open_upkeep(  # noqa: PLR0917  parts, each of a type of its own
    settings: Settings,
    store: Store,
    gate: ConsistencyGate,
    committer: GroupCommitter,
    view: View,
    folder: Path,
) -> Upkeep:
    """In the background, removals, erasures and purges go on, and the server reports the replica in `folder`,
    unless its name is `-`."""
    directory, data = store.directory, store.personal_data
    removing = BackgroundSteps(
        "removal", directory.removal_progress, directory.remove_contents, gate, committer
    )
    erasing = BackgroundSteps("erasure", data.erasure_progress, data.advance_erasure, gate, committer)
    purger = Purger(store.retention, gate, committer)
    background = [removing.run, erasing.run, purger.run]
    if settings.replica_name != _UNNAMED:
        name = settings.replica_name or f"{socket.gethostname()}:{folder.absolute()}"
        background.append(ReplicaReporter(data, gate, view, name).run)
    return Upkeep(erasing, purger, tuple(background))
