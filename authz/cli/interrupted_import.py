"""Sends an import until it is done, or until Ctrl-C or SIGTERM ends it: says then how much was imported."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from authz.cli.fault import print_fault
from authz.cli.output import progress_bar
from authz.client import Client
from authz.client.imports import until
from authz.client.questions import ImportOutcome
from authz.domain.mutations import Mutation

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_EXIT_CODE_OF_SIGNAL = 128
"""Added to the number of a signal, as shells do."""
_AGAIN = "run the command again, which changes nothing that is done"


def import_mutations(
    client: Client, mutations: Iterable[Mutation], *, total: int, reason: str
) -> ImportOutcome:
    """As `Client.import_mutations`, with a progress bar.

    A signal ends the import after what was sent: the server answers for it, so that the numbers are exact. A
    second signal ends the command at once.
    """
    with _signals_kept() as received, progress_bar(reason, total) as advance:
        try:
            outcome = client.import_mutations(
                until(lambda: bool(received), mutations), reason=reason, progress=advance
            )
        except KeyboardInterrupt:
            print_fault("CANCELLED", f"interrupted: a part of the import may be written; {_AGAIN}", {})
            raise
    done = outcome.written + outcome.unchanged + outcome.failed
    if received and done < total:
        print(f"written {outcome.written}, unchanged {outcome.unchanged}, failed {outcome.failed}")
        text = f"interrupted after {done} of {total} records, which stay imported; {_AGAIN}"
        print_fault("CANCELLED", text, {"done": str(done), "total": str(total)})
        raise typer.Exit(_EXIT_CODE_OF_SIGNAL + received[0])
    return outcome


@contextmanager
def _signals_kept() -> Iterator[list[int]]:
    """The signals that came. Only the first one: the next has its effect."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield received
        return

    def keep(number: int, _: Any) -> None:
        received.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)
        print("note: the import ends with what it has sent; interrupt again to end at once", file=sys.stderr)

    # A script ignores SIGINT for what it runs in the background.
    kept = [each for each in _SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, keep) for each in kept}
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
