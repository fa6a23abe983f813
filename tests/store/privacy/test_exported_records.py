"""An export has every record of a person, each once, and the owner of nothing that is somebody else's."""

from __future__ import annotations

from authz.domain.entities import Course, Entity, Resource, Share, ShareLevel
from authz.domain.exports import ExportedRecord, ExportRelation
from authz.domain.ids import ResourceRef, Subject, SubjectType, course_scope
from authz.store import Store
from tests.store.directory import create, open_with, student, user, write

MAYA, STU = user("maya"), user("stu")
SERVICE = Subject(SubjectType.SERVICE, MAYA.id)
ALGEBRA = course_scope("algebra")


def notebook(name: str, owner: Subject | None) -> Resource:
    return Resource("notebook", name, ALGEBRA, owner=owner)


def shared(name: str, subject: Subject) -> Share:
    ref = ResourceRef("notebook", name)
    return Share(resource=ref, subject=subject, level=ShareLevel.VIEWER, awaits_membership=True)


def records(store: Store, relation: ExportRelation) -> list[Entity]:
    with store.personal_data.export(MAYA) as export:
        found = [each for each in export.items() if isinstance(each, ExportedRecord)]
    return [each.record for each in found if each.relation is relation]


def test_each_share_of_what_a_person_owns_is_exported_once_with_whomever_it_is(store_url: str) -> None:
    store = open_with(store_url)
    given = [shared("diary", each) for each in (MAYA, SERVICE, STU)]
    others = [shared("notes", each) for each in (SERVICE, STU)]
    write(store, create(Course("algebra")), create(notebook("diary", MAYA)), create(notebook("notes", STU)))
    write(store, *map(create, given + others))
    found = [each for each in records(store, ExportRelation.ABOUT) if isinstance(each, Share)]
    assert sorted(found, key=lambda each: str(each.subject)) == sorted(
        given, key=lambda each: str(each.subject)
    )
    store.close()


def test_what_is_shared_with_a_person_is_exported_without_its_owner_whoever_that_is(store_url: str) -> None:
    store = open_with(store_url)
    owned = [notebook("notes", STU), notebook("of-a-service", SERVICE), notebook("of-nobody", None)]
    write(store, create(Course("algebra")), create(student("maya", "algebra")), *map(create, owned))
    write(store, *(create(shared(each.id, MAYA)) for each in owned))
    found = [each for each in records(store, ExportRelation.CONTEXT) if isinstance(each, Resource)]
    assert found == [notebook(each.id, None) for each in owned]
    assert not [each for each in records(store, ExportRelation.ABOUT) if isinstance(each, Resource)]
    store.close()
