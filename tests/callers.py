"""Roles of callers, written straight into a database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from authz.domain.entities import Account, AccountStatus, Membership, MembershipKey
from authz.domain.ids import PLATFORM, parse_subject
from authz.domain.mutations import Mutation, Operation, WriteRequest
from authz.domain.origin import Origin
from authz.engine.policies import CompiledPolicies
from authz.runtime.compose import first_write, system_clock
from authz.store import open_store, prepare_store
from authz.store.directory import SqlDirectory


@contextmanager
def directory_of(url: str) -> Iterator[SqlDirectory]:
    """The directory of a database, with the shipped policy unless it has one."""
    prepare_store(url, first=first_write(system_clock))
    store = open_store(url, vocabularies=CompiledPolicies().vocabulary, clock=system_clock)
    try:
        yield store.directory
    finally:
        store.close()


def grant(url: str, roles: Mapping[str, str]) -> None:
    """Give each caller a role on the platform."""
    held = [
        Membership(subject=parse_subject(caller), scope=PLATFORM, role=role) for caller, role in roles.items()
    ]
    _write(url, [Mutation(Operation.TOUCH, each) for each in held])


def revoke(url: str, caller: str, role: str) -> None:
    """Take a role away."""
    _write(url, [Mutation(Operation.DELETE, MembershipKey(parse_subject(caller), PLATFORM, role))])


def suspend(url: str, caller: str) -> None:
    """Suspend the account of a caller."""
    account = Account(subject=parse_subject(caller), status=AccountStatus.SUSPENDED)
    _write(url, [Mutation(Operation.TOUCH, account)])


def _write(url: str, mutations: list[Mutation]) -> None:
    with directory_of(url) as directory:
        directory.write(WriteRequest(mutations=tuple(mutations), origin=Origin("test")))
