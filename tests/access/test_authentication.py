"""A principal is what the first credential proves that a call carries."""

from __future__ import annotations

import pytest

from authz.access.authentication import CertificateAuthenticator, Transport, authenticate
from authz.access.principal import UNAUTHENTICATED, Principal
from authz.domain.ids import Subject, SubjectType
from tests.api.in_process import Request

GATEWAY = Principal(Subject(SubjectType.SERVICE, "gateway"), Subject(SubjectType.USER, "maya"))


class HeaderAuthenticator:
    """Proves the same caller for every call that has a header."""

    def authenticate(self, transport: Transport) -> Principal | None:
        return GATEWAY if transport.header("x-token") else None


@pytest.mark.parametrize(
    ("certificate", "headers", "principal"),
    [
        ("", {}, UNAUTHENTICATED),
        ("roster-sync", {}, Principal(Subject(SubjectType.SERVICE, "roster-sync"))),
        ("", {"x-token": "t"}, GATEWAY),
        ("roster-sync", {"x-token": "t"}, Principal(Subject(SubjectType.SERVICE, "roster-sync"))),
    ],
)
def test_the_first_authenticator_that_finds_a_credential_says_who_calls(
    certificate: str, headers: dict[str, str], principal: Principal
) -> None:
    authenticators = (CertificateAuthenticator(), HeaderAuthenticator())
    assert authenticate(authenticators, Request(headers, certificate)) == principal


def test_an_actor_is_named_by_its_caller_and_is_bounded() -> None:
    assert UNAUTHENTICATED.actor == "unauthenticated"
    assert GATEWAY.actor == "service:gateway for user:maya"
    long = authenticate((CertificateAuthenticator(),), Request({}, "x" * 1000))
    assert long.actor == "service:" + "x" * 128
