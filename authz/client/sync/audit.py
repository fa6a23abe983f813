# Generated from authz/client/aio/audit.py; see `make client`.
"""The client of AuditService: the change log and its tree, and the decision log."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator

from authz.client.arguments import (
    as_choice,
    as_flag,
    as_instant,
    as_kinds,
    as_resource,
    as_scope,
    as_subject,
    as_text,
    message_of,
)
from authz.client.sync.calls import Calls
from authz.domain.audit import ChangeQuery, LoggedChange
from authz.domain.decision_log import DecisionQuery, StoredDecision
from authz.domain.entities import EntityKind
from authz.domain.ids import ResourceRef, Scope, Subject
from authz.domain.instants import Instant
from authz.domain.ports import Page
from authz.domain.proofs import AuditLog, ConsistencyProof, InclusionProof
from authz.v1 import audit_pb2 as pb
from authz.v1 import audit_pb2_grpc
from authz.wire.audit import AUDIT_LOGS, CHANGE_QUERIES, DECISION_QUERIES, parse_change, parse_decision

_PAGE_SIZE = 1000


class AuditClient:
    """`Client.audit`: reads the change log, its tree and the decision log. Every call raises `CallError`."""

    def __init__(self, stub: audit_pb2_grpc.AuditServiceStub, calls: Calls) -> None:
        self._stub = stub
        self._calls = calls

    def changes(
        self,
        *,
        kinds: Iterable[str | EntityKind] = (),
        subject: str | Subject | None = None,
        resource: str | ResourceRef | None = None,
        scope: str | Scope | None = None,
        principal: str = "",
        since: dt.datetime | Instant | None = None,
        until: dt.datetime | Instant | None = None,
        oldest_first: bool = False,
    ) -> Iterator[LoggedChange]:
        """The changes of the log that match all that is given, the newest first. Fetches pages as needed.

        for change in client.audit.changes(subject="user:maya", principal="service:console")
        """
        query = ChangeQuery(
            kinds=as_kinds(kinds),
            subject=None if subject is None else as_subject(subject),
            resource=None if resource is None else as_resource(resource),
            scope=None if scope is None else as_scope(scope),
            principal=as_text(principal, field="principal"),
            since=None if since is None else as_instant(since, field="since"),
            until=None if until is None else as_instant(until, field="until"),
            oldest_first=as_flag(oldest_first, field="oldest_first"),
        )
        request = CHANGE_QUERIES.format(query, Page(_PAGE_SIZE))
        for page in self._calls.pages(self._stub.ReadChanges, request):
            for message in page.changes:
                yield parse_change(message)

    def decisions(
        self,
        *,
        subject: str | Subject | None = None,
        resource: str | ResourceRef | None = None,
        principal: str = "",
        action: str = "",
        allowed: bool | None = None,
        since: dt.datetime | Instant | None = None,
        until: dt.datetime | Instant | None = None,
        oldest_first: bool = False,
    ) -> Iterator[StoredDecision]:
        """The entries of the decision log in the database that match all that is given, the newest first.

        for entry in client.audit.decisions(resource="notebook:nb-7", allowed=True)
        """
        query = DecisionQuery(
            subject=None if subject is None else as_subject(subject),
            resource=None if resource is None else as_resource(resource),
            principal=as_text(principal, field="principal"),
            action=as_text(action, field="action"),
            allowed=None if allowed is None else as_flag(allowed, field="allowed"),
            since=None if since is None else as_instant(since, field="since"),
            until=None if until is None else as_instant(until, field="until"),
            oldest_first=as_flag(oldest_first, field="oldest_first"),
        )
        request = DECISION_QUERIES.format(query, Page(_PAGE_SIZE))
        for page in self._calls.pages(self._stub.ReadDecisions, request):
            for message in page.decisions:
                yield parse_decision(message)

    def logs_to_database(self) -> bool:
        """Whether the server that answers logs its decisions in the database."""
        request = DECISION_QUERIES.format(DecisionQuery(), Page(1))
        response = self._calls.call(self._stub.ReadDecisions, request)
        return bool(response.logs_to_database)

    def checkpoint(self) -> str:
        """The newest checkpoint that a server has signed: a C2SP note, for `authz audit verify`."""
        response = self._calls.call(self._stub.ReadCheckpoint, pb.ReadCheckpointRequest())
        return str(response.note)

    def inclusion_proof(
        self, number: int, tree_size: int, *, log: AuditLog = AuditLog.CHANGES
    ) -> InclusionProof:
        """A proof that the tree of a checkpoint has a revision of the change log, or a leaf of decisions.

        client.audit.inclusion_proof(17, checkpoint.size).holds_for(checkpoint.root)
        """
        request = message_of(
            pb.ReadInclusionProofRequest,
            number=number,
            tree_size=tree_size,
            log=AUDIT_LOGS.number(as_choice(log, AuditLog, field="log")),
        )
        response = self._calls.call(self._stub.ReadInclusionProof, request)
        hashes, changes = tuple(response.hashes), tuple(response.changes)
        return InclusionProof(number, tree_size, response.leaf_hash, hashes, response.content, changes)

    def consistency_proof(
        self, first_size: int, second_size: int, *, log: AuditLog = AuditLog.CHANGES
    ) -> ConsistencyProof:
        """A proof that the tree of one checkpoint is the beginning of that of another."""
        sizes = {"first_size": first_size, "second_size": second_size}
        request = message_of(
            pb.ReadConsistencyProofRequest,
            **sizes,
            log=AUDIT_LOGS.number(as_choice(log, AuditLog, field="log")),
        )
        response = self._calls.call(self._stub.ReadConsistencyProof, request)
        return ConsistencyProof(first_size, second_size, tuple(response.hashes))
