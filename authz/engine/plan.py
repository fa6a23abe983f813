"""Plans what a subject may act upon as a condition on fields, from the rules and facts of Check.

In a course or session all that the scope decides is known: the roles, and the facts that do not depend on the
resource. What is left of the rules is the same in many scopes, which make a group.
"""

from __future__ import annotations

from collections.abc import Iterator

from authz.domain.context import ScopeContext
from authz.domain.decisions import COURSE_TYPE, SESSION_TYPE
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.facts import ALL_FACTS, FOR_AI_RESPONSE, WITHIN_EDIT_WINDOW, ComparedValues
from authz.domain.ids import PLATFORM
from authz.domain.instants import Instant
from authz.domain.lists import PlanGroup, PlanKind, ResourceQuery
from authz.domain.ports import Snapshot
from authz.engine.check import Checker
from authz.engine.lists import why_unlisted
from authz.engine.reach import ReachableScopes, Validity
from authz.policy.compile import CompiledRules
from authz.policy.residual import Residual, residual_of

MAX_SCOPES = 10_000
"""Maximum courses and sessions of a plan."""
MAX_GROUPS = 500
"""Maximum groups of a plan. SQLite takes a clause of twice as many at most."""


class Planner:
    """Plans what a query finds of its one type. Does its work as it is iterated, a course or session a step.

    Once iterated, `kind` and `groups` are the plan, and `valid_until` the earliest instant at which time
    alone may change them: the fields themselves are compared with the time at which the plan is used.
    """

    def __init__(self, checker: Checker, snapshot: Snapshot, now: Instant, query: ResourceQuery) -> None:
        self._checker, self._snapshot, self._query = checker, snapshot, query
        (self._type,) = query.types
        self._validity = Validity()
        self._reach = ReachableScopes(checker, snapshot, now, query, self._validity)
        self._allows_all = False
        self.unlisted = why_unlisted(checker, snapshot, query)
        self._found: dict[tuple[Residual, int], list[ScopeContext]] = {}
        self._residuals: dict[tuple[CompiledRules, int, int], Residual | None] = {}

    @property
    def valid_until(self) -> Instant | None:
        """The earliest time at which passing time alone may change the plan; None if it cannot."""
        return self._validity.until

    @property
    def kind(self) -> PlanKind:
        """What the plan says as a whole."""
        if self._allows_all:
            return PlanKind.ALWAYS
        return PlanKind.CONDITIONAL if self._found else PlanKind.NEVER

    @property
    def groups(self) -> Iterator[PlanGroup]:
        """Of a conditional plan, each made as it is iterated. No course or session is in two of them."""
        return (
            PlanGroup(
                tuple(c.course_id for c in contexts if c.session_id is None and c.course_id is not None),
                tuple(c.session_id for c in contexts if c.session_id is not None),
                residual.predicate(ComparedValues(self._query.subject, edit_window_us)),
            )
            for (residual, edit_window_us), contexts in self._found.items()
        )

    def __iter__(self) -> Iterator[None]:
        """Do the work. Raises `InvalidArgumentError` for more than `MAX_SCOPES` courses and sessions, or more
        than `MAX_GROUPS` groups of them."""
        if self.unlisted is not None:
            return
        self._allows_all = self._query.within is None and self._allows_everywhere()
        scopes_left = MAX_SCOPES
        for context in () if self._allows_all else self._reach.contexts():
            scopes_left -= context is not None
            if scopes_left < 0:
                raise _too_large("depends on", MAX_SCOPES, "courses and sessions")
            if context is not None and self._may_hold(context):
                self._add(context)
            if len(self._found) > MAX_GROUPS:
                raise _too_large("has", MAX_GROUPS, "conditions, such as by the edit windows of courses")
            yield

    def _may_hold(self, context: ScopeContext) -> bool:
        """Whether a context may have resources of the type. A course or a session is in its own context."""
        in_session = context.session_id is not None
        return {COURSE_TYPE: not in_session, SESSION_TYPE: in_session}.get(self._type, True)

    def _add(self, context: ScopeContext) -> None:
        access, edit_window_us = self._reach.access(context, self._type), context.state.edit_window_us
        if access.refusal is not None:
            return
        certain, possible = self._reach.facts_in(context, access, self._type)
        if edit_window_us == 0:
            possible &= ~WITHIN_EDIT_WINDOW
        key = (access.rules, certain, possible)
        if key not in self._residuals:
            self._residuals[key] = residual_of(*key)
        residual = self._residuals[key]
        if residual is not None:
            matters = edit_window_us if residual.named & WITHIN_EDIT_WINDOW else 0
            self._found.setdefault((residual, matters), []).append(context)

    def _allows_everywhere(self) -> bool:
        """Whether the roles on the platform open every course or session of whatever state, and no other role
        that the subject may have in one takes that away."""
        platform = self._snapshot.scope(PLATFORM)
        if platform is None or self._reach.scanned_subject() is not None or self._reach.has_overrides():
            return False
        certain = FOR_AI_RESPONSE if self._query.purpose else 0
        possible, policy = ALL_FACTS & ~FOR_AI_RESPONSE | certain, self._checker.policy
        held = residual_of(self._reach.access(platform, self._type).rules, certain, possible)
        of_all = policy.rules_for(frozenset(policy.vocabulary.roles), None, self._type, self._query.action)
        most = residual_of(of_all, certain, possible)
        return held is not None and held.is_unconditional and most is not None and not most.denies


def _too_large(verb: str, limit: int, of: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        ErrorReason.TOO_MANY_ITEMS,
        f"the plan {verb} more than {limit} {of}; set `scope` to one course, or use ListResources",
        field="scope",
        limit=str(limit),
    )
