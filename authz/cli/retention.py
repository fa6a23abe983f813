"""`authz privacy retention …`: shows and sets how long data is kept."""

from __future__ import annotations

from typing import Annotated

import typer

from authz.cli.command import Context, on_server
from authz.cli.options import Reason
from authz.domain.entities import RetainedData, RetentionRule
from authz.domain.errors import malformed
from authz.domain.instants import format_instant
from authz.domain.retention import LIMITS

app = typer.Typer(help="Show and set how long data is kept.", no_args_is_help=True)

_FOR_EVER = "forever"


def _parse_days(text: str) -> int | None:
    if text == _FOR_EVER:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise malformed("DAYS", f"is `{text}`; name a number of days, or `{_FOR_EVER}`")
    return int(text)


@on_server(app)
def show(context: Context) -> None:
    """Print every retention period, its minimum, and what has been purged."""
    rules = (each.entity for each in context.client.privacy.retention())
    context.show(("data", "kept", "at least", "purged so far", "complete since"), rules, _row)


@on_server(app, "set", prints_json=False)
def set_period(
    context: Context,
    data: Annotated[RetainedData, typer.Argument(metavar="DATA", case_sensitive=False, help="Which data.")],
    days: Annotated[str, typer.Argument(metavar="DAYS", help="A number of days, or forever.")],
    why: Reason,
) -> None:
    """Set a retention period for all servers. Purged data cannot be restored."""
    rule = context.client.privacy.set_retention(data, _parse_days(days), reason=why).entity
    print(f"{data.lower()} are kept {_kept(rule)}")


def _kept(rule: RetentionRule) -> str:
    return "forever" if rule.days is None else _in_days(rule.days)


def _in_days(days: int) -> str:
    return f"{days} day" if days == 1 else f"{days} days"


def _row(rule: RetentionRule) -> tuple[str, ...]:
    purged = str(rule.removed or 0)
    if rule.through is not None:
        of = "revisions" if rule.data is RetainedData.CHANGES else "batches"
        purged += f", of {of} 1 to {rule.through}"
    since = "-" if rule.complete_since is None else format_instant(rule.complete_since)
    return rule.data.lower(), _kept(rule), _in_days(LIMITS[rule.data].min_days), purged, since
