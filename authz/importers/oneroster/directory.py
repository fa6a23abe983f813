"""What the directory holds of a roster before it is imported."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from authz.domain.entities import (
    Account,
    AccountFilter,
    AccountStatus,
    Course,
    CourseFilter,
    Membership,
    MembershipFilter,
    MembershipKey,
    MembershipStatus,
)
from authz.domain.errors import AuthzError, ErrorReason
from authz.domain.ids import Subject, SubjectType
from authz.domain.instants import Instant
from authz.importers.oneroster.rows import Roster
from authz.importers.oneroster.source_ref import SourceRef, parse_source_ref
from authz.importers.reader import DirectoryReader


class ImportedMembership(msgspec.Struct, frozen=True, gc=False):
    """A membership that an earlier import wrote, as it is at `now`."""

    entity: Membership
    ref: SourceRef
    now: Instant

    @property
    def is_live(self) -> bool:
        """Whether it gives a role now, or will later."""
        return is_live(self.entity, self.now)

    @property
    def is_suspended_by_hand(self) -> bool:
        """Whether a person suspended it, without an end or until a later time: no import may lift that."""
        until = self.entity.suspended_until
        return self.has_status_by_hand or (until is not None and until > self.now)

    @property
    def has_status_by_hand(self) -> bool:
        """Whether a person suspended it without an end."""
        return self.entity.status is MembershipStatus.SUSPENDED and not self.ref.is_suspended


class DirectoryState(msgspec.Struct, frozen=True):
    """The directory as a plan needs it.

    `memberships` are those of the roster's source, `others` maps the memberships of other sources in the
    roster's classes to their source. `markers` are the memberships that record which courses the roster has
    concluded, by course, and `changed` are those of these courses that were changed since. `suspended` are
    the accounts that are, or have been until a time. `refused_roles` maps each role that the active policy
    does not declare for courses to what the directory says of it.
    """

    courses: dict[str, Course]
    memberships: dict[MembershipKey, ImportedMembership]
    others: dict[MembershipKey, str]
    markers: dict[str, ImportedMembership]
    changed: set[str]
    suspended: dict[Subject, Account]
    refused_roles: dict[str, str]


def read_held(roster: Roster, directory: DirectoryReader, now: Instant) -> DirectoryState:
    """Read the directory once. Memory grows with the memberships of the source and of its classes."""
    courses = {course.entity.id: course for course in directory.read(CourseFilter())}
    held = DirectoryState(
        courses={course_id: course.entity for course_id, course in courses.items()},
        memberships={},
        others={},
        markers={},
        changed=set(),
        suspended={
            account.entity.subject: account.entity
            for account in directory.read(AccountFilter(statuses=(AccountStatus.SUSPENDED,)))
        },
        refused_roles={},
    )
    scopes = {row.scope for row in roster.enrollments}
    marker = marker_subject(roster.options.source)
    for versioned in directory.read(MembershipFilter()):
        entity = versioned.entity
        if entity.source != roster.options.source:
            if entity.scope in scopes:
                held.others[entity.key] = entity.source
            continue
        found = ImportedMembership(entity, _ref_of(entity), now)
        if entity.subject == marker:
            course_id = entity.scope.id
            held.markers[course_id] = found
            # The roster writes the marker with the conclusion, or just after it.
            if course_id in courses and courses[course_id].revision > versioned.revision:
                held.changed.add(course_id)
        else:
            held.memberships[entity.key] = found
    held.refused_roles.update(_refused_roles(roster, held, directory))
    return held


def _refused_roles(
    roster: Roster, held: DirectoryState, directory: DirectoryReader
) -> Iterator[tuple[str, str]]:
    """The roles of new memberships that the directory would refuse: it refuses to look for one, too."""
    new = {
        row.role: row
        for row in roster.enrollments
        if row.key is not None and row.key not in held.memberships and row.key not in held.others
    }
    for role, row in new.items():
        try:
            next(directory.read(MembershipFilter(subject=row.subject, scope=row.scope, role=role)), None)
        except AuthzError as error:
            if error.reason != ErrorReason.UNKNOWN_ROLE:
                raise
            yield role, error.message


def is_live(membership: Membership, now: Instant) -> bool:
    """Whether a membership gives a role now or may give one later, by its status and its dates."""
    if membership.status is MembershipStatus.COMPLETED:
        return True
    return membership.status is not MembershipStatus.SUSPENDED and not membership.has_ended(now)


def _ref_of(membership: Membership) -> SourceRef:
    """What a membership records. If a person has lifted a suspension, nothing suspends it any more."""
    ref = parse_source_ref(membership.source_ref)
    if ref.is_suspended and membership.status is not MembershipStatus.SUSPENDED:
        return msgspec.structs.replace(ref, suspended_by_row=False, suspended_by_user=False)
    return ref


def marker_subject(source: str) -> Subject:
    """The subject of the markers of a source. Its memberships are suspended and give no role."""
    return Subject(SubjectType.SERVICE, source)
