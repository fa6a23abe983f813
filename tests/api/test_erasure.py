"""A person is erased from records, history and files, and what is known of everybody else stays."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import grpc
import msgspec
import pytest

from authz.cli import privacy
from authz.client import CallError, Client
from authz.domain.entities import (
    Account,
    Course,
    CourseState,
    Entity,
    EntityKind,
    Membership,
    MembershipFilter,
    MembershipKey,
    Resource,
    ResourceFilter,
    Share,
    ShareLevel,
    Visibility,
)
from authz.domain.erasures import ErasureCertificate
from authz.domain.errors import ErrorReason
from authz.domain.exports import ExportEnd, ExportSection
from authz.domain.ids import PLATFORM, ResourceRef, Subject, SubjectType, course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation
from authz.v1 import privacy_pb2 as ppb
from tests.cli.commands import run
from tests.service import Service
from tests.serving import served

ADA, STU = parse_subject("user:ada"), parse_subject("user:stu")
ALGEBRA = course_scope("algebra")
NOTES = ResourceRef("notebook", "notes")
REASON = "request 17"
COURSE: list[Entity] = [
    Course("algebra", state=CourseState.ACTIVE),
    Membership(ADA, ALGEBRA, "teacher"),
    Membership(STU, ALGEBRA, "student"),
]
_numbers = itertools.count(1)


def notebook(ref: ResourceRef, owner: Subject) -> Resource:
    return Resource(ref.type, ref.id, scope=ALGEBRA, owner=owner, visibility=Visibility.PRIVATE)


class Person(msgspec.Struct):
    """Somebody who is named wherever the database can name one."""

    client: Client
    subject: Subject
    diary: ResourceRef
    essay: ResourceRef

    def enrol(self) -> None:
        """Write the records, by and about the person, with reasons and keys that name it."""
        maya, id_, everybody = self.subject, self.subject.id, self.client
        everybody.write([Mutation(Operation.TOUCH, each) for each in (*COURSE, notebook(NOTES, STU))])
        records: list[Entity] = [
            Membership(maya, ALGEBRA, "student", source_ref=f"sis {id_}"),
            notebook(self.diary, maya),
            notebook(self.essay, maya),
            Share(NOTES, maya, ShareLevel.EDITOR),
            Share(self.essay, STU, ShareLevel.VIEWER),
            Account(maya),
        ]
        earlier = Subject(SubjectType.USER, f"earlier-{next(_numbers)}")
        everybody.write([Mutation(Operation.CREATE, Membership(earlier, PLATFORM, "support_agent"))])
        everybody.privacy.rename(earlier, maya, reason=REASON)
        created = [Mutation(Operation.CREATE, each) for each in records]
        everybody.write(created, idempotency_key=f"{id_}-1", reason=f"as {maya} asked")
        by_maya, by_ada = (everybody.with_options(acting_for=str(each)) for each in (maya, ADA))
        share = Mutation(Operation.TOUCH, Share(self.essay, STU, ShareLevel.EDITOR))
        by_maya.write([share], idempotency_key=f"share-{id_}", reason=f"{id_} wants it")
        by_ada.write(
            [Mutation(Operation.CREATE, Membership(maya, ALGEBRA, "auditor"))],
            reason=f"https://sis/{id_}/edit",
        )
        gone = MembershipKey(maya, ALGEBRA, "auditor")
        by_ada.write([Mutation(Operation.DELETE, gone)], reason=f"not for {id_}")
        everybody.policies.drafts.create(f"draft-{next(_numbers)}", author=str(maya))

    def erased(self, **given: Any) -> ErasureCertificate:
        """The certificate, once the erasure is complete and every machine has confirmed it."""
        chosen: dict[str, Any] = {"orphan_resources": True} | given
        self.client.privacy.erase(self.subject, reason=REASON, **chosen)
        return self.complete()

    def complete(self) -> ErasureCertificate:
        for _ in range(600):
            (found,) = self.client.privacy.erasures(self.subject)
            if found.is_confirmed:
                return found
            time.sleep(0.05)
        raise AssertionError(f"not confirmed: {found}")


def person(client: Client) -> Person:
    number = next(_numbers)
    maya = Subject(SubjectType.USER, f"m4y4-7f3a-{number}")
    found = Person(
        client, maya, *(ResourceRef("notebook", f"{name}-{number}") for name in ("diary", "essay"))
    )
    found.enrol()
    return found


@pytest.fixture(scope="module")
def address(shared_sqlite_url: str) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("authz.engine.erasure._REPORT_INTERVAL_S", 0.02)
        with served(shared_sqlite_url) as found:
            yield found


@pytest.fixture
def maya(address: str) -> Iterator[Person]:
    with Client(address) as client:
        yield person(client)


def answers(maya: Person, as_of: datetime) -> list[Any]:
    """What others may do now and could do at an earlier time, and who could read something then."""
    refs = (NOTES, maya.essay)
    asked = [(who, action, ref) for who in (ADA, STU) for action in ("read", "update") for ref in refs]
    now = [maya.client.check(who, action, ref) for who, action, ref in asked]
    then = [maya.client.explain(who, action, ref, as_of=as_of).answer for who, action, ref in asked]
    readers = {str(each.subject) for each in maya.client.list_subjects("read", NOTES, as_of=as_of)}
    return [[(each.allowed, each.rule) for each in answered] for answered in (now, then)] + [readers]


def test_the_past_and_the_present_of_everybody_else_are_as_before(maya: Person) -> None:
    """What nobody owns any more is readable by those who read it before, and by nobody new."""
    then = datetime.now(UTC)
    now, past, readers = answers(maya, then)
    certificate = maya.erased()
    pseudonym = str(certificate.erasure.pseudonym)
    renamed = {pseudonym if each == str(maya.subject) else each for each in readers}
    assert pseudonym in renamed
    assert answers(maya, then) == [now, past, renamed]
    assert not maya.client.check(maya.subject, "read", maya.diary).allowed
    assert [each.subject for each in maya.client.list_subjects("read", maya.essay)] == [str(STU)]
    assert [*maya.client.list_subjects("read", maya.diary)] == []


def test_the_past_of_an_erased_person_is_unknown_and_not_a_denial(maya: Person) -> None:
    then = datetime.now(UTC)
    assert maya.client.explain(maya.subject, "read", maya.diary, as_of=then).answer.allowed
    maya.erased()
    maya.client.privacy.release(maya.subject, reason="a namesake starts here")
    audit, name = maya.client.audit, str(maya.subject)
    for ask in (
        lambda: maya.client.explain(maya.subject, "read", maya.diary, as_of=then),
        lambda: [*audit.changes(subject=maya.subject)],
        lambda: [*audit.changes(principal=name, since=then)],
        lambda: [*audit.decisions(subject=maya.subject)],
        lambda: [*audit.decisions(principal=name, since=then)],
    ):
        with pytest.raises(CallError, match="nothing is known of it before") as unknown:
            ask()
        assert unknown.value.reason == ErrorReason.SUBJECT_ERASED
    now = datetime.now(UTC)
    maya.client.write([Mutation(Operation.CREATE, Account(maya.subject))])
    assert not maya.client.explain(maya.subject, "read", maya.diary, as_of=now)
    assert len([*audit.changes(subject=maya.subject, since=now)]) == 1
    assert [*audit.decisions(subject=maya.subject, since=now)] == []


def test_the_certificate_says_what_was_removed_and_nothing_is_left_to_export(maya: Person) -> None:
    certificate = maya.erased()
    (*_, end) = maya.client.privacy.export(maya.subject)
    assert end == ExportEnd(dict.fromkeys(ExportSection, 0))
    assert {what: n for what, n in certificate.removed.items() if "rewritten" not in what} == {
        "share records deleted": 1,
        "membership records deleted": 2,
        "account records deleted": 1,
        "resource records left without an owner": 2,
        "idempotency keys deleted": 2,
    }
    assert certificate.removed["changes rewritten"] > 0
    assert certificate.removed["revisions rewritten"] > 0
    assert certificate.removed["drafts rewritten"] == 1
    assert certificate.kept == ()
    assert certificate.actor == "unauthenticated"
    assert certificate.erasure.reason == REASON
    assert [each.is_cleared for each in certificate.replicas] == [True]


def test_resources_go_to_a_named_owner(maya: Person) -> None:
    pseudonym = maya.erased(resources_to=ADA, orphan_resources=False).erasure.pseudonym
    owned = {each.entity.key for each in maya.client.read(ResourceFilter(owner=ADA))}
    assert {maya.diary, maya.essay} <= owned
    assert maya.client.check(ADA, "read", maya.diary).allowed
    given, *_ = maya.client.audit.changes(resource=maya.diary)
    assert isinstance(given.before, Resource)
    assert isinstance(given.after, Resource)
    assert (given.before.owner, given.after.owner) == (pseudonym, ADA)


def test_an_erased_id_is_not_given_to_somebody_new_until_an_operator_says_so(maya: Person) -> None:
    maya.erased()
    newcomer = [Mutation(Operation.CREATE, Membership(maya.subject, ALGEBRA, "student"))]
    gift = [Mutation(Operation.TOUCH, notebook(NOTES, maya.subject))]
    for mutations in (newcomer, gift):
        with pytest.raises(CallError, match="authz privacy release") as refused:
            maya.client.write(mutations)
        assert refused.value.reason == ErrorReason.SUBJECT_ERASED
    with pytest.raises(CallError, match="was erased"):
        maya.client.update(NOTES, owner=maya.subject)
    outcome = maya.client.import_mutations([*newcomer, Mutation(Operation.TOUCH, COURSE[0])])
    assert [each.reason for each in outcome.faults] == [ErrorReason.SUBJECT_ERASED]
    maya.client.privacy.release(maya.subject, reason="a namesake starts here")
    maya.client.write(newcomer)
    assert not maya.client.check(maya.subject, "read", maya.diary).allowed
    with pytest.raises(CallError, match="was not erased"):
        maya.client.privacy.release(maya.subject, reason="again")


def test_a_person_who_is_held_is_not_erased_and_the_refusal_says_why(maya: Person) -> None:
    privacy = maya.client.privacy
    privacy.hold(maya.subject, reason="case 12 is open")
    with pytest.raises(CallError, match="case 12 is open") as refused:
        privacy.erase(maya.subject, reason=REASON, orphan_resources=True)
    assert refused.value.reason == ErrorReason.SUBJECT_HELD
    assert (maya.subject, "case 12 is open") in [(each.subject, each.reason) for each in privacy.holds()]
    assert maya.client.check(maya.subject, "read", maya.diary).allowed
    privacy.release_hold(maya.subject, reason="case 12 is closed")
    released, placed = maya.client.audit.changes(kinds=[EntityKind.HOLD], subject=maya.subject)
    assert (placed.actor, placed.reason, placed.before) == ("unauthenticated", "case 12 is open", None)
    assert (released.reason, released.before, released.after) == ("case 12 is closed", placed.after, None)
    maya.erased()
    with pytest.raises(CallError, match="is not held"):
        privacy.release_hold(maya.subject, reason=REASON)


def test_an_erasure_that_does_not_say_enough_is_refused_and_nothing_changes(maya: Person) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "owns 2 resources; give them to somebody with `resources_to`"),
        ({"resources_to": maya.subject}, "resources_to is user:.*, who is erased; name somebody else"),
        ({"orphan_resources": True, "reason": f"{maya.subject.id} asked"}, "reason names the subject"),
        ({"orphan_resources": True, "reason": f"as {STU} asked"}, f"reason names {STU}"),
        ({"orphan_resources": True, "reason": ""}, "reason is missing"),
    ]
    for given, problem in cases:
        chosen: dict[str, Any] = {"reason": REASON} | given
        with pytest.raises(CallError, match=problem):
            maya.client.privacy.erase(maya.subject, **chosen)
    assert maya.client.check(maya.subject, "read", maya.diary).allowed
    assert [*maya.client.privacy.erasures(maya.subject)] == []


def test_the_last_administrator_is_not_erased_before_there_is_another(maya: Person) -> None:
    maya.client.write([Mutation(Operation.CREATE, Membership(maya.subject, PLATFORM, "platform_admin"))])
    with pytest.raises(CallError, match="first make somebody else `platform_admin`") as refused:
        maya.client.privacy.erase(maya.subject, reason=REASON, orphan_resources=True)
    assert refused.value.reason == ErrorReason.LAST_ADMINISTRATOR
    maya.client.write([Mutation(Operation.CREATE, Membership(ADA, PLATFORM, "platform_admin"))])
    maya.erased()


def test_whoever_erases_for_a_person_needs_the_role_of_a_privacy_officer(maya: Person) -> None:
    officer = maya.client.with_options(acting_for=str(STU)).privacy
    calls = (
        lambda: officer.erase(maya.subject, reason=REASON, orphan_resources=True),
        lambda: [*officer.erasures()],
        lambda: officer.release(maya.subject, reason=REASON),
        lambda: officer.hold(maya.subject, reason=REASON),
        lambda: officer.release_hold(maya.subject, reason=REASON),
        officer.holds,
        lambda: officer.forget_replica("away"),
    )
    for call in calls:
        with pytest.raises(CallError, match="user:stu has no erase_subject on api; call for somebody"):
            call()


def test_a_privacy_officer_holds_everybody(maya: Person) -> None:
    officer = Subject(SubjectType.USER, f"officer-{maya.subject.id}")
    roles = {officer: "privacy_officer", maya.subject: "platform_admin"}
    maya.client.write(
        [Mutation(Operation.TOUCH, Membership(who, PLATFORM, role)) for who, role in roles.items()]
    )
    by_officer = maya.client.with_options(acting_for=str(officer)).privacy
    by_officer.hold(maya.subject, reason="case 12")
    by_officer.release_hold(maya.subject, reason="settled")


async def test_certificates_are_listed_page_by_page(maya: Person, address: str) -> None:
    maya.erased()
    person(maya.client).erased()
    everything = [each.erasure.pseudonym.id for each in maya.client.privacy.erasures()]
    found, request = list[str](), ppb.ReadErasuresRequest(page_size=1)
    async with grpc.aio.insecure_channel(address) as channel:
        while len(found) < len(everything):
            page = await Service(channel, address).privacy.ReadErasures(request)
            found += [each.erasure.pseudonym.id for each in page.certificates]
            assert bool(page.next_page_token) == (len(found) < len(everything))
            request.page_token = page.next_page_token
    assert found == everything
    assert maya.client.privacy.erasure_list().database_id == page.database_id != ""


def test_a_person_erases_nobody_whose_role_on_the_platform_the_person_may_not_take(maya: Person) -> None:
    everybody, officer = maya.client, Subject(SubjectType.USER, f"officer-{maya.subject.id}")
    held = Membership(maya.subject, PLATFORM, "platform_admin")
    given = (
        held,
        Membership(ADA, PLATFORM, "platform_admin"),
        Membership(officer, PLATFORM, "privacy_officer"),
    )
    everybody.write([Mutation(Operation.TOUCH, each) for each in given])
    for who, why in ((officer, "has no edit_policy on platform"), (ADA, "rank 100 is not below 100")):
        by_person = everybody.with_options(acting_for=str(who)).privacy
        with pytest.raises(CallError, match=why) as refused:
            by_person.erase(maya.subject, reason=REASON, orphan_resources=True)
        assert refused.value.reason == ErrorReason.PERMISSION_MISSING
        assert held in [each.entity for each in everybody.read(MembershipFilter(subject=maya.subject))]
    roles = [each.entity for each in everybody.read(MembershipFilter(subject=maya.subject, scope=PLATFORM))]
    everybody.write([Mutation(Operation.DELETE, each.key) for each in roles])
    by_officer = everybody.with_options(acting_for=str(officer)).privacy
    with pytest.raises(
        CallError, match="nobody may give themselves the records of another person"
    ) as refused:
        by_officer.erase(maya.subject, reason=REASON, resources_to=officer)
    assert refused.value.reason == ErrorReason.PERMISSION_MISSING
    by_officer.erase(maya.subject, reason=REASON, orphan_resources=True)
    by_officer.erase(officer, reason=REASON, orphan_resources=True)


def test_the_command_prints_a_certificate_and_lists_it(maya: Person, address: str) -> None:
    erase = ("privacy", "erase", str(maya.subject), "--reason", REASON, "--address", address)
    refused = run(*erase, "--yes")
    assert refused.returncode == 2
    assert "--resources-to or --orphan-resources" in refused.stderr
    done = run(*erase, "--orphan-resources", "--yes")
    assert done.returncode == 0, done.stderr
    assert "complete" in done.stdout
    assert "membership records deleted: 2" in done.stdout
    listed = run("privacy", "erasures", "--subject", str(maya.subject), "--address", address)
    (found,) = maya.client.privacy.erasures(maya.subject)
    assert found.erasure.pseudonym.id in listed.stdout
    assert REASON in listed.stdout


def test_the_certificate_of_an_id_that_nobody_has_says_that_nothing_was_found(address: str) -> None:
    options = ("--reason", REASON, "--orphan-resources", "--yes", "--address", address)
    done = run("privacy", "erase", "user:mistyped", *options)
    assert done.returncode == 0, done.stderr
    assert "nothing found: no record, change or decision named the subject" in done.stdout


@pytest.mark.parametrize(
    ("failure", "code"),
    [(KeyboardInterrupt(), 130), (CallError(grpc.StatusCode.UNAVAILABLE, "", "Socket closed"), 2)],
    ids=["Ctrl-C", "the server was killed"],
)
def test_an_interrupted_command_says_that_the_erasure_goes_on(
    maya: Person, address: str, monkeypatch: pytest.MonkeyPatch, failure: BaseException, code: int
) -> None:
    """Interrupted while the command waits until every machine has confirmed."""

    def interrupt(*_: object) -> None:
        raise failure

    monkeypatch.setattr(privacy, "_confirmed", interrupt)
    options = ("--reason", REASON, "--orphan-resources", "--yes", "--address", address)
    done = run("privacy", "erase", str(maya.subject), *options)
    assert done.returncode == code
    assert "an erasure that has begun goes on; see it with: authz privacy erasures" in done.stderr
    assert [*maya.client.privacy.erasures(maya.subject)]


def test_a_refused_erasure_does_not_seem_to_have_begun(maya: Person, address: str) -> None:
    options = ("--reason", REASON, "--resources-to", str(maya.subject), "--yes", "--address", address)
    refused = run("privacy", "erase", str(maya.subject), *options)
    assert refused.returncode == 2
    assert "goes on" not in refused.stderr
