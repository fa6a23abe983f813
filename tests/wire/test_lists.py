"""Lists as messages and back."""

from __future__ import annotations

import pytest

from authz.domain.decisions import Rule
from authz.domain.errors import InvalidArgumentError
from authz.domain.ids import PLATFORM, course_scope, parse_subject
from authz.domain.lists import ListedResource, ListedSubject
from authz.v1 import authorization_pb2 as pb
from authz.wire.decisions import rule_message
from authz.wire.lists import add_subject, parse_list_resources, parse_list_subjects, resources_message
from authz.wire.values import scope_message, subject_message

RULE = Rule("teacher", "*", "notebook", "read", "", "allow", "default.csv:7")
MAYA = parse_subject("user:maya")


def test_a_subject_is_listed_with_the_role_and_the_rule_that_let_it_in() -> None:
    response, scope = pb.ListSubjectsResponse(), course_scope("algebra")
    add_subject(response, ListedSubject(MAYA, "teacher", scope, "owner", RULE))
    (found,) = response.subjects
    assert (found.role, found.membership_role) == ("teacher", "owner")
    assert (found.subject, found.scope) == (subject_message(MAYA), scope_message(scope))
    assert found.rule == rule_message(RULE)


def test_a_resource_is_listed_with_its_course_and_its_session() -> None:
    places = [("algebra", "s-1"), ("algebra", None), (None, "s-1")]
    message = resources_message(ListedResource("notebook", "n", *place) for place in places)
    found = [(each.type, each.id, each.course_id, each.session_id) for each in message.resources]
    assert found == [("notebook", "n", course or "", session or "") for course, session in places]


def test_a_list_is_asked_for_with_each_type_once_and_not_of_the_platform() -> None:
    request = pb.ListResourcesRequest(
        subject=subject_message(MAYA), action="read", types=["quiz", "notebook", "quiz"], purpose="p"
    )
    query = parse_list_resources(request)
    assert (query.types, query.within, query.purpose) == (("quiz", "notebook"), None, "p")
    request.scope.CopyFrom(scope_message(PLATFORM))
    with pytest.raises(InvalidArgumentError, match="scope is the platform"):
        parse_list_resources(request)


def test_subjects_are_asked_for_with_the_purpose_and_the_time() -> None:
    resource = pb.ResourceQuery(type="notebook", id="n")
    request = pb.ListSubjectsRequest(action="read", resource=resource, purpose="p")
    request.as_of.FromMicroseconds(7)
    question, as_of = parse_list_subjects(request)
    assert (question.action, question.resource.id, question.purpose, as_of) == ("read", "n", "p", 7)
    with pytest.raises(InvalidArgumentError, match="resource is missing"):
        parse_list_subjects(pb.ListSubjectsRequest(action="read"))
