"""Random campuses in which every field of a resource makes a difference to somebody."""

from __future__ import annotations

import random

import msgspec
from hypothesis import strategies as st

from authz.domain.entities import (
    Course,
    CourseState,
    Entity,
    Membership,
    MembershipStatus,
    Resource,
    Session,
    SessionState,
    Share,
    ShareLevel,
    Visibility,
)
from authz.domain.ids import PLATFORM, course_scope, parse_subject, session_scope
from tests.engine.test_isolation import COURSES, NOW, OWN_ROWS, SESSIONS, TYPES, own_policy
from tests.policies import POLICY

ROLES = POLICY.vocabulary.roles.values()
PEOPLE = [parse_subject(f"user:{name}") for name in ("a", "b", "c")] + [parse_subject("service:a")]


def crowded(chance: random.Random) -> list[Entity]:
    """A campus in which many may do much, and where each field and state makes a difference to somebody."""

    def time() -> int | None:
        return chance.choice([None, NOW + chance.randint(-5, 5)])

    made: list[Entity] = [
        Course(
            id=name,
            state=chance.choice([*4 * [CourseState.ACTIVE], *CourseState]),
            ai_enabled=chance.random() < 0.7,
            edit_window_us=chance.randint(0, 5),
        )
        for name in COURSES
    ]
    homes = {name: chance.choice([*COURSES, None]) for name in SESSIONS}
    made += [
        Session(
            id=name,
            course_id=home,
            state=chance.choice(list(SessionState)),
            open_to_course=chance.random() < 0.5,
        )
        for name, home in homes.items()
    ]
    scopes = [*map(course_scope, COURSES), *map(session_scope, SESSIONS)]
    made += [
        Membership(
            subject=subject,
            scope=scope,
            role=chance.choice([r.name for r in ROLES if r.scope_kind is scope.kind]),
            status=chance.choice([*6 * [MembershipStatus.ACTIVE], *MembershipStatus]),
            ends_at=chance.choice([None, None, NOW + chance.randint(-1, 2)]),
        )
        for subject in PEOPLE
        for scope in chance.sample([*scopes, PLATFORM], 4)
    ]
    found = [
        Resource(
            type=type_name,
            id=f"r{number}",
            scope=chance.choice(scopes),
            owner=chance.choice([*PEOPLE, None]),
            visibility=chance.choice(list(Visibility)),
            published=chance.random() < 0.6,
            available_from=time(),
            available_until=time(),
            created_at=time(),
            locked=chance.random() < 0.3,
            ai_allowed=chance.random() < 0.7,
        )
        for type_name in TYPES
        for number in range(6)
    ]
    shares = [
        Share(resource=each.key, subject=chance.choice(PEOPLE), level=chance.choice(list(ShareLevel)))
        for each in chance.sample(found, 10)
    ]
    # In all but the share like another resource: what decides about one must not decide about the other.
    by_key = {each.key: each for each in found}
    alike = [
        msgspec.structs.replace(by_key[each.resource], id=f"{each.resource.id}-alike") for each in shares
    ]
    found += alike
    shares += [
        Share(resource=each.key, subject=chance.choice(PEOPLE), level=ShareLevel.VIEWER) for each in alike
    ]
    own = own_policy(COURSES[0], *chance.sample(OWN_ROWS, 2)) if chance.random() < 0.5 else []
    return [*made, *found, *shares, *own]


crowds = st.integers(0, 2**32).map(lambda seed: crowded(random.Random(seed)))
