"""An account: its key, statuses, filter and rules."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from authz.domain.errors import malformed
from authz.domain.ids import Subject
from authz.domain.instants import Instant
from authz.domain.kinds.kind import Filter, Kind, RecordKey
from authz.domain.vocabulary import Vocabulary


class AccountStatus(StrEnum):
    """Whether a subject takes part in the platform at all."""

    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"


class AccountKey(RecordKey, frozen=True, gc=False, tag="account_key"):
    """Identifies an account."""

    subject: Subject

    def __str__(self) -> str:
        return f"account of {self.subject}"


class Account(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="account"):
    """What is known of a subject as a whole. A suspension without `suspended_until` has no end."""

    subject: Subject
    status: AccountStatus = AccountStatus.ACTIVE
    suspended_until: Instant | None = None

    @property
    def key(self) -> AccountKey:
        """Its identity."""
        return AccountKey(self.subject)


class AccountFilter(Filter[Account], frozen=True, kw_only=True):
    """Accounts by subject, status."""

    subject: Subject | None = None
    statuses: tuple[AccountStatus, ...] = ()


def _validate(account: Account, _: Vocabulary) -> None:
    if account.suspended_until is not None and account.status is not AccountStatus.SUSPENDED:
        raise malformed(
            "suspended_until", f"is set, but the status is {account.status.value}; leave it absent"
        )


ACCOUNT = Kind(Account, AccountKey, AccountFilter, key_order=("subject",), rule=_validate)
