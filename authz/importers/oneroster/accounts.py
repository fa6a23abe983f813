"""Plans the accounts of deleted and disabled users: who is one is shut out of everything.

No import lifts the suspension of an account, because nothing tells who gave it.
"""

from __future__ import annotations

from authz.domain.entities import Account, AccountStatus
from authz.domain.instants import Instant, format_instant
from authz.domain.mutations import Mutation, Operation
from authz.importers.oneroster.directory import Held
from authz.importers.oneroster.manifest import USERS
from authz.importers.oneroster.plan import Action, Change
from authz.importers.oneroster.rows import Roster, RowState
from authz.importers.report import RowFault


def plan_accounts(roster: Roster, held: Held, *, now: Instant) -> list[Change]:
    """Suspend the accounts of users who are deleted or disabled. A suspension until a time loses its end."""
    changes = []
    for subject, row in roster.users.items():
        account = held.suspended.get(subject)
        until = None if account is None else account.suspended_until
        if row.state is RowState.ENDED and (account is None or until is not None):
            new = Account(subject=subject, status=AccountStatus.SUSPENDED)
            detail = "" if until is None else f"suspended_until {format_instant(until)} -> none"
            mutation = Mutation(Operation.TOUCH, new)
            changes.append(Change(mutation, USERS, row.line, action=Action.SUSPEND, detail=detail))
        elif row.state is RowState.ACTIVE and account is not None and (until is None or until > now):
            text = f"{account.key} stays suspended; only a person may lift that"
            roster.notes.append(RowFault(USERS, row.line, text))
    return changes
