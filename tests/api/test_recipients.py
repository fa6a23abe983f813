"""Who received data about a person: as exports and certificates of erasures say it, on both databases."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from typing import NoReturn

import pytest
from msgspec.structs import replace

from authz.audit.table import TableSink
from authz.client import CallError, Client
from authz.domain.entities import Account, Course, Erasure, ErasureStatus
from authz.domain.erasures import ErasureCertificate
from authz.domain.exports import ExportedEntry, ExportSection
from authz.domain.ids import Subject, SubjectType
from authz.domain.mutations import Mutation, Operation
from authz.domain.recipients import WatcherReport
from tests.cli.commands import run
from tests.serving import served
from tests.store.directory import open_with
from tests.store.log.test_decisions import ENTRY
from tests.waiting import until

CALLER = "unauthenticated"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def address(shared_store_url: str) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TableSink, "gather_s", 0.0)
        with served(shared_store_url, decision_log="table", erasure_grace_s="0") as found:
            yield found


@pytest.fixture
def maya(client: Client) -> Subject:
    """Somebody whom nobody knows yet."""
    found = Subject(SubjectType.USER, f"maya-{next(_numbers)}")
    client.write([Mutation(Operation.CREATE, Account(found))])
    return found


def asked(client: Client, subject: Subject, times: int) -> None:
    """Ask about a person until the database has logged it."""
    for _ in range(times):
        client.check(subject, "read", "course:algebra")
    named = str(subject)
    # To ask the log about the person would be in the log, too.
    until(
        lambda: [each.subject for each in client.audit.decisions(action="read")].count(named) >= times,
        "the checks are not in the decision log",
    )


def erase(client: Client, subject: Subject) -> ErasureCertificate:
    client.privacy.erase(subject, reason="request 17", orphan_resources=True)
    until(lambda: certificate(client, subject).finished_at is not None, "the erasure does not end")
    return certificate(client, subject)


def certificate(client: Client, subject: Subject) -> ErasureCertificate:
    (found,) = client.privacy.erasures(subject)
    return found


def recipients(client: Client, subject: Subject) -> list[ExportedEntry]:
    entries = [each for each in client.privacy.export(subject) if isinstance(each, ExportedEntry)]
    return [each for each in entries if each.section is ExportSection.RECIPIENTS]


def test_an_export_and_a_certificate_name_the_callers_that_asked(client: Client, maya: Subject) -> None:
    asked(client, maya, 2)
    entry, *_ = recipients(client, maya)
    assert entry.name == CALLER
    assert entry.text.startswith(f"asked 2 times about {maya} since 20")
    # Who exports somebody asks, too.
    until(lambda: "asked 2 times" not in recipients(client, maya)[0].text, "the export is not logged")
    found = erase(client, maya)
    (asker,) = found.askers
    assert asker.caller == CALLER
    assert asker.asked > 2
    assert entry.at is not None
    assert asker.first_at < entry.at <= asker.last_at
    assert recipients(client, maya) == []


def test_who_was_refused_or_read_a_certificate_received_nothing(
    shared_store_url: str,
) -> None:
    store = open_with(shared_store_url)
    refused = replace(ENTRY, decision_id="refused", code="PERMISSION_DENIED", allowed=False)
    plain = replace(ENTRY, action="", resource="", reason="", person="")
    told = replace(plain, decision_id="told", caller="service:told")
    certificate = replace(ENTRY, decision_id="certificate", method="ReadErasures")
    entries = (refused, certificate, told)
    store.decisions.append([replace(each, subject="user:sami") for each in entries])
    with store.personal_data.export(Subject(SubjectType.USER, "sami")) as export:
        exported = [each for each in export.items() if isinstance(each, ExportedEntry)]
    store.close()
    received = [each for each in exported if each.section is ExportSection.RECIPIENTS]
    assert [(each.name, each.text.partition(" since")[0]) for each in received] == [
        ("service:told", "asked once about user:sami")
    ]
    texts = [each.text for each in exported]
    assert f"service:told called {ENTRY.method} about user:sami: allowed" in texts


def watcher(found: ErasureCertificate) -> WatcherReport:
    (report,) = found.watchers
    assert report.caller == CALLER
    return report


def test_a_watcher_is_sent_an_erasure_and_acknowledges_it_as_it_resumes(
    client: Client, maya: Subject, address: str
) -> None:
    token = client.current_token()
    with closing(client.watch(after=token)) as changes:
        client.write([Mutation(Operation.CREATE, Course(f"course-{next(_numbers)}"))])
        before = next(changes)
        erase(client, maya)
        while True:
            change = next(changes)
            targets = [each.target for each in change.mutations if isinstance(each.target, Erasure)]
            if ErasureStatus.ERASED in [each.status for each in targets]:
                break
        until(lambda: watcher(certificate(client, maya)).was_sent, "the watcher is not sent the erasure")
    assert not watcher(certificate(client, maya)).has_acknowledged
    listed = run("privacy", "erasures", "--subject", str(maya), "--address", address)
    assert f"watcher {CALLER}: sent, NOT ACKNOWLEDGED, last seen" in listed.stdout
    with (
        pytest.raises(CallError, match="read the directory again"),
        closing(client.watch(after=before.token)) as expired,
    ):
        next(expired)
    assert not watcher(certificate(client, maya)).has_acknowledged
    resume(client, change.token)
    assert watcher(certificate(client, maya)).has_acknowledged
    listed = run("privacy", "erasures", "--subject", str(maya), "--address", address)
    assert f"watcher {CALLER}: acknowledged, last seen" in listed.stdout


def resume(client: Client, token: str) -> None:
    """Watch from a token until a change comes."""
    with closing(client.watch(after=token)) as changes:
        client.write([Mutation(Operation.CREATE, Course(f"course-{next(_numbers)}"))])
        next(changes)


class BegunError(Exception):
    """A watch has begun."""


def begin_now(client: Client) -> None:
    """Watch from now on, whatever was before, until the first checkpoint."""

    def end(_: str) -> NoReturn:
        raise BegunError

    with pytest.raises(BegunError), closing(client.watch(on_checkpoint=end)) as changes:
        next(changes)


def test_a_watcher_that_read_the_directory_after_an_erasure_has_acknowledged_it(
    client: Client, maya: Subject
) -> None:
    resume(client, client.current_token())
    erase(client, maya)
    begin_now(client)
    assert not watcher(certificate(client, maya)).has_acknowledged
    resume(client, client.current_token())
    assert watcher(certificate(client, maya)).has_acknowledged


def test_a_watcher_that_is_gone_for_good_is_in_no_certificate(client: Client, maya: Subject) -> None:
    resume(client, client.current_token())
    assert [each.name for each in recipients(client, maya)] == [CALLER]
    erase(client, maya)
    client.privacy.forget_watcher(CALLER)
    assert certificate(client, maya).watchers == ()
    with pytest.raises(CallError, match=f"there is no watcher `{CALLER}`"):
        client.privacy.forget_watcher(CALLER)
