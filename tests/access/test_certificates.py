"""A client certificate is that of the caller whom the file of callers names, and of nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from authz.access.certificates import CertificateAuthenticator, parse_callers
from authz.domain.errors import AuthzError, ErrorReason, InvalidArgumentError, UnauthenticatedError
from tests.access.certificates import certificate
from tests.api.in_process import Request
from tests.waiting import until

SPIFFE = "spiffe://qalam/ns/prod/sa/notebooks"
CALLERS = f"""
[uri]
"{SPIFFE}" = "service:notebooks"
[dns]
"roster.internal" = "service:roster-sync"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of callers."""
    path = tmp_path / "callers.toml"
    path.write_text(CALLERS)
    return path


@pytest.mark.parametrize(
    ("uris", "dns_names", "caller"),
    [
        ([SPIFFE], [], "service:notebooks"),
        ([SPIFFE], ["roster.internal", "other.internal"], "service:notebooks"),
        ([], ["roster.internal"], "service:roster-sync"),
    ],
)
def test_the_one_uri_or_else_the_one_dns_name_says_who_calls(
    file: Path, uris: list[str], dns_names: list[str], caller: str
) -> None:
    pem = certificate(uris=uris, dns_names=dns_names).pem
    principal = CertificateAuthenticator(str(file)).authenticate(Request({}, pem))
    assert principal is not None
    assert principal.actor == caller


@pytest.mark.parametrize(
    ("uris", "dns_names", "told"),
    [
        ([], [], "exactly one URI"),
        ([SPIFFE, "spiffe://qalam/other"], ["roster.internal"], "exactly one URI"),
        ([], ["roster.internal", "other.internal"], "exactly one URI"),
        (
            ["spiffe://qalam/other"],
            ["roster.internal"],
            "no caller is known by the uri `spiffe://qalam/other`",
        ),
        ([SPIFFE + "/more"], [], "no caller is known"),
        ([SPIFFE.upper()], [], "no caller is known"),
        ([], ["roster.internal.evil.test"], "no caller is known"),
        ([], [SPIFFE.removeprefix("spiffe://")], "no caller is known"),
    ],
)
def test_any_other_certificate_is_refused_whatever_its_common_name(
    file: Path, uris: list[str], dns_names: list[str], told: str
) -> None:
    pem = certificate(name="notebooks", uris=uris, dns_names=dns_names).pem
    with pytest.raises(UnauthenticatedError, match=told) as caught:
        CertificateAuthenticator(str(file)).authenticate(Request({}, pem))
    assert caught.value.reason is ErrorReason.CREDENTIAL_INVALID


def test_who_shows_no_certificate_may_show_another_credential(file: Path) -> None:
    assert CertificateAuthenticator(str(file)).authenticate(Request({})) is None


def test_a_certificate_that_has_ended_is_refused_on_a_connection_that_was_made_before(file: Path) -> None:
    pem = certificate(uris=[SPIFFE], days=-1).pem
    with pytest.raises(UnauthenticatedError, match="has ended"):
        CertificateAuthenticator(str(file)).authenticate(Request({}, pem))


def test_who_is_struck_from_the_file_is_refused_and_so_is_everybody_while_it_is_broken(file: Path) -> None:
    authenticator, transport = (
        CertificateAuthenticator(str(file)),
        Request({}, certificate(uris=[SPIFFE]).pem),
    )

    def outcome() -> str:
        try:
            principal = authenticator.authenticate(transport)
        except AuthzError as error:
            return error.reason.value
        return "" if principal is None else principal.actor

    def await_outcome(expected: str) -> None:
        until(lambda: outcome() == expected, expected)

    assert outcome() == "service:notebooks"
    for text, expected in (
        ('[dns]\n"roster.internal" = "service:roster-sync"\n', "CREDENTIAL_INVALID"),
        ("[uri\n", "CREDENTIALS_UNVERIFIABLE"),
        (CALLERS, "service:notebooks"),
        ("uri = " + "[" * 5000, "CREDENTIALS_UNVERIFIABLE"),
        (f"\ufeff{CALLERS}", "service:notebooks"),
    ):
        file.write_text(text)
        await_outcome(expected)
    file.unlink()
    await_outcome("CREDENTIALS_UNVERIFIABLE")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[uri\n", "is not TOML"),
        ('[cn]\n"x" = "service:x"\n', "has `cn`"),
        ('uri = "service:x"\n', "has `uri`"),
        ('[uri]\n"spiffe://x" = 7\n', "uri `spiffe://x` is no text"),
        ('[uri]\n"spiffe://x" = "x"\n', "`x` has no type; write it like `service:notebooks`"),
        ('[uri]\n"spiffe://x" = "user:maya"\n', "a person"),
        ('[uri]\n"spiffe://x" = "service:x"\n"spiffe://x" = "service:y"\n', "is not TOML"),
    ],
)
def test_a_file_with_a_mistake_is_refused_with_what_to_do(text: str, told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        parse_callers(text.encode())
