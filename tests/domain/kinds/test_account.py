"""An account: when it may say until when it is suspended."""

from __future__ import annotations

import pytest

from authz.domain.entities import KINDS, Account, AccountKey, AccountStatus
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.ids import parse_subject
from tests.store.directory import VOCABULARY

MAYA = parse_subject("user:maya")


@pytest.mark.parametrize(
    "account",
    [
        Account(subject=MAYA),
        Account(subject=MAYA, status=AccountStatus.SUSPENDED),
        Account(subject=MAYA, status=AccountStatus.SUSPENDED, suspended_until=1),
    ],
)
def test_only_a_suspension_has_an_end_and_need_not(account: Account) -> None:
    KINDS["account"].validate(account, VOCABULARY)


def test_an_active_account_with_the_end_of_a_suspension_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="but the status is ACTIVE") as caught:
        KINDS["account"].validate(Account(subject=MAYA, suspended_until=1), VOCABULARY)
    assert caught.value.reason is ErrorReason.MALFORMED_FIELD
    assert caught.value.metadata["field"] == "suspended_until"


def test_a_key_says_whose_account_it_is() -> None:
    assert str(AccountKey(MAYA)) == "account of user:maya"
