"""The error tree: one class a kind, messages fit for a client, and a drawing that is complete."""

from __future__ import annotations

import pytest

from authz.domain import errors
from authz.domain.errors import (
    AuthzError,
    ErrorReason,
    InvalidArgumentError,
    OverloadedError,
    PolicyError,
    PolicyFault,
)
from authz.domain.ids import MAX_ID_LENGTH, parse_id, parse_resource_ref
from authz.domain.instants import from_datetime, parse_instant, to_datetime


def test_the_tree_is_drawn_whole() -> None:
    drawing = errors.__doc__ or ""
    declared = [error for error in AuthzError.__subclasses__() if error.__module__ == errors.__name__]
    assert {error.__name__ for error in declared} == {
        line.split()[1] for line in drawing.splitlines() if line.startswith(("├", "└"))
    }


def test_a_reason_is_spelt_as_it_is_named() -> None:
    assert all(reason.name == reason.value for reason in ErrorReason)


def test_an_error_says_its_message_and_carries_its_reason() -> None:
    error = InvalidArgumentError(ErrorReason.MALFORMED_ID, "an id is empty", field="id")
    assert str(error) == "an id is empty"
    assert (error.reason, error.metadata) == (ErrorReason.MALFORMED_ID, {"field": "id"})


def test_a_shed_call_says_when_to_try_again() -> None:
    error = OverloadedError("too many calls", retry_after_s=0.5, limit="8")
    assert (error.reason, error.retry_after_s) == (ErrorReason.OVERLOADED, 0.5)
    assert error.metadata == {"limit": "8"}


@pytest.mark.parametrize(
    ("faults", "head"), [(("a:1:1: x",), "has 1 fault:"), (("a:1:1: x", "a:2:1: y"), "has 2 faults:")]
)
def test_a_policy_error_lists_every_fault(faults: tuple[str, ...], head: str) -> None:
    error = PolicyError(tuple(PolicyFault("a", line, 1, text[-1]) for line, text in enumerate(faults, 1)))
    assert head in error.message
    assert error.message.splitlines()[1:] == list(faults)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "course id is empty"),
        ("a" * (MAX_ID_LENGTH + 1), "course id has 129 characters"),
        ("a b", "course id `a b` has the character ` `"),
        ("a*", "has the character `*`"),
        ("a\x00", r"has the character `\x00`"),
        ("mäya", r"has the character `\xe4`"),
        ("a\n", r"has the character `\n`"),
    ],
)
def test_a_malformed_id_is_refused_by_what_is_wrong_with_it(text: str, says: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_id(text, field="course id")
    assert caught.value.reason is ErrorReason.MALFORMED_ID
    assert says in caught.value.message
    assert caught.value.metadata == {"field": "course id"}


def test_the_longest_id_is_taken_and_ids_differ_by_a_byte() -> None:
    assert parse_id("a" * MAX_ID_LENGTH, field="id") == "a" * MAX_ID_LENGTH
    assert parse_resource_ref("notebook:A") != parse_resource_ref("notebook:a")


@pytest.mark.parametrize("text", ["notebook", "Notebook:a", ":a", "notebook:", "*:a", "note book:a"])
def test_a_resource_is_a_type_and_an_id_or_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_resource_ref(text)
    assert caught.value.reason is ErrorReason.MALFORMED_ID


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00"])
def test_a_zone_may_not_move_a_time_out_of_the_years_that_can_be_said(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="out of range") as caught:
        parse_instant(text, field="at")
    assert caught.value.reason is ErrorReason.MALFORMED_FIELD


def test_a_time_without_a_zone_is_no_instant() -> None:
    with pytest.raises(ValueError, match="zone"):
        from_datetime(to_datetime(0).replace(tzinfo=None))
