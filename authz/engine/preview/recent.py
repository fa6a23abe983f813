"""Replays recent questions from the decision log, and counts those that another policy would change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from authz.domain.decision_log import EVERY_ACTION, DecisionEntry, DecisionQuery, DecisionTable
from authz.domain.decisions import Question
from authz.domain.errors import InvalidArgumentError, UnusablePolicyError
from authz.domain.ids import ResourceRef, parse_subject
from authz.domain.impact import RecentDecisions
from authz.domain.instants import Instant
from authz.domain.ports import Page, Snapshot
from authz.engine.check import Checker

MAX_RECENT = 5000
_PAGE_SIZE = 1000


def read_recent(table: DecisionTable) -> list[DecisionEntry]:
    """The newest decisions of the decision log in the database, at most 5,000. Blocks."""
    found: list[DecisionEntry] = []
    token = ""
    for _ in range(MAX_RECENT // _PAGE_SIZE):
        page = table.read(DecisionQuery(), Page(_PAGE_SIZE, token))
        found += [entry for entry in page.entries if entry.policy_version and entry.action != EVERY_ACTION]
        token = page.next_token
        if not token:
            break
    return found


def changed_answers(
    snapshot: Snapshot, before: Checker, after: Checker, now: Instant, entries: Sequence[DecisionEntry]
) -> Iterator[bool]:
    """For each question that was asked, whether two policies differ in what they allow, on one state."""
    for entry in entries:
        question = _question_of(entry)
        yield _allows(before, snapshot, question, now) != _allows(after, snapshot, question, now)


def _allows(checker: Checker, snapshot: Snapshot, question: Question, now: Instant) -> bool:
    try:
        return checker.check(snapshot, question, now).allowed
    except (InvalidArgumentError, UnusablePolicyError):  # a type or an action that it does not declare
        return False


def recent_decisions(entries: Sequence[DecisionEntry], changes: Sequence[bool]) -> RecentDecisions | None:
    """The result of a replay; None if the log is empty."""
    if not entries:
        return None
    return RecentDecisions(len(entries), sum(changes), since=min(entry.at for entry in entries))


def _question_of(entry: DecisionEntry) -> Question:
    type_name, _, id_ = entry.resource.partition(":")
    return Question(
        parse_subject(entry.subject),
        entry.action,
        ResourceRef(type_name, id_),
        entry.course_id or None,
        entry.session_id or None,
        purpose=entry.purpose,
    )
