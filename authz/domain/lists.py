"""Queries for what a subject may act upon and for who may act, and their answers."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

from authz.domain.decisions import Question, Rule
from authz.domain.ids import ResourceRef, Scope, Subject
from authz.domain.predicates import Predicate

Position: TypeAlias = tuple[str, ...]
"""Where a page ended: the next one begins behind it, at its own revision."""


class ResourceQuery(msgspec.Struct, frozen=True):
    """On what of `types` may `subject` perform `action`: everywhere, in a course with its sessions, or in a
    session? Every type knows the action, which is not `create`."""

    subject: Subject
    action: str
    types: tuple[str, ...]
    within: Scope | None = None
    purpose: str = ""

    def question(self, resource: ResourceRef) -> Question:
        """The question about one resource, or about a type where it has no id."""
        return Question(self.subject, self.action, resource, purpose=self.purpose)


class ListedResource(msgspec.Struct, frozen=True, gc=False):
    """A resource that the subject may act upon, and the course and the session that it is in."""

    type: str
    id: str
    course_id: str | None
    session_id: str | None

    @property
    def ref(self) -> ResourceRef:
        """Its type and id."""
        return ResourceRef(self.type, self.id)


class ListedSubject(msgspec.Struct, frozen=True, gc=False):
    """A subject that may act upon the resource, and the rule that allows it.

    `role` is the one by which the rule speaks to the subject. A membership in `scope`, as `grant_role`, gives
    it.
    """

    subject: Subject
    role: str
    scope: Scope
    grant_role: str
    rule: Rule


class PlanKind(StrEnum):
    """Whether a subject may act upon every resource of a type, upon none, or upon those of some groups."""

    ALWAYS = "ALWAYS"
    NEVER = "NEVER"
    CONDITIONAL = "CONDITIONAL"


class PlanGroup(msgspec.Struct, frozen=True):
    """The resources in some courses, but not in a session of theirs, and in some sessions, for which a
    predicate holds; all of them without one."""

    course_ids: tuple[str, ...]
    session_ids: tuple[str, ...]
    predicate: Predicate | None
