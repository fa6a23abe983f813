"""Requests that a caller may get wrong, each with its method, its reason and what the answer names."""

from __future__ import annotations

from typing import Any

from google.protobuf import duration_pb2, timestamp_pb2

from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from tests.api.test_api import ALGEBRA, COURSE, MAYA, question, touch

LONG = "x" * 50_000
MANY = 1001
EARLY, LATE = timestamp_pb2.Timestamp(seconds=1), timestamp_pb2.Timestamp(seconds=2)


def ask(type_name: str = "material", **query: Any) -> apb.CheckRequest:
    resource = apb.ResourceQuery(type=type_name, **{"id": "m-1", **query})
    return apb.CheckRequest(subject=MAYA, action="read", resource=resource)


def fresh(token: str) -> pb.Consistency:
    return pb.Consistency(at_least_as_fresh=pb.ConsistencyToken(token=token))


def write(*mutations: dpb.Mutation, **fields: Any) -> dpb.WriteRequest:
    return dpb.WriteRequest(mutations=mutations or [COURSE], **fields)


def enrol(**fields: Any) -> dpb.Mutation:
    return touch(membership=pb.Membership(**{"subject": MAYA, "scope": ALGEBRA, "role": "student", **fields}))


def register(**fields: Any) -> dpb.Mutation:
    return touch(resource=pb.Resource(**{"type": "material", "id": "m-1", "scope": ALGEBRA, **fields}))


def course(**fields: Any) -> dpb.Mutation:
    return touch(course=pb.Course(**{"id": "algebra", **fields}))


Case = tuple[str, Any, str, str]
CASES: dict[str, Case] = {
    # Check, BatchCheck, ListActions
    "a type of many characters": ("Check", ask(LONG), "MALFORMED_FIELD", "resource.type"),
    "a type beyond ASCII": ("Check", ask("m\u00e4t"), "MALFORMED_FIELD", r"m\xe4t"),
    "a type with a control character": ("Check", ask("mat\x1b"), "MALFORMED_FIELD", r"mat\x1b"),
    "no type": ("Check", ask(""), "MISSING_FIELD", "resource.type"),
    "an action of many characters": ("Check", question(LONG), "UNKNOWN_ACTION", "xxx"),
    "an action with a NUL": ("Check", question("re\x00ad"), "UNKNOWN_ACTION", r"re\x00ad"),
    "a resource id of many characters": ("Check", ask(id=LONG), "MALFORMED_ID", "resource.id"),
    "a course id with a space": ("Check", ask(course_id="a b"), "MALFORMED_ID", "resource.course_id"),
    "a session id with a newline": ("Check", ask(session_id="a\n"), "MALFORMED_ID", "resource.session_id"),
    "a request id of many characters": ("Check", question(request_id=LONG), "MALFORMED_ID", "request_id"),
    "a long token": ("Check", question(consistency=fresh(LONG)), "MALFORMED_TOKEN", "token"),
    "a token beyond ASCII": ("Check", question(consistency=fresh("\u00e4")), "MALFORMED_TOKEN", "token"),
    "a described resource of the platform": (
        "Check",
        ask(inline=apb.InlineResource(scope=pb.Scope(platform=pb.Platform()))),
        "MALFORMED_FIELD",
        "resource.inline.scope",
    ),
    "a described resource of nowhere": (
        "Check",
        ask(inline=apb.InlineResource()),
        "MISSING_FIELD",
        "resource.inline.scope",
    ),
    "a described resource of another visibility": (
        "Check",
        ask(inline=apb.InlineResource(scope=ALGEBRA, visibility=9)),  # type: ignore[arg-type]  # not a member
        "MALFORMED_FIELD",
        "resource.inline.visibility",
    ),
    "no question in a batch": ("BatchCheck", apb.BatchCheckRequest(), "MISSING_FIELD", "items"),
    "a batch with too many questions": (
        "BatchCheck",
        apb.BatchCheckRequest(items=[ask()] * MANY),
        "TOO_MANY_ITEMS",
        "items",
    ),
    "a batch with a bad token": (
        "BatchCheck",
        apb.BatchCheckRequest(items=[ask()], consistency=fresh("no")),
        "MALFORMED_TOKEN",
        "token",
    ),
    "actions of nothing": ("ListActions", apb.ListActionsRequest(subject=MAYA), "MISSING_FIELD", "resource"),
    "actions of an unknown type": (
        "ListActions",
        apb.ListActionsRequest(subject=MAYA, resource=apb.ResourceQuery(type="materiel", id="m")),
        "UNKNOWN_TYPE",
        "materiel",
    ),
    "actions before creation, but nowhere": (
        "ListActions",
        apb.ListActionsRequest(subject=MAYA, resource=apb.ResourceQuery(type="material")),
        "MISSING_FIELD",
        "resource.course_id",
    ),
    # Write
    "nothing to write": ("Write", dpb.WriteRequest(), "MISSING_FIELD", "mutations"),
    "too many mutations": ("Write", write(*[COURSE] * MANY), "TOO_MANY_ITEMS", "mutations"),
    "too many preconditions": (
        "Write",
        write(preconditions=[dpb.Precondition()] * MANY),
        "TOO_MANY_ITEMS",
        "preconditions",
    ),
    "the same course twice": ("Write", write(COURSE, COURSE), "DUPLICATE_MUTATION", "course:algebra"),
    "a precondition that expects nothing": (
        "Write",
        write(preconditions=[dpb.Precondition(course=pb.Course(id="a"))]),
        "MISSING_FIELD",
        "preconditions[0]: precondition.expectation",
    ),
    "a precondition on nothing": (
        "Write",
        write(preconditions=[dpb.Precondition(expectation=dpb.EXPECTATION_EXISTS)]),
        "MISSING_FIELD",
        "preconditions[0]: entity",
    ),
    "an operation of another number": (
        "Write",
        write(dpb.Mutation(operation=9, course=pb.Course(id="a"))),  # type: ignore[arg-type]  # not a member
        "MALFORMED_FIELD",
        "mutations[0]: mutation.operation has the unknown value 9",
    ),
    "the second mutation at fault": ("Write", write(COURSE, course(id="\u00e4")), "MALFORMED_ID", "[1]"),
    "an idempotency key beyond ASCII": (
        "Write",
        write(idempotency_key="\u00e4"),
        "MALFORMED_ID",
        "idempotency_key",
    ),
    "a long reason": ("Write", write(reason="x" * 1025), "MALFORMED_FIELD", "reason has 1025 characters"),
    "a reason with a newline": ("Write", write(reason="a\nb"), "MALFORMED_FIELD", "reason"),
    "a role of many characters": ("Write", write(COURSE, enrol(role=LONG)), "MALFORMED_ID", "role"),
    "a misspelt role": (
        "Write",
        write(COURSE, enrol(role="studnt")),
        "UNKNOWN_ROLE",
        "did you mean `student`",
    ),
    "a role of the platform in a course": (
        "Write",
        write(COURSE, enrol(role="platform_admin")),
        "UNKNOWN_ROLE",
        "platform_admin",
    ),
    "a membership that ends before it starts": (
        "Write",
        write(COURSE, enrol(starts_at=LATE, ends_at=EARLY)),
        "MALFORMED_FIELD",
        "ends_at is not after starts_at",
    ),
    "a time after the year 9999": (
        "Write",
        write(COURSE, enrol(ends_at=timestamp_pb2.Timestamp(seconds=2**50))),
        "MALFORMED_FIELD",
        "membership.ends_at",
    ),
    "a long source": ("Write", write(COURSE, enrol(source="x" * 129)), "MALFORMED_FIELD", "source"),
    "a source with a NUL": ("Write", write(COURSE, enrol(source="a\x00")), "MALFORMED_FIELD", "source"),
    "a long reference in the source": (
        "Write",
        write(COURSE, enrol(source_ref="x" * 257)),
        "MALFORMED_FIELD",
        "source_ref",
    ),
    "a misspelt type": ("Write", write(COURSE, register(type="materiel")), "UNKNOWN_TYPE", "materiel"),
    "a resource of the platform": (
        "Write",
        write(COURSE, register(scope=pb.Scope(platform=pb.Platform()))),
        "MALFORMED_FIELD",
        "scope",
    ),
    "a resource in an empty scope": (
        "Write",
        write(register(scope=pb.Scope())),
        "MISSING_FIELD",
        "resource.scope",
    ),
    "an owner of no type": (
        "Write",
        write(COURSE, register(owner=pb.Subject(id="maya"))),
        "MALFORMED_FIELD",
        "resource.owner.type",
    ),
    "visible to a session, but in a course": (
        "Write",
        write(COURSE, register(visibility=pb.VISIBILITY_SESSION)),
        "MALFORMED_FIELD",
        "visibility is SESSION",
    ),
    "an active account with the end of a suspension": (
        "Write",
        write(touch(account=pb.Account(subject=MAYA, suspended_until=LATE))),
        "MALFORMED_FIELD",
        "suspended_until is set, but the status is ACTIVE",
    ),
    "an account of nobody": (
        "Write",
        write(touch(account=pb.Account())),
        "MISSING_FIELD",
        "account.subject",
    ),
    "a suspension that ends after the year 9999": (
        "Write",
        write(
            touch(
                account=pb.Account(
                    subject=MAYA,
                    status=pb.ACCOUNT_STATUS_SUSPENDED,
                    suspended_until=timestamp_pb2.Timestamp(seconds=2**50),
                )
            )
        ),
        "MALFORMED_FIELD",
        "account.suspended_until",
    ),
    "a negative edit window": (
        "Write",
        write(course(edit_window=duration_pb2.Duration(seconds=-1))),
        "MALFORMED_FIELD",
        "edit_window",
    ),
    "an edit window of ages": (
        "Write",
        write(course(edit_window=duration_pb2.Duration(seconds=2**60))),
        "MALFORMED_FIELD",
        "edit_window",
    ),
    # Import
    "too many mutations in a message": (
        "Import",
        dpb.ImportRequest(mutations=[COURSE] * MANY),
        "TOO_MANY_ITEMS",
        "mutations",
    ),
    "a long reason for an import": (
        "Import",
        dpb.ImportRequest(mutations=[COURSE], reason="x" * 1025),
        "MALFORMED_FIELD",
        "reason",
    ),
    # Reads
    "a page of less than nothing": (
        "ReadCourses",
        dpb.ReadCoursesRequest(page_size=-1),
        "MALFORMED_FIELD",
        "page_size is -1",
    ),
    "a page of too many": (
        "ReadShares",
        dpb.ReadSharesRequest(page_size=MANY),
        "MALFORMED_FIELD",
        "page_size is 1001",
    ),
    "a page token that is none": (
        "ReadSessions",
        dpb.ReadSessionsRequest(page_token="next"),
        "MALFORMED_TOKEN",
        "page_token",
    ),
    "courses by too many ids": (
        "ReadCourses",
        dpb.ReadCoursesRequest(ids=["a"] * MANY),
        "TOO_MANY_ITEMS",
        "ids",
    ),
    "courses in a state of another number": (
        "ReadCourses",
        dpb.ReadCoursesRequest(states=[99]),  # type: ignore[list-item]  # not a member of the enum
        "MALFORMED_FIELD",
        "states has the unknown value 99",
    ),
    "sessions of a course with a malformed id": (
        "ReadSessions",
        dpb.ReadSessionsRequest(course_id="a b"),
        "MALFORMED_ID",
        "course_id",
    ),
    "memberships by a role with a NUL": (
        "ReadMemberships",
        dpb.ReadMembershipsRequest(role="a\x00"),
        "MALFORMED_ID",
        r"role `a\x00`",
    ),
    "memberships by a source with a NUL": (
        "ReadMemberships",
        dpb.ReadMembershipsRequest(source="a\x00"),
        "MALFORMED_FIELD",
        "source",
    ),
    "accounts with a status of another number": (
        "ReadAccounts",
        dpb.ReadAccountsRequest(statuses=[9]),  # type: ignore[list-item]  # not a member of the enum
        "MALFORMED_FIELD",
        "statuses has the unknown value 9",
    ),
    "resources by ids, but no type": (
        "ReadResources",
        dpb.ReadResourcesRequest(ids=["m-1"]),
        "MALFORMED_FIELD",
        "needs a type",
    ),
    "shares of a type, but no resource": (
        "ReadShares",
        dpb.ReadSharesRequest(resource_type="notebook"),
        "MISSING_FIELD",
        "resource_id",
    ),
}
