"""Plans the accounts of deleted and disabled users."""

from __future__ import annotations

from authz.importers.oneroster.plan import Change
from authz.importers.oneroster.rows import Roster


def plan_accounts(roster: Roster) -> list[Change]:
    return []
