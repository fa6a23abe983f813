"""Finds the principal of a call by what its transport proves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from authz.access.principal import UNAUTHENTICATED, Principal
from authz.domain.errors import ErrorReason, UnauthenticatedError, UnavailableError, malformed
from authz.domain.ids import Subject, SubjectType, parse_subject

ACTING_FOR_HEADER = "authz-acting-for"


class Transport(Protocol):
    """What carried a call. Each face implements it, and reads nothing before a step asks for it."""

    __slots__ = ()

    def certificate(self) -> bytes:
        """The client's verified certificate as PEM; empty without one."""

    def connection(self) -> str:
        """Tells the connection of the call from others; empty if it cannot, as at a Unix socket."""

    def header(self, name: str) -> str:
        """The value of a header, by its name in lower case: of several the last, empty without one."""

    def header_values(self, name: str) -> tuple[str, ...]:
        """All values of a header, by its name in lower case; none when the call has none."""

    def when_sent(self, release: Callable[[], None]) -> None:
        """Call `release` once the answer or the error has been sent, or the call was given up."""


class Authenticator(Protocol):
    """Verifies one kind of credential. Never waits: what it needs is in memory, or on this machine."""

    def authenticate(self, transport: Transport) -> Principal | None:
        """The principal that the credential proves; None when the call carries no such credential.

        Raises `UnauthenticatedError` for a credential that is not valid, and `UnavailableError` when it
        cannot be verified now.
        """


def authenticate(authenticators: Sequence[Authenticator], transport: Transport) -> Principal:
    """The principal by the first authenticator that finds a credential.

    Without any authenticator it is `UNAUTHENTICATED`. With one, a call without a credential raises
    `UnauthenticatedError`.
    """
    if not authenticators:
        return UNAUTHENTICATED
    for authenticator in authenticators:
        principal = authenticator.authenticate(transport)
        if principal is not None:
            return principal
    raise UnauthenticatedError(
        ErrorReason.CREDENTIAL_MISSING,
        "the call carries no credential that this server accepts; send a token or a JWT as"
        " `authorization: Bearer …`, or show a client certificate",
    )


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


def invalid(problem: str) -> UnauthenticatedError:
    """The error for a credential that proves nothing."""
    return UnauthenticatedError(ErrorReason.CREDENTIAL_INVALID, problem)


def unverifiable(problem: str) -> UnavailableError:
    """The error while a credential cannot be verified. Until it can be, nobody is let in."""
    return UnavailableError(ErrorReason.CREDENTIALS_UNVERIFIABLE, problem)
