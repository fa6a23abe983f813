"""The erasure of a subject: request, progress and certificate."""

from __future__ import annotations

import hashlib

import msgspec

from authz.domain.entities import Erasure, Restriction, Versioned
from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.ids import Subject
from authz.domain.instants import Instant
from authz.domain.origin import Origin
from authz.domain.recipients import AskerReport, WatcherReport

PSEUDONYM_PREFIX = "erased-"
"""How the id of every pseudonym begins."""
_MAC_BYTES = 32
_USE = b"erased subject"
"""A part of each HMAC, so that it is of no use as the signature of a token.
Source: https://docs.python.org/3/library/hashlib.html#personalization"""


def subject_mac(key: bytes, subject: Subject | str) -> str:
    """The HMAC of a subject, or of its name `user:<id>`, under the key of a database, in hexadecimal."""
    return hashlib.blake2b(str(subject).encode(), digest_size=_MAC_BYTES, key=key, person=_USE).hexdigest()


class Pseudonyms(msgspec.Struct, frozen=True):
    """The pseudonyms of erased subjects, by their HMACs under the key of a database: no id is known."""

    key: bytes
    by_mac: dict[str, Subject]

    def __bool__(self) -> bool:
        return bool(self.by_mac)

    def of(self, subject: Subject | str) -> Subject | None:
        """The pseudonym of a subject, or of its name `user:<id>`; None if it was not erased."""
        return self.by_mac.get(subject_mac(self.key, subject))


class ErasureRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to erase, and why. Resources go to `resources_to`, or with `orphans` to nobody."""

    subject: Subject
    origin: Origin
    resources_to: Subject | None = None
    orphans: bool = False


class RenameRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A rename: source and target. `merge` allows that the target has records of its own;
    `moves_roles`, that roles on the platform and access tokens get another holder."""

    subject: Subject
    to: Subject
    origin: Origin
    merge: bool = False
    moves_roles: bool = False


class RestrictedSubject(msgspec.Struct, frozen=True):
    """A restriction, with the reason that the change log has for it, and who restricted the subject."""

    restriction: Versioned[Restriction]
    reason: str
    actor: str


class ErasureList(msgspec.Struct, frozen=True):
    """Erasures to repeat in a restored backup. Their HMACs are under the key of one database."""

    format: str
    database_id: str
    erasures: tuple[Erasure, ...]


ERASURE_LIST_FORMAT = "authz-erasures-1"
"""The value of `ErasureList.format`."""


class ReplicaReport(msgspec.Struct, frozen=True):
    """A machine, whether nothing of the subject is left in the files of its replica and of its decision log,
    and when it last said so."""

    name: str
    is_cleared: bool
    seen_at: Instant


class ErasureCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """What an erasure removed, and what it kept and why. `finished_at` is None while it runs.

    `removed` counts deleted and rewritten items by place. `left_to_operator` lists the steps that the service
    cannot take. `askers` and `watchers` are who received data about the subject, as far as that is kept.
    """

    erasure: Erasure
    actor: str
    finished_at: Instant | None
    removed: dict[str, int]
    kept: tuple[str, ...]
    left_to_operator: tuple[str, ...]
    replicas: tuple[ReplicaReport, ...]
    askers: tuple[AskerReport, ...]
    watchers: tuple[WatcherReport, ...]

    @property
    def is_confirmed(self) -> bool:
        """Whether the erasure is complete, and every machine with a replica has confirmed it."""
        return self.finished_at is not None and all(each.is_cleared for each in self.replicas)


def erased(subject: Subject) -> FailedPreconditionError:
    """The error for a write that names a subject that was erased."""
    return FailedPreconditionError(
        ErrorReason.SUBJECT_ERASED,
        f"{subject} was erased, and the server accepts no record that names an erased subject;"
        f" use another id, or allow this one again with `authz privacy release {subject} --reason WHY`",
        subject=str(subject),
    )


def is_pseudonym(subject: Subject) -> FailedPreconditionError:
    """The error for a write that names the pseudonym of an erased subject."""
    return FailedPreconditionError(
        ErrorReason.SUBJECT_ERASED,
        f"{subject} is the pseudonym of an erased subject, and nobody else may have it; use another id",
        subject=str(subject),
    )
