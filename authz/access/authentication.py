"""From what a transport proves to the principal of a call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from authz.access.principal import UNAUTHENTICATED, Principal
from authz.domain.errors import malformed
from authz.domain.ids import MAX_ID_LENGTH, Subject, SubjectType, parse_subject

ACTING_FOR_HEADER = "authz-acting-for"


class Transport(Protocol):
    """What carried a call. Each face implements it, and reads nothing before a step asks for it."""

    def certificate_name(self) -> str:
        """The common name of the client's verified certificate; empty without one."""

    def connection(self) -> str:
        """Tells the connection of the call from others; empty if the transport cannot."""

    def header(self, name: str) -> str:
        """The value of a header, by its name in lower case; empty when the call has none."""

    def header_values(self, name: str) -> tuple[str, ...]:
        """All values of a header, by its name in lower case; none when the call has none."""

    def when_sent(self, release: Callable[[], None]) -> None:
        """Call `release` once the answer or the error has been sent, or the call was given up."""


class Authenticator(Protocol):
    """Verifies one kind of credential."""

    def authenticate(self, transport: Transport) -> Principal | None:
        """The principal that the credential proves; None when the call carries no such credential.

        Raises `AuthzError` for a credential that is not valid.
        """


class CertificateAuthenticator:
    """The caller is `service:<common name>` of the client's certificate."""

    def authenticate(self, transport: Transport) -> Principal | None:
        """As `Authenticator.authenticate`."""
        name = transport.certificate_name()
        return Principal(Subject(SubjectType.SERVICE, name[:MAX_ID_LENGTH])) if name else None


def authenticate(authenticators: Iterable[Authenticator], transport: Transport) -> Principal:
    """What the first authenticator proves that finds a credential; `UNAUTHENTICATED` if none does."""
    for authenticator in authenticators:
        principal = authenticator.authenticate(transport)
        if principal is not None:
            return principal
    return UNAUTHENTICATED


def acting_for(transport: Transport) -> Subject | None:
    """The person that a call says it is made for; None if it says nothing.

    Raises `InvalidArgumentError` for a header that names no user, or several: it must not pass for none.
    """
    stated = transport.header_values(ACTING_FOR_HEADER)
    if not stated:
        return None
    if len(stated) > 1:
        raise malformed(ACTING_FOR_HEADER, "is sent twice; send one header, with one person")
    person = parse_subject(stated[0], field=ACTING_FOR_HEADER)
    if person.type is not SubjectType.USER:
        raise malformed(
            ACTING_FOR_HEADER, f"is `{person}`, which is no person; send `user:<id>`, or leave it out"
        )
    return person
