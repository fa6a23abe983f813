"""A restricted person has no access through any call, until the restriction is lifted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from authz.client import CallError, Client, DecisionCache, check_request
from authz.domain.entities import (
    Account,
    AccountStatus,
    Course,
    CourseState,
    Entity,
    EntityKind,
    Membership,
    Resource,
    Restriction,
    Session,
    SessionState,
    Visibility,
)
from authz.domain.errors import ErrorReason
from authz.domain.explanation import ChangeKind
from authz.domain.ids import PLATFORM, ResourceRef, Subject, SubjectType, course_scope
from authz.domain.lists import PlanKind
from authz.domain.mutations import Mutation, Operation
from tests.cli.commands import run
from tests.serving import served
from tests.waiting import until

REASON = "request 2096-21: disputed"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def address(shared_sqlite_url: str) -> Iterator[str]:
    with served(shared_sqlite_url) as found:
        yield found


class Person(msgspec.Struct):
    """A student with a notebook in a course of their own, beside another student and its teacher."""

    client: Client
    number: int

    def user(self, name: str) -> Subject:
        return Subject(SubjectType.USER, f"{name}-{self.number}")

    @property
    def maya(self) -> Subject:
        return self.user("maya")

    @property
    def diary(self) -> ResourceRef:
        return ResourceRef("notebook", f"diary-{self.number}")

    @property
    def records(self) -> list[Entity]:
        course, session = f"algebra-{self.number}", f"monday-{self.number}"
        scope = course_scope(course)
        return [
            Course(course, state=CourseState.ACTIVE),
            Session(session, course_id=course, state=SessionState.LIVE, open_to_course=True),
            Membership(self.maya, scope, "student"),
            Membership(self.user("omar"), scope, "student"),
            Membership(self.user("ada"), scope, "teacher"),
            Resource(
                self.diary.type, self.diary.id, scope=scope, owner=self.maya, visibility=Visibility.COURSE
            ),
            Account(self.maya),
        ]

    def answers(self, name: str, client: Client | None = None) -> list[bool]:
        """What somebody may do, by every call that says so."""
        asked, who = client or self.client, self.user(name)
        checked = [asked.check(who, action, self.diary).allowed for action in ("read", "update", "delete")]
        (batched,) = asked.batch_check([check_request(who, "read", self.diary)])
        holders = [each.subject for each in asked.list_subjects("read", self.diary)]
        listed = [each.resource for each in asked.list_resources(who, "read", "notebook")]
        return [
            *checked,
            batched.allowed,
            asked.list_actions(who, self.diary)["read"].allowed,
            str(self.diary) in listed,
            str(who) in holders,
            asked.plan_resources(who, "read", "notebook").kind is not PlanKind.NEVER,
            asked.explain(who, "read", self.diary).answer.allowed,
            bool(asked.authorize_session(who, f"monday-{self.number}")),
        ]


@pytest.fixture
def person(address: str) -> Iterator[Person]:
    with Client(address) as client:
        found = Person(client, next(_numbers))
        client.write([Mutation(Operation.CREATE, each) for each in found.records])
        yield found


def test_a_restriction_takes_all_access_whatever_is_written_until_it_is_lifted(person: Person) -> None:
    client, maya = person.client, person.maya
    everybody = ("maya", "omar", "ada")
    before = {name: person.answers(name) for name in everybody}
    assert any(before["maya"])
    token = client.privacy.restrict(maya, reason=REASON)
    assert token.replicated
    writes = [
        Mutation(Operation.TOUCH, Account(maya, AccountStatus.SUSPENDED)),
        Mutation(Operation.TOUCH, Account(maya)),
        Mutation(Operation.DELETE, Account(maya).key),
        *(Mutation(Operation.TOUCH, each) for each in person.records),
    ]
    for write in (None, *writes):
        if write is not None:
            client.write([write])
        assert not any(person.answers("maya"))
        assert {name: person.answers(name) for name in ("omar", "ada")} == {
            name: before[name] for name in ("omar", "ada")
        }
    client.privacy.lift_restriction(maya, reason="settled")
    assert {name: person.answers(name) for name in everybody} == before


def test_an_explanation_says_that_it_is_the_restriction_and_tells_the_person_less(person: Person) -> None:
    person.client.privacy.restrict(person.maya, reason=REASON)
    found = person.client.explain(person.maya, "read", person.diary)
    assert (found.restricted, found.account_suspended) == (True, False)
    assert [[each.kind for each in some] for some in found.nearest_grants] == [[ChangeKind.RESTRICTION]]
    assert "restrict" not in found.message
    assert REASON not in repr(found)


def test_the_past_is_explained_as_it_was(person: Person) -> None:
    maya, at = person.maya, [datetime.now(UTC)]
    person.client.privacy.restrict(maya, reason=REASON)
    at.append(datetime.now(UTC))
    person.client.privacy.lift_restriction(maya, reason="settled")
    at.append(datetime.now(UTC))
    told = [person.client.explain(maya, "read", person.diary, as_of=each) for each in at]
    assert [(each.answer.allowed, each.restricted) for each in told] == [
        (True, False),
        (False, True),
        (True, False),
    ]
    for each, is_reader in zip(at, (True, False, True), strict=True):
        readers = [found.subject for found in person.client.list_subjects("read", person.diary, as_of=each)]
        assert (str(maya) in readers) is is_reader


def test_who_may_read_accounts_learns_of_it_without_the_reason(person: Person, address: str) -> None:
    begun = person.client.write([Mutation(Operation.TOUCH, person.records[0])])
    changes = person.client.watch(after=str(begun), kinds=[EntityKind.RESTRICTION])
    person.client.privacy.restrict(person.maya, reason=REASON)
    change = next(iter(changes))
    assert [str(each.key) for each in change.mutations] == [f"restriction of {person.maya}"]
    (logged,) = person.client.audit.changes(kinds=[EntityKind.RESTRICTION], subject=person.maya)
    assert logged.reason == REASON
    with Client(address, cache=DecisionCache()) as keeping:
        person.client.privacy.lift_restriction(person.maya, reason="settled")
        until(lambda: keeping.check(person.maya, "read", person.diary).allowed)
        person.client.privacy.restrict(person.maya, reason=REASON)
        until(lambda: not keeping.check(person.maya, "read", person.diary).allowed)
        keeping.privacy.lift_restriction(person.maya, reason="settled")
        assert keeping.check(person.maya, "read", person.diary).allowed


def test_it_is_listed_with_its_reason_and_no_ordinary_write_makes_or_ends_one(person: Person) -> None:
    person.client.privacy.restrict(person.maya, reason=REASON)
    (found,) = [
        each
        for each in person.client.privacy.restrictions()
        if each.restriction.entity.subject == person.maya
    ]
    assert (found.reason, found.actor) == (REASON, "unauthenticated")
    with pytest.raises(CallError, match="which only PrivacyService writes"):
        person.client.write([Mutation(Operation.DELETE, found.restriction.entity.key)])
    with pytest.raises(CallError, match="which only PrivacyService writes"):
        person.client.write([Mutation(Operation.TOUCH, Restriction(person.user("omar"), 1))])


def test_the_last_administrator_is_not_restricted_and_a_restricted_one_does_not_count(person: Person) -> None:
    client, ada = person.client, person.user("ada")
    roles = [Membership(each, PLATFORM, "platform_admin") for each in (person.maya, ada)]
    client.write([Mutation(Operation.CREATE, roles[0])])
    with pytest.raises(CallError, match="first make somebody else `platform_admin`") as refused:
        client.privacy.restrict(person.maya, reason=REASON)
    assert refused.value.reason == ErrorReason.LAST_ADMINISTRATOR
    client.write([Mutation(Operation.CREATE, roles[1])])
    client.privacy.restrict(person.maya, reason=REASON)
    with pytest.raises(CallError, match="first make somebody else `platform_admin`"):
        client.write([Mutation(Operation.DELETE, roles[1].key)])
    client.privacy.lift_restriction(person.maya, reason="settled")
    client.write([Mutation(Operation.DELETE, roles[1].key)])
    client.write([Mutation(Operation.CREATE, roles[1])])
    client.privacy.restrict(ada, reason=REASON)  # the other one counts again


def test_who_restricts_for_a_person_needs_the_role_and_a_higher_rank(person: Person) -> None:
    officer, ada = person.user("officer"), person.user("ada")
    given = [
        Membership(officer, PLATFORM, "privacy_officer"),
        Membership(person.maya, PLATFORM, "platform_admin"),
        Membership(ada, PLATFORM, "platform_admin"),
    ]
    person.client.write([Mutation(Operation.TOUCH, each) for each in given])
    by_student = person.client.with_options(acting_for=str(person.user("omar"))).privacy
    for call in (
        lambda: by_student.restrict(person.maya, reason=REASON),
        lambda: by_student.lift_restriction(person.maya, reason=REASON),
        by_student.restrictions,
    ):
        with pytest.raises(CallError, match="has no erase_subject on api"):
            call()
    by_officer = person.client.with_options(acting_for=str(officer)).privacy
    for subject in (person.maya, officer):
        with pytest.raises(CallError) as refused:
            by_officer.restrict(subject, reason=REASON)
        assert refused.value.reason == ErrorReason.PERMISSION_MISSING
    person.client.privacy.restrict(person.maya, reason=REASON)
    with pytest.raises(CallError, match="has no edit_policy on platform"):
        by_officer.lift_restriction(person.maya, reason=REASON)
    by_officer.restrict(person.user("omar"), reason=REASON)
    by_officer.lift_restriction(person.user("omar"), reason=REASON)
    person.client.privacy.restrict(officer, reason=REASON)
    with pytest.raises(CallError, match=f"on api; the data of {officer} is restricted; a privacy"):
        by_officer.lift_restriction(person.user("omar"), reason=REASON)


def test_every_server_answers_by_it_and_one_that_starts_later(postgresql_url: str) -> None:
    with (
        served(postgresql_url) as one,
        served(postgresql_url) as other,
        Client(one) as client,
        Client(other) as elsewhere,
    ):
        person = Person(client, next(_numbers))
        client.write([Mutation(Operation.CREATE, each) for each in person.records])
        token = client.privacy.restrict(person.maya, reason=REASON)
        assert not elsewhere.check(person.maya, "read", person.diary, at_least_as_fresh=str(token)).allowed
        assert not any(person.answers("maya", elsewhere))
    with served(postgresql_url) as later, Client(later) as client:
        assert not any(person.answers("maya", client))


def test_an_import_of_the_export_restricts_before_it_gives_access(
    person: Person, address: str, tmp_path: Path
) -> None:
    maya, file = str(person.maya), tmp_path / "maya.json"
    person.client.privacy.restrict(person.maya, reason=REASON)
    file.write_text(run("privacy", "export", maya, "--address", address).stdout)
    elsewhere = ("--database", f"sqlite:///{tmp_path / 'other.db'}")
    done = run("import", "subject", str(file), *elsewhere)
    assert done.returncode == 0, done.stderr
    assert f"{maya} is restricted, as in the export: {REASON}\n" in done.stdout
    assert run("import", "subject", str(file), *elsewhere).returncode == 0
    assert run("check", maya, "read", str(person.diary), *elsewhere).returncode == 1
    assert REASON in run("privacy", "restrictions", *elsewhere).stdout
    run("privacy", "lift-restriction", maya, "--reason", "settled", *elsewhere)
    assert run("check", maya, "read", str(person.diary), *elsewhere).returncode == 0


def test_the_commands_restrict_list_and_lift(person: Person, address: str) -> None:
    maya, to = str(person.maya), ("--address", address)
    done = run("privacy", "restrict", maya, "--reason", REASON, *to)
    assert (done.returncode, done.stdout) == (0, f"{maya} is restricted: {REASON}\n")
    listed = run("privacy", "restrictions", *to)
    assert f"{maya} " in listed.stdout
    assert REASON in listed.stdout
    tree = run("explain", maya, "read", str(person.diary), *to)
    assert "the processing of the person's data is restricted" in tree.stdout
    lifted = run("privacy", "lift-restriction", maya, "--reason", "settled", *to)
    assert (lifted.returncode, lifted.stdout) == (0, f"{maya} is restricted no more\n")
    assert run("check", maya, "read", str(person.diary), *to).returncode == 0
