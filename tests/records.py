"""Records of any registered kind, with the records that they are in: made from the types of their fields."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import msgspec
from hypothesis import strategies as st

from authz.domain.entities import Entity, Key, Kind, container_of, kind_of
from authz.domain.errors import InvalidArgumentError
from authz.domain.files import files_text
from authz.domain.ids import PLATFORM, ResourceRef, Scope, Subject, SubjectType, course_scope, session_scope
from authz.domain.instants import MAX_INSTANT, MIN_INSTANT
from authz.domain.kinds.fields import MAX_NUMBER, Field, FieldType
from tests.store.directory import VOCABULARY

IDS = st.text("aZ9._~@+=|/:-", min_size=1, max_size=12) | st.uuids().map(str)
TYPES = st.sampled_from(["notebook", "message"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAMES = st.sampled_from(["model.conf", "default.csv", "tests/courses.yaml", "a-b_c"])
_VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.ID: IDS,
    FieldType.ROLE: st.sampled_from(sorted(VOCABULARY.roles)),
    FieldType.TYPE: TYPES,
    FieldType.TEXT: TEXTS,
    FieldType.FLAG: st.booleans(),
    FieldType.INSTANT: st.integers(MIN_INSTANT, MAX_INSTANT),
    FieldType.DURATION: st.integers(0, 10**9),
    FieldType.SUBJECT: st.builds(Subject, st.sampled_from(SubjectType), IDS),
    FieldType.SCOPE: st.just(PLATFORM) | st.builds(course_scope, IDS) | st.builds(session_scope, IDS),
    FieldType.RESOURCE: st.builds(ResourceRef, TYPES, IDS),
    FieldType.NUMBER: st.integers(1, MAX_NUMBER),
    FieldType.FILES: st.dictionaries(NAMES, TEXTS, min_size=1, max_size=3).map(files_text),
}


@cache
def values(field: Field) -> st.SearchStrategy[Any]:
    """Well-formed values of a field."""
    found = _VALUES[field.type] if field.choices is None else st.sampled_from(field.choices)
    return st.none() | found if field.is_optional else found


def entities(kind: Kind, fixed: Mapping[str, Any] = MappingProxyType({})) -> st.SearchStrategy[Any]:
    """Valid entities of a kind, in which some fields are fixed."""
    return _any_entities(kind).map(lambda found: msgspec.structs.replace(found, **fixed)).filter(is_valid)


# A strategy is validated once, which takes longer than the draws of a test.
@cache
def _any_entities(kind: Kind) -> st.SearchStrategy[Any]:
    fields = {field.name: values(field) for field in kind.fields}
    if kind.name == "share":
        # The chain of records that a share is in has no membership of its subject.
        fields["awaits_membership"] = st.just(value=True)
    if kind.name == "access_token":
        fields["digest"] = st.integers(0, 2**256 - 1).map("{:064x}".format)
        fields["subject"] = st.builds(Subject, st.just(SubjectType.SERVICE), IDS)
    return st.builds(kind.entity, **fields)


@st.composite
def chains(draw: st.DrawFn, kind: Kind, key: Key | None = None) -> list[Entity]:
    """A record of a kind, last, and before it all that it is in, from the outermost on."""
    entity = draw(entities(kind, {} if key is None else msgspec.structs.asdict(key)))
    container = container_of(entity)
    if container is None:
        return [entity]
    outer = draw(chains(kind_of(container), container).filter(lambda chain: fits(entity, chain[-1])))
    return [*outer, entity]


def is_valid(entity: Entity) -> bool:
    """Whether the test's vocabulary allows it."""
    try:
        kind_of(entity).validate(entity, VOCABULARY)
    except InvalidArgumentError:
        return False
    return True


def fits(entity: Entity, container: Entity) -> bool:
    """Whether the container can hold the entity."""
    try:
        kind_of(entity).validate_container(entity, container)
    except InvalidArgumentError:
        return False
    return True


def scope_of(entity: Entity) -> Scope | None:
    """The scope that an entity is, if it is one."""
    kind = kind_of(entity)
    return None if kind.scope is None else Scope(kind.scope, entity.id)  # type: ignore[union-attr]  # a scope
