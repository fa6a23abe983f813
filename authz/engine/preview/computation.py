"""What another policy would change for whom, in the directory as it is.

Not by asking about every subject and resource: in each course, members with the same memberships are compared
once, only cells that differ for their roles are looked at, and resources with the same facts are counted
together. What is a subject's own, or shared with it, is then corrected for this subject. For example, if
students lose `read` on notebooks that are not their own, a course with 10,000 students and 500 notebooks has
one group, one cell and one correction, for those who own a notebook. A test holds the result to what Check
answers.

The generators yield None after each small step, so that the work can be sliced.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import TypeAlias

from authz.domain.context import ScopeContext
from authz.domain.decisions import STRUCTURAL_TYPES, Verdict
from authz.domain.effective_roles import EffectiveRoles, Memberships, effective_roles_of
from authz.domain.errors import UnusablePolicyError, precondition_failed
from authz.domain.ids import PLATFORM, Subject
from authz.domain.impact import Impact, PreviewProgress, PreviewTotals, RecentDecisions
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.engine.check import Checker
from authz.engine.preview.cells import CellComparison
from authz.engine.preview.group_impact import GroupImpact, Match
from authz.engine.preview.scope_tree import MemberGroup, ScopeTree
from authz.engine.preview.tally import RowBatches, Tally
from authz.policy.compile import CompiledPolicy

PreviewEvent: TypeAlias = PreviewProgress | Impact | PreviewTotals
_Inside: TypeAlias = Sequence[tuple[int, Memberships]]
"""The memberships of a subject in sessions of a scope tree, each with the index of the session."""

_MEMBERS_A_PROGRESS = 5_000


class Preview:
    """One preview, on one snapshot and at one instant.

    `before` and `after` decide by two policies of the platform, each with what is active in courses. With
    `in_course`, only this course is looked at: with `before`, and with a policy in which it has another one.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        before: Checker,
        after: Checker,
        now: Instant,
        *,
        max_examples: int,
        max_largest: int,
        recent: RecentDecisions | None = None,
        in_course: tuple[str, CompiledPolicy] | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._before, self._after = before, after
        self._now = now
        self._max_examples = max_examples
        self._recent = recent
        self._in_course = in_course
        self._comparison = CellComparison(before.policy, after.policy)
        self._platform: dict[Subject, Memberships] = {}
        self._platform_members: dict[Memberships, list[Subject]] = {}
        self._tally = Tally(max_largest)
        self._members = 0

    def events(self) -> Iterator[PreviewEvent | None]:
        """The rows as they are found, in the order of the courses, with progress; the totals last.

        Raises `FailedPreconditionError` for a course whose policy does not pass under the other one of the
        platform.
        """
        yield PreviewProgress(0, self._snapshot.count_members())
        yield from self._read_platform()
        contexts: list[ScopeContext] = []
        for context in self._contexts():
            yield None
            if context is None:
                continue
            if contexts and (context.session_id is None or context.course_id is None):
                yield from self._tree(contexts)
                contexts = []
            contexts.append(context)
        if contexts:
            yield from self._tree(contexts)
        yield self.totals()

    def totals(self) -> PreviewTotals:
        """The totals of what was found so far."""
        return PreviewTotals(
            policy_version=self._before.version,
            checked_at=self._snapshot.token,
            now=self._now,
            members=self._members,
            rows=self._tally.rows,
            scopes=self._tally.scopes,
            kinds=self._tally.kinds,
            largest=self._tally.largest,
            recent=self._recent,
        )

    def _contexts(self) -> Iterator[ScopeContext | None]:
        """The platform and each course, a course before its sessions; sessions without a course last."""
        if self._in_course is None:
            yield self._snapshot.scope(PLATFORM)
            yield from self._snapshot.scan_contexts()
            return
        course_id, _ = self._in_course
        for context in self._snapshot.scan_contexts(start=(course_id, "")):
            if context is not None and context.course_id != course_id:
                return
            yield context

    def _read_platform(self) -> Iterator[PreviewProgress | None]:
        """Keep who has a role on the platform: it counts in every course."""
        platform = self._snapshot.scope(PLATFORM)
        if platform is None:
            return
        for subject, memberships in self._snapshot.scan_memberships(platform):
            yield self._count_member()
            self._platform[subject] = memberships
            self._platform_members.setdefault(memberships, []).append(subject)

    def _tree(self, contexts: list[ScopeContext]) -> Iterator[PreviewEvent | None]:
        comparison = self._comparison_in(contexts[0])
        tree = ScopeTree(
            self._snapshot,
            contexts,
            partial(self._group_of, comparison),
            comparison.facts_named,
            self._now,
        )
        rows = RowBatches(tree.scope, self._tally)
        impacts: dict[object, GroupImpact] = {}
        for found in self._candidates(tree):
            if not isinstance(found, tuple):
                yield found
                continue
            subject, group, inside = found
            in_sessions = tuple((index, tree.group(group.memberships + held)) for index, held in inside)
            changes_somewhere = group.cells or any(each.cells for _, each in in_sessions)
            if not changes_somewhere or self._is_suspended(subject):
                continue
            impact = yield from self._impact(tree, group, in_sessions, impacts)
            changes = impact.changes_for(subject)
            yield rows.add(subject, changes) if changes else None
        yield from rows.rest()

    def _impact(
        self,
        tree: ScopeTree,
        group: MemberGroup,
        in_sessions: tuple[tuple[int, MemberGroup], ...],
        impacts: dict[object, GroupImpact],
    ) -> Generator[None, None, GroupImpact]:
        """That of a group which is another one in some sessions, from `impacts` if it is there."""
        impact = impacts.get((group, in_sessions))
        if impact is None:
            everywhere = (yield from self._impact(tree, group, (), impacts)) if in_sessions else None
            impact = impacts[group, in_sessions] = GroupImpact(
                tree, group, dict(in_sessions), self._verdicts, max_examples=self._max_examples
            )
            yield from impact.compute(everywhere)
        return impact

    def _candidates(
        self, tree: ScopeTree
    ) -> Iterator[PreviewProgress | tuple[Subject, MemberGroup, _Inside] | None]:
        """All for whom something may change in a scope tree: with the group of what they hold there and on
        the platform, and what they hold in its sessions. None for each other."""
        inside: dict[Subject, list[tuple[int, Memberships]]] = {}
        for index, subject, memberships in tree.session_members():
            inside.setdefault(subject, []).append((index, memberships))
            yield self._count_member()
        seen: set[Subject] = set()
        for subject, memberships in self._members_of(tree, inside):
            if memberships and (progress := self._count_member()):
                yield progress
            on_platform = self._platform.get(subject)
            if on_platform is not None:
                seen.add(subject)
                memberships = on_platform + memberships  # noqa: PLW2901  the name still says what it is
            group = tree.group(memberships)
            in_sessions = inside.pop(subject, ())
            yield (subject, group, in_sessions) if group.cells or in_sessions else None
        for memberships, subjects in self._platform_members.items():
            group = tree.group(memberships)
            for subject in subjects if group.cells else ():
                yield (subject, group, ()) if subject not in seen else None

    def _members_of(
        self, tree: ScopeTree, inside: dict[Subject, list[tuple[int, Memberships]]]
    ) -> Iterator[tuple[Subject, Memberships]]:
        """Those of the scope itself, then those of its sessions alone."""
        if tree.scope != PLATFORM:  # its members come last everywhere
            yield from self._snapshot.scan_memberships(tree.contexts[0])
        while inside:
            yield next(iter(inside)), ()

    def _comparison_in(self, context: ScopeContext) -> CellComparison:
        if self._in_course is not None:
            return CellComparison(self._before.policy_in(self._snapshot, context), self._in_course[1])
        if context.course_policy is None:
            return self._comparison
        before = self._before.policy_in(self._snapshot, context)
        try:
            return CellComparison(before, self._after.policy_in(self._snapshot, context), self._comparison)
        except UnusablePolicyError:
            raise precondition_failed(
                f"the policy of course:{context.course_id} does not pass under this one; change one:"
                " `authz policy validate --with-directory` names every such course and the reason",
                course_id=context.course_id or "",
            ) from None

    def _group_of(
        self, comparison: CellComparison, context: ScopeContext, memberships: Memberships
    ) -> MemberGroup:
        before, after = (
            effective_roles_of(memberships, context.state.course_state, checker.policy.role_table, self._now)
            for checker in (self._before, self._after)
        )
        cells = comparison.cells(before, after, context.course_id)
        return MemberGroup(memberships, before, after, cells)

    def _is_suspended(self, subject: Subject) -> bool:
        """Whether the account is suspended now: it then has no role anywhere, under either policy."""
        suspension = self._snapshot.suspension(subject)
        return suspension is not None and suspension.is_effective(self._now)

    def _verdicts(
        self, match: Match, context: ScopeContext, others: int
    ) -> tuple[Verdict | None, Verdict | None]:
        """What Check answers under either policy; None where it cannot be asked."""
        cell, group = match.cell, match.group
        before, after = (
            self._without_rules(checker, held, match, context)
            if rules is None
            else rules.verdict(facts | others)
            for checker, held, rules, facts in (
                (self._before, group.before, cell.before, match.before_facts),
                (self._after, group.after, cell.after, match.after_facts),
            )
        )
        return before, after

    def _without_rules(
        self, checker: Checker, held: EffectiveRoles, match: Match, context: ScopeContext
    ) -> Verdict | None:
        type_name, action = match.cell.type_name, match.cell.action
        declared = checker.policy.vocabulary.types.get(type_name)
        if declared is None or action not in declared.actions:
            return None
        verdict, _ = checker.without_roles(
            held,
            match.group.memberships,
            context,
            None,
            self._now,
            structural=type_name in STRUCTURAL_TYPES,
        )
        return verdict

    def _count_member(self) -> PreviewProgress | None:
        self._members += 1
        if self._members % _MEMBERS_A_PROGRESS:
            return None
        return PreviewProgress(self._members, self._snapshot.count_members())
