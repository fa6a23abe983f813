"""A principal is what the first credential proves that a call carries."""

from __future__ import annotations

import pytest

from authz.access.authentication import ACTING_FOR_HEADER, Transport, acting_for, authenticate
from authz.access.principal import UNAUTHENTICATED, Principal
from authz.domain.errors import ErrorReason, InvalidArgumentError, UnauthenticatedError
from authz.domain.ids import Subject, SubjectType
from tests.api.in_process import Request

MAYA = Subject(SubjectType.USER, "maya")
GATEWAY = Principal(Subject(SubjectType.SERVICE, "gateway"), MAYA)
ROSTER_SYNC = Principal(Subject(SubjectType.SERVICE, "roster-sync"))


class ByHeader:
    """Proves the same caller for every call that has a header."""

    def authenticate(self, transport: Transport) -> Principal | None:
        return GATEWAY if transport.header("x-token") else None


class ByCertificate:
    """Proves another caller for every call that has a certificate."""

    def authenticate(self, transport: Transport) -> Principal | None:
        return ROSTER_SYNC if transport.certificate() else None


@pytest.mark.parametrize(
    ("certificate", "headers", "principal"),
    [("pem", {}, ROSTER_SYNC), ("", {"x-token": "t"}, GATEWAY), ("pem", {"x-token": "t"}, ROSTER_SYNC)],
)
def test_the_first_authenticator_that_finds_a_credential_says_who_calls(
    certificate: str, headers: dict[str, str], principal: Principal
) -> None:
    assert authenticate((ByCertificate(), ByHeader()), Request(headers, certificate)) == principal


def test_who_shows_nothing_is_refused_where_anything_is_accepted_and_served_where_nothing_is() -> None:
    with pytest.raises(UnauthenticatedError) as caught:
        authenticate((ByCertificate(), ByHeader()), Request({}))
    assert caught.value.reason is ErrorReason.CREDENTIAL_MISSING
    assert authenticate((), Request({"x-token": "t"}, "pem")) is UNAUTHENTICATED


@pytest.mark.parametrize(
    ("principal", "actor", "kind"),
    [
        (UNAUTHENTICATED, "unauthenticated", "unauthenticated"),
        (ROSTER_SYNC, "service:roster-sync", "service"),
        (GATEWAY, "service:gateway for user:maya", "for_person"),
        (Principal(on_behalf_of=MAYA), "unauthenticated for user:maya", "for_person"),
    ],
)
def test_logs_name_the_caller_and_the_person_and_metrics_the_kind_of_caller(
    principal: Principal, actor: str, kind: str
) -> None:
    assert (principal.actor, principal.kind) == (actor, kind)


class Headers(Request):
    """A call that says several times for whom it is made."""

    def __init__(self, *stated: str) -> None:
        super().__init__({})
        self._stated = stated

    def header_values(self, name: str) -> tuple[str, ...]:
        return self._stated if name == ACTING_FOR_HEADER else ()


def test_a_call_is_made_for_the_one_person_that_it_names() -> None:
    assert acting_for(Headers()) is None
    assert acting_for(Headers("user:maya")) == MAYA


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        (("user:maya", "user:omar"), "sent twice"),
        (("user:maya", "user:maya"), "sent twice"),
        (("service:gateway",), "no person"),
        (("maya",), ACTING_FOR_HEADER),
        (("",), ACTING_FOR_HEADER),
    ],
)
def test_a_call_that_names_nobody_or_several_is_not_made_for_anybody(
    stated: tuple[str, ...], told: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        acting_for(Headers(*stated))
