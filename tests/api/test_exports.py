"""Everything that is held about a person, as a call and as a command, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest

from authz.cli.export_json import json_lines
from authz.cli.export_page import page_lines
from authz.client import AsyncClient, CallError, Client
from authz.domain.entities import (
    AccessToken,
    Account,
    AccountKey,
    AccountStatus,
    Course,
    CourseKey,
    CourseState,
    Entity,
    Hold,
    Membership,
    MembershipFilter,
    MembershipKey,
    MembershipStatus,
    PolicyVersion,
    Resource,
    RetainedData,
    Session,
    SessionKey,
    SessionState,
    Share,
    ShareKey,
    ShareLevel,
    Visibility,
)
from authz.domain.errors import ErrorReason
from authz.domain.exports import (
    ExportedChange,
    ExportedEntry,
    ExportItem,
    ExportRelation,
    ExportSection,
    SubjectExport,
)
from authz.domain.ids import PLATFORM, ResourceRef, course_scope, parse_subject, session_scope
from authz.domain.mutations import Mutation, Operation, update
from tests.cli.commands import run
from tests.databases import create_sqlite
from tests.importers.exports import at
from tests.serving import served

MAYA, MAYA_2, ADA, STU = (parse_subject(f"user:{name}") for name in ("maya", "maya.2", "ada", "stu"))
ALGEBRA, SEMINAR = course_scope("algebra"), session_scope("seminar")
DIARY, ESSAY, NOTES = (ResourceRef("notebook", name) for name in ("diary", "essay", "notes"))


def notebook(ref: ResourceRef, owner: Any, **fields: Any) -> Resource:
    return Resource(ref.type, ref.id, scope=ALGEBRA, owner=owner, visibility=Visibility.PRIVATE, **fields)


CAMPUS: list[Entity] = [
    Course("algebra", state=CourseState.ACTIVE),
    Course("biology", state=CourseState.ACTIVE),
    Session("seminar", course_id="algebra", state=SessionState.LIVE),
    Membership(ADA, ALGEBRA, "teacher"),
    Membership(MAYA, ALGEBRA, "student", source_ref="sis-77"),
    Membership(MAYA, SEMINAR, "attendee"),
    Membership(MAYA_2, ALGEBRA, "student"),
    Membership(STU, ALGEBRA, "student"),
    Membership(STU, course_scope("biology"), "student"),
    notebook(DIARY, MAYA),
    notebook(ESSAY, MAYA),
    notebook(NOTES, STU),
    Share(NOTES, MAYA, ShareLevel.VIEWER),
    Share(ESSAY, STU, ShareLevel.EDITOR),
    Account(MAYA),
]


@pytest.fixture(scope="module")
def address(shared_store_url: str) -> Iterator[str]:
    with served(shared_store_url) as found, Client(found) as client:
        client.write([Mutation(Operation.CREATE, each) for each in CAMPUS], reason="autumn")
        yield found


def exported(items: Iterator[ExportItem]) -> SubjectExport:
    """The export as a reader of its JSON has it."""
    return msgspec.json.decode("".join(json_lines(items)), type=SubjectExport)


def about(export: SubjectExport) -> list[str]:
    return [str(each.record.key) for each in export.records if each.relation is ExportRelation.ABOUT]


def test_every_record_about_a_person_is_exported_with_what_it_refers_to(client: Client) -> None:
    export = exported(client.privacy.export("user:maya"))
    assert about(export) == [
        "account of user:maya",
        "membership user:maya student in course:algebra",
        "membership user:maya attendee in session:seminar",
        "notebook:diary",
        "notebook:essay",
        "share of notebook:notes with user:maya",
        "share of notebook:essay with user:stu",
    ]
    context = [each.record for each in export.records if each.relation is ExportRelation.CONTEXT]
    assert [str(each.key) for each in context] == ["course:algebra", "session:seminar", "notebook:notes"]


def test_changes_about_a_person_and_by_a_person_are_exported_and_name_nobody_else(client: Client) -> None:
    ada = client.with_options(acting_for="user:ada")
    ada.write([Mutation(Operation.DELETE, MembershipKey(STU, ALGEBRA, "student"))], reason="left")
    ada.write([Mutation(Operation.CREATE, Membership(STU, ALGEBRA, "student"))], reason="came back")
    by_ada = [each for each in exported(client.privacy.export("user:ada")).changes if "ada" in each.actor]
    assert [(each.reason, *map(str_key, each.mutations)) for each in by_ada] == [
        (
            "left",
            "membership user:other student in course:algebra",
            "share of notebook:essay with user:other",
        ),
        ("came back", "membership user:other student in course:algebra"),
    ]
    of_stu = exported(client.privacy.export("user:stu"))
    assert {each.actor for each in of_stu.changes} == {
        "unauthenticated",
        "unauthenticated for user:other",
    }
    for each in of_stu.changes:
        assert "maya" not in names_in(each)
        assert "ada" not in names_in(each)


def test_what_others_did_about_a_person_names_them_nowhere(tmp_path: Path) -> None:
    url = create_sqlite(tmp_path / "authz.db")
    with served(url) as address, Client(address) as client:
        admin = [Mutation(Operation.CREATE, Membership(ADA, PLATFORM, "platform_admin"))]
        client.write([Mutation(Operation.CREATE, each) for each in CAMPUS] + admin)
        ada = client.with_options(acting_for="user:ada")
        files = client.policies.files()
        for caller, author in (
            (client, "user:ada"),
            (client, "ada@school.test"),
            (ada, ""),
            (client, "user:maya"),
        ):
            files["default.csv"] += "\n# More.\n"
            caller.policies.apply(files, author=author, reason="as user:maya asked")
        ada.privacy.hold("user:maya", reason="a case")
        ada.privacy.restrict("user:maya", reason="disputed")
        export = exported(client.privacy.export("user:maya"))
    targets = [each.target for change in export.changes for each in change.mutations]
    authors = [each.author for each in targets if isinstance(each, PolicyVersion)]
    assert authors == ["somebody else"] * 3 + ["user:maya"]
    assert [each.actor for each in targets if isinstance(each, Hold)] == ["unauthenticated for user:other"]
    assert "ada" not in msgspec.json.encode(export).decode()


def str_key(mutation: Mutation) -> str:
    return str(mutation.key)


def names_in(change: ExportedChange) -> str:
    return msgspec.json.encode(change).decode()


def test_a_person_whose_id_begins_with_that_of_another_is_somebody_else(client: Client) -> None:
    export = exported(client.privacy.export("user:maya.2"))
    assert about(export) == ["membership user:maya.2 student in course:algebra"]
    assert [str_key(each) for change in export.changes for each in change.mutations] == about(export)


def test_drafts_versions_and_idempotency_keys_that_name_a_person_are_exported(client: Client) -> None:
    draft = client.policies.drafts.create("wider", author="user:maya")
    client.policies.drafts.delete(draft)
    client.policies.drafts.create("narrower", author="user:maya")
    files = client.policies.files()
    files["default.csv"] += "\n# asked for by user:maya, and not by user:maya.2\n"
    client.policies.apply(files, reason="as user:maya asked")
    maya = client.with_options(acting_for="user:maya")
    maya.write([Mutation(Operation.DELETE, DIARY)], idempotency_key="drop-diary")
    entries = exported(client.privacy.export("user:maya")).entries
    others = [each for each in entries if each.section is not ExportSection.POLICY_VERSIONS]
    assert [(each.section, each.name) for each in others] == [
        (ExportSection.IDEMPOTENCY_KEYS, "drop-diary"),
        (ExportSection.POLICY_DRAFTS, "draft narrower"),
    ]
    versions = [each for each in entries if each.section is ExportSection.POLICY_VERSIONS]
    assert [each.text for each in versions] == [
        "reason: as user:maya asked",
        "# asked for by user:maya, and not by user:maya.2",
    ]
    assert exported(client.privacy.export("user:maya.2")).counts[ExportSection.POLICY_VERSIONS] == 1


def test_a_token_is_exported_without_its_digest(client: Client) -> None:
    token = client.create_access_token("service:sync", ends_at=4_000_000_000_000_000)
    export = exported(client.privacy.export("service:sync"))
    records = [each.record for each in export.records]
    assert [each.digest for each in records if isinstance(each, AccessToken)] == [""]
    logged = [each.target for change in export.changes for each in change.mutations]
    assert [each.digest for each in logged if isinstance(each, AccessToken)] == [""]
    assert token.split("_")[1] == records[0].id  # type: ignore[union-attr]  # a token


def test_an_asynchronous_client_gets_the_same_items(client: Client, address: str) -> None:
    async def items() -> list[ExportItem]:
        async with AsyncClient(address) as found:
            return [item async for item in found.privacy.export("user:ada")]

    assert asyncio.run(items()) == [*client.privacy.export("user:ada")]


def test_the_export_says_how_long_each_section_is_kept_and_how_much_it_had(client: Client) -> None:
    export = exported(client.privacy.export("user:nobody"))
    assert [each.section for each in export.retention] == [*ExportSection]
    assert export.counts == dict.fromkeys(ExportSection, 0)
    kept = {each.section: each.kept for each in export.retention}
    assert kept[ExportSection.DECISIONS] == "365 days"
    client.privacy.set_retention(RetainedData.DECISIONS, None, reason="disclosures of a school")
    after = exported(client.privacy.export("user:nobody"))
    assert {each.section: each.kept for each in after.retention}[ExportSection.DECISIONS] == "forever"


def test_whoever_asks_for_a_person_needs_the_role_of_a_privacy_officer(client: Client) -> None:
    dpo = parse_subject("user:dpo")
    client.write([Mutation(Operation.TOUCH, Membership(dpo, PLATFORM, "privacy_officer"))])
    for person in ("user:dpo", "user:maya"):
        assert [*client.with_options(acting_for=person).privacy.export("user:maya")]
    with pytest.raises(CallError, match="user:ada has no export_subject on api") as refused:
        list(client.with_options(acting_for="user:ada").privacy.export("user:maya"))
    assert refused.value.reason == ErrorReason.PERMISSION_MISSING


class Cells(HTMLParser):
    """The cells of a page, and whether its tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag != "meta":
            self._open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "td":
            self.cells[-1] += data


def test_the_page_shows_the_records_and_escapes_what_they_say(client: Client, address: str) -> None:
    ref = Membership(STU, ALGEBRA, "student", source_ref="<script>alert(1)</script>")
    client.write([Mutation(Operation.TOUCH, ref)])
    printed = run("privacy", "export", "user:stu", "--format", "html", "--address", address)
    page = Cells()
    page.feed(printed.stdout)
    assert "membership user:stu student in course:biology" in page.cells
    assert "status: ACTIVE, source_ref: <script>alert(1)</script>" in page.cells
    became = "wrote membership user:stu student in course:algebra (status: ACTIVE, source_ref: <script>"
    assert any(became in cell for cell in page.cells)
    assert any("ai_enabled: no, edit_window: 900 s" in cell for cell in page.cells)
    assert "<script" not in printed.stdout
    assert printed.stdout.index("Records about you") < printed.stdout.index("How long it is kept")
    assert "This page is complete." in printed.stdout


def test_each_heading_of_the_page_comes_once(address: str) -> None:
    printed = run("privacy", "export", "user:maya", "--format", "html", "--address", address)
    headings = re.findall("<h2>(.*?)</h2>", printed.stdout)
    assert "Courses, sessions and resources that your records refer to" in headings
    assert len(headings) == len({*headings})


def test_the_page_shows_what_names_a_person_besides_the_log_in_the_columns_of_changes() -> None:
    entry = ExportedEntry(ExportSection.CHANGES, "an erasure", "actor: service:dpo for user:ada")
    page = Cells()
    page.feed("".join(page_lines([entry])))
    assert page.cells == ["", "", "actor: service:dpo for user:ada", "an erasure"]


def test_the_schema_names_every_field_of_the_document() -> None:
    schema = json.loads(run("privacy", "schema").stdout)
    assert schema["$defs"]["SubjectExport"]["required"] == list(SubjectExport.__struct_fields__)


def test_the_records_of_an_export_give_the_same_answers_in_an_empty_service(tmp_path: Path) -> None:
    before, after = (create_sqlite(tmp_path / f"{name}.db") for name in ("before", "after"))
    file = tmp_path / "maya.json"
    with ExitStack() as stack:
        there = stack.enter_context(Client(stack.enter_context(served(before))))
        there.write([Mutation(Operation.CREATE, each) for each in CAMPUS])
        address = stack.enter_context(served(after))
        here = stack.enter_context(Client(address))
        with file.open("w") as written:
            written.writelines(f"{line}\n" for line in json_lines(there.privacy.export("user:maya")))
        document = json.loads(file.read_text())
        del document["records"][-1]
        cut = tmp_path / "cut.json"
        cut.write_text(json.dumps(document))
        refused = run("import", "subject", cut, "--address", address)
        assert (refused.returncode, [*here.read(MembershipFilter())]) == (2, [])
        assert "has 9 items of RECORDS, and says 10; export the subject again" in refused.stderr
        imported = run("import", "subject", file, "--address", address)
        assert imported.stdout == "written 10, unchanged 0, failed 0\n", imported.stderr
        for service in (there, here):
            assert service.check("user:maya", "read", NOTES).allowed
        notebooks = product(("read", "update", "delete", "share"), (DIARY, ESSAY, NOTES))
        asked = [
            *notebooks,
            ("read", ResourceRef("course", "algebra")),
            ("join", ResourceRef("session", "seminar")),
            ("read", ResourceRef("course", "biology")),
        ]
        for action, ref in asked:
            found, given = (service.check("user:maya", action, ref) for service in (there, here))
            assert (found.allowed, found.rule) == (given.allowed, given.rule), (action, ref)
        assert not here.check("user:stu", "read", ESSAY).allowed


@pytest.mark.parametrize(
    "ending",
    [
        update(AccountKey(MAYA), status=AccountStatus.SUSPENDED),
        update(AccountKey(MAYA), status=AccountStatus.SUSPENDED, suspended_until=at("2096-01-01")),
        update(MembershipKey(MAYA, ALGEBRA, "student"), status=MembershipStatus.SUSPENDED),
        update(MembershipKey(MAYA, ALGEBRA, "student"), suspended_until=at("2096-01-01")),
        update(MembershipKey(MAYA, ALGEBRA, "student"), status=MembershipStatus.COMPLETED),
        update(CourseKey("algebra"), state=CourseState.ARCHIVED),
        update(SessionKey("seminar"), state=SessionState.ENDED),
        update(DIARY, owner=STU),
        update(DIARY, locked=True),
        update(NOTES, visibility=Visibility.COURSE),
        update(ShareKey(NOTES, MAYA), level=ShareLevel.EDITOR),
        update(ShareKey(ESSAY, STU), level=ShareLevel.VIEWER),
    ],
    ids=lambda ending: str(ending.key),
)
def test_the_import_of_an_export_changes_no_record_that_is_there(tmp_path: Path, ending: Mutation) -> None:
    with served(create_sqlite(tmp_path / "authz.db")) as address, Client(address) as client:
        client.write([Mutation(Operation.CREATE, each) for each in CAMPUS])
        file = tmp_path / "maya.json"
        file.write_text(run("privacy", "export", "user:maya", "--address", address).stdout)
        client.write([ending])
        before = client.current_token()
        imported = run("import", "subject", file, "--address", address)
        assert imported.returncode == 0, imported.stderr
        text = f"{ending.key} is there already, and not as in the export; it stays as it is"
        assert text in imported.stderr
        assert client.current_token() == before


def test_a_record_that_the_policy_elsewhere_does_not_know_fails_alone(tmp_path: Path) -> None:
    with served(create_sqlite(tmp_path / "authz.db")) as address, Client(address) as client:
        client.write([Mutation(Operation.CREATE, each) for each in CAMPUS])
        printed = run("privacy", "export", "user:maya", "--address", address).stdout
    file = tmp_path / "maya.json"
    file.write_text(printed.replace('"type":"notebook","id":"diary"', '"type":"wiki","id":"diary"'))
    imported = run("import", "subject", file, "--database", f"sqlite:///{tmp_path / 'other.db'}")
    assert (imported.returncode, imported.stdout) == (1, "written 9, unchanged 0, failed 1\n")
    assert "unknown resource type `wiki`" in imported.stderr


def test_a_file_that_is_no_export_is_refused_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "maya.json"
    file.write_text('{"format":"authz-subject-export-1"}')
    refused = run("import", "subject", file, "--database", f"sqlite:///{tmp_path / 'authz.db'}")
    assert refused.returncode == 2
    assert "maya.json is no export of a subject" in refused.stderr
    assert "authz privacy export" in refused.stderr
