"""A person has a new name, or two accounts become one, in one step for everybody who looks."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from authz.client import CallError, Client
from authz.domain.entities import (
    Account,
    AccountStatus,
    Entity,
    Membership,
    MembershipFilter,
    Share,
    ShareLevel,
)
from authz.domain.errors import ErrorReason
from authz.domain.exports import ExportedEntry, ExportSection
from authz.domain.ids import PLATFORM, ResourceRef, Subject, SubjectType
from authz.domain.mutations import Mutation, Operation
from authz.store.privacy import personal_data
from authz.v1 import privacy_pb2 as ppb
from authz.wire.values import subject_message
from tests.api.test_erasure import ADA, ALGEBRA, COURSE, NOTES, REASON, STU, notebook
from tests.callers import grant
from tests.cli.commands import run
from tests.issuer import Issuer
from tests.service import Service, in_process
from tests.serving import served
from tests.waiting import until

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def address(shared_store_url: str) -> Iterator[str]:
    with served(shared_store_url) as found, Client(found) as client:
        client.write([Mutation(Operation.TOUCH, each) for each in (*COURSE, notebook(NOTES, STU))])
        yield found


def names() -> tuple[Subject, Subject]:
    number = next(_numbers)
    return Subject(SubjectType.USER, f"old-{number}"), Subject(SubjectType.USER, f"new-{number}")


def enrol(client: Client, who: Subject) -> ResourceRef:
    """A student with a diary and a share; returns the diary."""
    diary = ResourceRef("notebook", f"diary-{who.id}")
    records: list[Entity] = [
        Membership(who, ALGEBRA, "student", source_ref="sis 7"),
        notebook(diary, who),
        Share(NOTES, who, ShareLevel.EDITOR),
    ]
    client.write([Mutation(Operation.CREATE, each) for each in records])
    return diary


def test_a_renamed_person_has_the_same_access_from_one_revision_on(client: Client) -> None:
    old, new = names()
    diary, before = enrol(client, old), client.current_token()
    counts = client.privacy.rename(old, new, reason=REASON)
    assert counts == {"membership": 1, "resource": 1, "share": 1}
    for action, ref in itertools.product(("read", "update"), (diary, NOTES)):
        assert client.check(new, action, ref).allowed
        assert not client.check(old, action, ref).allowed
    (held,) = client.read(MembershipFilter(subject=new))
    assert held.entity.source_ref == "sis 7"
    with closing(client.watch(after=before)) as changes:
        change = next(changes)
    assert change.is_last
    assert change.reason == REASON
    assert [each.operation for each in change.mutations] == [Operation.TOUCH] * 3 + [Operation.DELETE] * 2


async def test_the_answer_has_a_token_with_which_a_check_sees_the_rename(
    client: Client, address: str
) -> None:
    old, new = names()
    diary = enrol(client, old)
    async with grpc.aio.insecure_channel(address) as channel:
        request = ppb.RenameSubjectRequest(
            subject=subject_message(old), to=subject_message(new), reason=REASON
        )
        answer = await Service(channel, address).privacy.RenameSubject(request)
    assert answer.replicated
    assert client.check(new, "read", diary, at_least_as_fresh=answer.written_at.token).allowed
    assert client.current_token() == answer.written_at.token


def test_two_accounts_of_one_person_become_one(client: Client) -> None:
    old, new = names()
    diaries = [enrol(client, each) for each in (old, new)]
    client.privacy.rename(old, new, reason=REASON, merge=True)
    assert all(client.check(new, "update", each).allowed for each in diaries)
    assert len([*client.read(MembershipFilter(subject=new))]) == 1
    assert [*client.read(MembershipFilter(subject=old))] == []


def test_records_that_differ_are_not_merged_and_nothing_changes(client: Client) -> None:
    old, new = names()
    diary = enrol(client, old)
    enrol(client, new)
    client.write([Mutation(Operation.TOUCH, Share(NOTES, new, ShareLevel.VIEWER))])
    with pytest.raises(CallError, match="differs from that of user:old") as refused:
        client.privacy.rename(old, new, reason=REASON, merge=True)
    assert refused.value.reason == ErrorReason.PRECONDITION_FAILED
    assert client.check(old, "update", diary).allowed


def test_a_mistyped_id_does_not_make_one_account_of_two_people(client: Client, address: str) -> None:
    old, somebody_else = names()
    diary = enrol(client, old)
    client.write([Mutation(Operation.CREATE, Account(somebody_else))])
    asked = ("privacy", "rename", str(old), str(somebody_else), "--reason", REASON, "--address", address)
    refused = run(*asked)
    assert refused.returncode == 2
    assert f"{somebody_else} has records of its own, such as account of {somebody_else};" in refused.stderr
    assert "(`--merge`), which cannot be undone" in refused.stderr
    assert client.check(old, "update", diary).allowed
    merged = run(*asked, "--merge")
    assert merged.returncode == 0, merged.stderr
    assert client.check(somebody_else, "update", diary).allowed


@pytest.mark.parametrize("suspended", [0, 1])
def test_a_suspension_neither_ends_nor_begins_by_a_rename(client: Client, suspended: int) -> None:
    people = names()
    diary = enrol(client, people[0])
    other = 1 - suspended
    accounts = [
        Account(people[suspended], status=AccountStatus.SUSPENDED),
        Account(people[other]),
    ]
    client.write([Mutation(Operation.CREATE, each) for each in accounts])
    with pytest.raises(CallError, match="differ; suspend or restore one"):
        client.privacy.rename(*people, reason=REASON, merge=True)
    assert client.check(people[0], "read", diary).allowed is bool(suspended)


def test_a_suspension_does_not_spread_to_who_has_no_account_record(client: Client) -> None:
    suspended, active = names()
    diary = enrol(client, active)
    client.write([Mutation(Operation.CREATE, Account(suspended, status=AccountStatus.SUSPENDED))])
    with pytest.raises(CallError, match="differ; suspend or restore one"):
        client.privacy.rename(suspended, active, reason=REASON, merge=True)
    assert client.check(active, "read", diary).allowed


def test_a_suspended_person_is_suspended_under_the_new_name(client: Client) -> None:
    old, new = names()
    diary = enrol(client, old)
    client.write([Mutation(Operation.CREATE, Account(old, status=AccountStatus.SUSPENDED))])
    client.privacy.rename(old, new, reason=REASON)
    assert not client.check(new, "read", diary).allowed
    assert [each.entity.status for each in client.read_accounts(subject=new)] == [AccountStatus.SUSPENDED]


def test_what_cannot_be_renamed_is_refused(client: Client) -> None:
    old, new = names()
    with pytest.raises(CallError, match="has no record"):
        client.privacy.rename(old, new, reason=REASON)
    enrol(client, old)
    for to in (str(old), "service:x"):
        with pytest.raises(CallError, match="name another subject of the type `user`"):
            client.privacy.rename(old, to, reason=REASON)
    with pytest.raises(CallError, match="user:stu has no rename_subject on api"):
        client.with_options(acting_for=str(STU)).privacy.rename(old, new, reason=REASON)


@in_process
def test_more_records_than_one_revision_takes_are_not_renamed(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = names()
    enrol(client, old)
    monkeypatch.setattr(personal_data, "MAX_RECORDS", 2)
    with pytest.raises(CallError, match="more than 2 records, too many for one revision"):
        client.privacy.rename(old, new, reason=REASON)


def test_a_privacy_officer_does_not_become_the_holder_of_a_role_on_the_platform(client: Client) -> None:
    officer, admin = names()
    roles = [Membership(officer, PLATFORM, "privacy_officer"), Membership(admin, PLATFORM, "platform_admin")]
    client.write([Mutation(Operation.CREATE, each) for each in roles])
    by_officer = client.with_options(acting_for=str(officer))
    old, new = names()
    enrol(client, old)
    assert by_officer.privacy.rename(old, new, reason=REASON)["membership"] == 1
    with pytest.raises(
        CallError, match="nobody may give themselves the records of another person"
    ) as refused:
        by_officer.privacy.rename(new, officer, reason=REASON, merge=True)
    assert refused.value.reason == ErrorReason.PERMISSION_MISSING
    with pytest.raises(CallError, match="only a caller with `grant_roles` may") as refused:
        by_officer.privacy.rename(admin, new, reason=REASON)
    assert refused.value.reason == ErrorReason.PERMISSION_MISSING
    assert [*client.read(MembershipFilter(subject=admin))]
    client.privacy.rename(admin, new, reason=REASON, merge=True)
    assert [*client.read(MembershipFilter(subject=admin))] == []


def test_a_caller_that_may_not_grant_roles_moves_none_on_the_platform(
    sqlite_url: str, tmp_path: Path
) -> None:
    issuer, (old, new) = Issuer(), names()
    held = {"service:officer": "privacy_officer", "service:root": "platform_admin", str(old): "support_agent"}
    grant(sqlite_url, held)
    with served(sqlite_url, **issuer.settings(tmp_path)) as address:
        by_officer, by_root = (Client(address, token=issuer.jwt(each)) for each in ("officer", "root"))
        with by_officer, by_root:
            with pytest.raises(CallError, match="only a caller with `grant_roles` may") as refused:
                by_officer.privacy.rename(old, new, reason=REASON)
            assert refused.value.reason == ErrorReason.PERMISSION_MISSING
            assert by_root.privacy.rename(old, new, reason=REASON) == {"membership": 1}


def test_a_person_moves_no_role_of_the_own_rank_to_another_id(client: Client) -> None:
    admin, other, support, new = (*names(), *names())
    high, low = (Subject(SubjectType.SERVICE, f"{name}-{admin.id}") for name in ("high", "low"))
    by_admin = client.with_options(acting_for=str(admin))
    for who, role in (
        (admin, "platform_admin"),
        (other, "platform_admin"),
        (support, "support_agent"),
        (high, "platform_admin"),
        (low, "checker"),
    ):
        client.write([Mutation(Operation.CREATE, Membership(who, PLATFORM, role))])
    client.create_access_token(low, ends_at=dt.datetime(2100, 1, 1, tzinfo=dt.UTC))
    for old, to in ((other, new), (admin, new), (high, Subject(SubjectType.SERVICE, new.id)), (low, high)):
        with pytest.raises(CallError, match="rank 100 is not below 100") as refused:
            by_admin.privacy.rename(old, to, reason=REASON)
        assert refused.value.reason == ErrorReason.PERMISSION_MISSING
        assert [*client.read(MembershipFilter(subject=old))]
    by_admin.privacy.rename(support, new, reason=REASON)
    client.write([Mutation(Operation.CREATE, Membership(support, PLATFORM, "support_agent"))])
    by_admin.privacy.rename(support, other, reason=REASON, merge=True)


def test_a_held_person_is_not_renamed_to_escape_the_hold(client: Client) -> None:
    old, new = names()
    diary = enrol(client, old)
    client.privacy.hold(old, reason="case 12")
    with pytest.raises(CallError, match="is held, so its id stays: case 12") as refused:
        client.privacy.rename(old, new, reason=REASON)
    assert refused.value.reason == ErrorReason.SUBJECT_HELD
    assert client.check(old, "update", diary).allowed
    client.privacy.release_hold(old, reason=REASON)
    client.privacy.rename(old, new, reason=REASON)


def entries(client: Client, who: Subject) -> list[str]:
    items = client.privacy.export(who)
    return [
        each.name
        for each in items
        if isinstance(each, ExportedEntry) and each.section is ExportSection.RENAMES
    ]


def to_do(client: Client, who: Subject) -> list[str]:
    (certificate,) = client.privacy.erasures(who)
    return [each for each in certificate.left_to_operator if "rename" in each]


def test_exports_and_erasures_of_one_id_name_the_other(client: Client) -> None:
    first, second = names()
    third, stranger = names()
    for each in (first, stranger):
        enrol(client, each)
    client.privacy.rename(first, second, reason=REASON)
    client.privacy.rename(second, third, reason=REASON)
    found = {each: entries(client, each) for each in (first, second, third, stranger)}
    one, two, three = map(str, (first, second, third))
    assert found == {first: [two], second: [one, three], third: [two], stranger: []}
    client.privacy.erase(third, reason=REASON, resources_to=ADA)
    (said,) = to_do(client, third)
    assert said.startswith(f"{second} is another id of the subject, by a rename of ")
    client.privacy.erase(second, reason=REASON, resources_to=ADA)
    # An erasure may wait for the one before when the call has its answer.
    until(lambda: to_do(client, third) == [])
    until(lambda: [str(first) in each for each in to_do(client, second)] == [True])
    client.privacy.erase(first, reason=REASON, resources_to=ADA)
    until(lambda: [to_do(client, each) for each in (first, second, third)] == [[], [], []])


def test_nobody_gets_the_id_of_an_erased_person_by_a_rename(client: Client) -> None:
    gone, old = names()
    enrol(client, gone)
    enrol(client, old)
    client.privacy.erase(gone, reason=REASON, resources_to=ADA)
    with pytest.raises(CallError, match="was erased"):
        client.privacy.rename(old, gone, reason=REASON, merge=True)


def test_the_command_says_what_was_renamed(client: Client, address: str) -> None:
    old, new = names()
    enrol(client, old)
    done = run("privacy", "rename", str(old), str(new), "--reason", REASON, "--address", address)
    assert done.returncode == 0, done.stderr
    kinds = "membership records: 1, resource records: 1, share records: 1"
    assert done.stdout == f"{old} is {new} now; {kinds}\n"
