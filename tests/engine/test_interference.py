"""What is not the resource's own has no say: properties over random rules on random campuses."""

from __future__ import annotations

import msgspec
from hypothesis import assume, event, given
from hypothesis import strategies as st

from authz.domain.decisions import CREATE_ACTION, Question
from authz.domain.entities import Entity, Membership, MembershipStatus, Resource, Session, SessionState, Share
from authz.domain.errors import PolicyError
from authz.domain.facts import FACTS_BY_NAME, PURPOSE_AI_RESPONSE
from authz.domain.ids import PLATFORM, ScopeKind, course_scope, session_scope
from authz.engine.check import Checker
from authz.policy.compile import CompiledPolicy
from tests.engine.campus import Campus
from tests.engine.test_isolation import CHECKERS, COURSES, NOW, TYPES, campuses, own_scopes, questions
from tests.policies import POLICY, compiled
from tests.properties import examples

DECLARATIONS = [
    *(
        f"role, {r.name}, {r.scope_kind.value}, {r.rank}, {'yes' if r.works_in_drafts else 'no'}, {r.becomes}"
        for r in POLICY.vocabulary.roles.values()
    ),
    *(f"type, {t.name}, {'|'.join(t.actions)}" for t in POLICY.vocabulary.types.values()),
]
ROLE_NAMES = sorted(POLICY.vocabulary.roles)


@st.composite
def rows(draw: st.DrawFn) -> str:
    """A rule, its conditions and its scope mostly as wide as they can be."""
    type_name = draw(st.sampled_from([*POLICY.vocabulary.types, "*"]))
    known = POLICY.vocabulary.types.get(type_name)
    action = draw(st.sampled_from(["*", *(known.actions if known else ("read", "update", "create"))]))
    role = draw(st.sampled_from(["*", *ROLE_NAMES]))
    scope = draw(st.sampled_from(["*", *(f"course:{course}" for course in COURSES)]))
    names = draw(st.lists(st.sampled_from(sorted(FACTS_BY_NAME)), max_size=2, unique=True))
    effect = draw(st.sampled_from(["allow", "allow", "allow", "deny"]))
    negations = ["", "!"] if effect == "deny" else [""]
    condition = " & ".join(draw(st.sampled_from(negations)) + name for name in names)
    return f"p, {role}, {scope}, {type_name}, {action}, {condition}, {effect}"


@st.composite
def policies(draw: st.DrawFn) -> CompiledPolicy:
    """The roles and types of the default policy under other rules, loaded as any policy is."""
    lines = draw(st.lists(rows(), min_size=1, max_size=6, unique=True))
    if draw(st.booleans()):
        fact = draw(st.sampled_from(["", *FACTS_BY_NAME]))
        lines.append(f"p, *, *, *, *, {fact}, allow")
    try:
        return compiled("\n".join([*DECLARATIONS, *lines]) + "\n")
    except PolicyError:
        assume(False)
        raise


@st.composite
def aimed(draw: st.DrawFn, entities: list[Entity]) -> Question:
    """A question that a membership may well answer: of its subject, about something in its scope."""
    question = draw(questions(entities))
    in_place = [
        (member, entity)
        for member in entities
        for entity in entities
        if isinstance(member, Membership) and isinstance(entity, Resource) and entity.scope == member.scope
    ]
    if not in_place or not draw(st.integers(0, 3)):
        return question
    member, resource = draw(st.sampled_from(in_place))
    actions = POLICY.vocabulary.types[resource.type].actions
    return msgspec.structs.replace(
        question,
        subject=member.subject,
        action=draw(st.sampled_from([action for action in actions if action != CREATE_ACTION])),
        resource=resource.key,
        stated_course_id=None,
        stated_session_id=None,
        purpose=draw(st.sampled_from(["", "", "", PURPOSE_AI_RESPONSE])),
    )


def checker_of(policy: CompiledPolicy, *, inline: bool) -> Checker:
    types = frozenset(TYPES) if inline else frozenset()
    return Checker(policy, inline_types=types)


@examples(75)
@given(st.data(), policies(), st.booleans())
def test_no_rules_let_a_stranger_into_content(
    data: st.DataObject, policy: CompiledPolicy, inline: bool
) -> None:
    entities = data.draw(campuses())
    question = data.draw(aimed(entities))
    campus = Campus(entities)
    decision = checker_of(policy, inline=inline).check(campus, question, NOW)
    event(f"allowed: {decision.allowed}")
    if decision.allowed:
        places = own_scopes(campus, question, inline=inline)
        assert campus.memberships_in(question.subject, list(places))


@examples(75)
@given(st.data(), policies(), st.booleans())
def test_what_belongs_to_other_courses_other_subjects_and_other_resources_has_no_say(
    data: st.DataObject, policy: CompiledPolicy, inline: bool
) -> None:
    entities = data.draw(campuses())
    question = data.draw(aimed(entities))
    campus = Campus(entities)
    counted = own_scopes(campus, question, inline=inline) | {PLATFORM}

    def concerns(entity: Entity) -> bool:
        if isinstance(entity, Membership):
            return entity.subject == question.subject and entity.scope in counted
        if isinstance(entity, Share):
            return entity.subject == question.subject and entity.resource == question.resource
        return not isinstance(entity, Resource) or entity.key == question.resource

    alone = Campus(entity for entity in campus.entities if concerns(entity))
    for checker in (checker_of(policy, inline=inline), *CHECKERS[int(inline) :: 2]):
        assert checker.check(alone, question, NOW) == checker.check(campus, question, NOW)


@examples(75)
@given(st.data(), policies(), st.booleans())
def test_shares_and_ownership_change_nothing_for_whom_no_membership_lets_in(
    data: st.DataObject, policy: CompiledPolicy, inline: bool
) -> None:
    entities = data.draw(campuses())
    question = data.draw(questions(entities))
    campus = Campus(entities)
    checker = checker_of(policy, inline=inline)
    assume(not campus.memberships_in(question.subject, list(own_scopes(campus, question, inline=inline))))
    bare = [
        msgspec.structs.replace(entity, owner=None) if isinstance(entity, Resource) else entity
        for entity in campus.entities
        if not isinstance(entity, Share)
    ]
    assert checker.check(Campus(bare), question, NOW) == checker.check(campus, question, NOW)


@examples(75)
@given(st.data(), policies(), st.booleans())
def test_an_answer_of_any_rules_holds_exactly_until_its_valid_until(
    data: st.DataObject, policy: CompiledPolicy, inline: bool
) -> None:
    entities = data.draw(campuses())
    question = data.draw(aimed(entities))
    campus = Campus(entities)
    checker = checker_of(policy, inline=inline)
    first = checker.check(campus, question, NOW)
    assert first.valid_until is None or first.valid_until > NOW
    for later in range(NOW + 1, first.valid_until or NOW + 15):
        then = checker.check(campus, question, later)
        assert msgspec.structs.replace(then, valid_until=None) == msgspec.structs.replace(
            first, valid_until=None
        )
        assert then.valid_until == first.valid_until
    if first.valid_until is not None:
        assert checker.check(campus, question, first.valid_until).verdict != first.verdict


@examples(75)
@given(st.data(), policies())
def test_memberships_that_give_no_role_allow_nothing_on_content(
    data: st.DataObject, policy: CompiledPolicy
) -> None:
    entities = data.draw(campuses())
    question = data.draw(aimed(entities))
    takes = st.sampled_from([MembershipStatus.INVITED, MembershipStatus.SUSPENDED])
    idle = Campus(
        msgspec.structs.replace(entity, status=data.draw(takes))
        if isinstance(entity, Membership) and entity.scope.kind is not ScopeKind.PLATFORM
        else entity
        for entity in entities
    )
    for checker in (checker_of(policy, inline=True), *CHECKERS):
        assert not checker.check(idle, question, NOW).allowed


@examples(75)
@given(st.data())
def test_the_gates_of_the_default_policy_hold_on_every_campus(data: st.DataObject) -> None:
    entities = data.draw(campuses())
    question = data.draw(aimed(entities))
    campus = Campus(entities)
    for checker in CHECKERS[:2]:
        if not checker.check(campus, question, NOW).allowed:
            continue
        resource = campus.registered(question.resource) or question.inline
        assert (question.purpose == PURPOSE_AI_RESPONSE) is (question.action == "ai_process")
        if question.action in ("update", "delete", "share") and resource is not None:
            assert not resource.locked


@examples(75)
@given(st.data(), st.sampled_from(["join", "present", "record"]))
def test_nobody_joins_presents_or_records_what_has_ended(data: st.DataObject, action: str) -> None:
    entities = data.draw(campuses())
    asked = data.draw(aimed(entities))
    campus = Campus(entities)
    for session in (entity for entity in campus.entities if isinstance(entity, Session)):
        question = msgspec.structs.replace(
            asked,
            action=action,
            resource=msgspec.structs.replace(asked.resource, type="session", id=session.id),
            stated_course_id=session.course_id,
            stated_session_id=session.id,
        )
        if CHECKERS[0].check(campus, question, NOW).allowed:
            assert session.state in (SessionState.SCHEDULED, SessionState.LIVE)
            scopes = [session_scope(session.id), *map(course_scope, filter(None, [session.course_id]))]
            assert campus.memberships_in(asked.subject, scopes)
