"""`authz watch`: print changes of the directory as they are committed."""

from __future__ import annotations

import sys
from contextlib import closing, suppress
from typing import Annotated

import typer

from authz.cli.command import Context, on_server
from authz.cli.known_subjects import note_unknown
from authz.cli.options import OnlyKinds, OnlyWithinAny
from authz.cli.output import print_json
from authz.client import WatchedChange
from authz.domain.instants import format_instant


@on_server()
def watch(
    context: Context,
    after: Annotated[str, typer.Option(help="Start after this token. Default: now.")] = "",
    scope: OnlyWithinAny = None,
    kind: OnlyKinds = None,
    count: Annotated[int, typer.Option(min=0, help="Stop after this many changes; 0: do not stop.")] = 0,
) -> None:
    """Print changes until Ctrl-C: time, operation, kind, key, caller, and the token to resume from."""
    for each in scope or ():
        note_unknown(context.client, None, each)
    shown = 0
    with (
        suppress(KeyboardInterrupt),
        closing(context.client.watch(after=after, scopes=scope or (), kinds=kind or ())) as changes,
    ):
        for change in changes:
            _show(change, context.as_json)
            shown += change.is_last
            if shown == count and change.is_last:
                return


def _show(change: WatchedChange, as_json: bool) -> None:
    if as_json:
        print_json(change)
    else:
        _print_lines(change)
    sys.stdout.flush()  # a reader of the pipe sees each change at once


def _print_lines(change: WatchedChange) -> None:
    when = format_instant(change.committed_at)
    token = change.token if change.is_last else ""
    erasing = f" of {', '.join(map(str, change.erasing))}" if change.erasing else ""
    for mutation in change.mutations:
        what = f"{mutation.key}{erasing}"
        row = (when, mutation.operation.value, mutation.kind.value, what, change.actor, token)
        print("\t".join(row))
