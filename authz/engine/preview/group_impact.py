"""What changes for a subject in a course: as for all who hold the same, corrected by what is its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, TypeAlias

import msgspec

from authz.domain.context import ScopeContext
from authz.domain.decisions import Verdict
from authz.domain.facts import FOR_AI_RESPONSE, PURPOSE_AI_RESPONSE
from authz.domain.ids import ResourceRef, Scope, Subject
from authz.domain.impact import AccessChange, AccessKind, Example
from authz.engine.preview.cells import DifferingCell
from authz.engine.preview.scope_tree import MemberGroup, Relation, ScopeTree, types_read


class Match(NamedTuple):
    """Resources in one context with the same facts, to which the access of a group changes."""

    at: int
    group: MemberGroup
    cell: DifferingCell
    before_facts: int
    after_facts: int
    refs: Sequence[ResourceRef]


Matches: TypeAlias = dict[AccessKind, list[Match]]


class Correction(msgspec.Struct, frozen=True, eq=False):
    """How the changes to a resource differ for a subject to which it belongs: kinds that it leaves, and kinds
    that it joins, with the cell and the facts."""

    removed: list[AccessKind]
    added: list[tuple[AccessKind, Match]]


class _Template(msgspec.Struct, frozen=True, eq=False):
    """The changes for all subjects with the same corrections, with the examples that they have in common.

    `own` has for each change the examples that are resources of the subject: the place of each among the
    resources that were corrected, and its scope. It is empty if no change has any.
    """

    changes: tuple[AccessChange, ...]
    own: tuple[Sequence[tuple[int, Scope]], ...]

    def filled(self, refs: Sequence[ResourceRef]) -> tuple[AccessChange, ...]:
        """The changes for a subject of whose resources these were corrected: one object if `own` is empty."""
        if not self.own:
            return self.changes
        return tuple(
            msgspec.structs.replace(
                change, examples=(*change.examples, *[Example(refs[place], scope) for place, scope in own])
            )
            if own
            else change
            for change, own in zip(self.changes, self.own, strict=True)
        )


Verdicts: TypeAlias = Callable[[Match, ScopeContext, int], tuple[Verdict | None, Verdict | None]]
"""What Check answers under either policy in a context, where besides the facts of a match others hold."""


class GroupImpact:
    """What changes for all who hold the same in a scope tree: those of `group`; `inside` is
    their group in some of its sessions, by index."""

    def __init__(
        self,
        tree: ScopeTree,
        group: MemberGroup,
        inside: Mapping[int, MemberGroup],
        verdicts: Verdicts,
        *,
        max_examples: int,
    ) -> None:
        self._tree = tree
        self._group, self._inside = group, inside
        self._verdicts = verdicts
        self._max_examples = max_examples
        self._matches: Matches = defaultdict(list)
        self._counts: dict[AccessKind, int] = {}
        self._types: list[str] = []
        self._corrections: dict[Relation, Correction] = {}
        self._templates: dict[tuple[Correction, ...], _Template] = {}
        self._shown: set[ResourceRef] = set()
        """The examples of those to whom no resource belongs."""

    def compute(self, everywhere: GroupImpact | None) -> Iterator[None]:
        """Find what changes. `everywhere` is the computed impact of `group` alone, if there is something
        inside. Yields None after each small step."""
        found = list(dict.fromkeys([self._group, *self._inside.values()]))
        for type_name in dict.fromkeys(name for group in found for name in types_read(group)):
            yield from self._tree.read_resources(type_name)
        if everywhere is None:
            yield from self._find(self._group, range(len(self._tree.contexts)))
        else:
            for kind, matches in everywhere._matches.items():
                self._matches[kind] = [match for match in matches if match.at not in self._inside]
                yield None
            for index, group in self._inside.items():
                yield from self._find(group, (index,))
        self._counts = {
            kind: sum(len(match.refs) for match in matches) for kind, matches in self._matches.items()
        }
        self._types = list(dict.fromkeys(name for group in found for name in group.cells_of_subject))
        common = self._templates[()] = self._template((), ())
        self._shown = {example.resource for change in common.changes for example in change.examples}

    def changes_for(self, subject: Subject) -> tuple[AccessChange, ...]:
        """Every change of the subject's access in the tree. Mostly one object for all to whom it applies."""
        known, correct = self._corrections, self._correct
        corrections: list[Correction] = []
        refs: list[ResourceRef] = []
        for type_name in self._types:
            for relation, ref in self._tree.personal(type_name, subject):
                correction = known.get(relation) or correct(relation)
                if correction.removed or correction.added:
                    corrections.append(correction)
                    refs.append(ref)
        if not self._shown.isdisjoint(refs):
            return self._template(corrections, refs).filled(refs)
        # The common examples stay, so all with as many resources of these kinds differ in their own alone.
        key = tuple(corrections)
        template = self._templates.get(key)
        if template is None:
            template = self._templates[key] = self._template(corrections, refs)
        return template.filled(refs)

    def _find(self, group: MemberGroup, indexes: Iterable[int]) -> Iterator[None]:
        for index in indexes:
            before, after = group.attending(index, self._tree.contexts[index])
            for cell in group.cells:
                for facts, refs in self._tree.resources(cell, index):
                    for kind in cell.kinds(facts | before, facts | after):
                        match = Match(index, group, cell, facts | before, facts | after, refs)
                        self._matches[kind].append(match)
                yield None

    def _correct(self, relation: Relation) -> Correction:
        """What is otherwise because resources are the subject's own, or shared with it."""
        index, extra = relation.index, relation.extra
        group = self._inside.get(index, self._group)
        before, after = group.attending(index, self._tree.contexts[index])
        before, after = before | relation.facts, after | relation.facts
        removed: list[AccessKind] = []
        added: list[tuple[AccessKind, Match]] = []
        for cell in group.cells_of_subject.get(relation.type_name, ()):
            common, special = cell.kinds(before, after), cell.kinds(before | extra, after | extra)
            match = Match(index, group, cell, before | extra, after | extra, ())
            removed += [kind for kind in common if kind not in special]
            added += [(kind, match) for kind in special if kind not in common]
        found = self._corrections[relation] = Correction(removed, added)
        return found

    def _template(self, corrections: Sequence[Correction], refs: Sequence[ResourceRef]) -> _Template:
        """The changes for a subject with corrections, each for one of some resources."""
        gone: dict[AccessKind, set[ResourceRef]] = {}
        new: dict[AccessKind, list[tuple[Match, int]]] = {}
        for place, (correction, ref) in enumerate(zip(corrections, refs, strict=True)):
            for kind in correction.removed:
                gone.setdefault(kind, set()).add(ref)
            for kind, match in correction.added:
                new.setdefault(kind, []).append((match, place))
        changes, own_examples = list[AccessChange](), list[Sequence[tuple[int, Scope]]]()
        for kind in dict.fromkeys([*self._matches, *new]):
            without, own = gone.get(kind, ()), new.get(kind, [])
            count = self._counts.get(kind, 0) - len(without) + len(own)
            if count:
                matches = self._matches.get(kind, ())
                others = ((match, ref) for match in matches for ref in match.refs if ref not in without)
                shown = list(islice(others, self._max_examples))
                own = own[: self._max_examples - len(shown)]
                first = shown[0][0] if shown else own[0][0]
                scopes = self._tree.scopes
                examples = [Example(ref, scopes[match.at]) for match, ref in shown]
                changes.append(self._change(kind, count, first, examples))
                own_examples.append([(place, scopes[match.at]) for match, place in own])
        return _Template(tuple(changes), tuple(own_examples) if any(own_examples) else ())

    def _change(
        self, kind: AccessKind, count: int, first: Match, examples: Sequence[Example]
    ) -> AccessChange:
        extra = FOR_AI_RESPONSE if kind.purposes == (PURPOSE_AI_RESPONSE,) else 0
        before, after = self._verdicts(first, self._tree.contexts[first.at], extra)
        return AccessChange(kind=kind, count=count, examples=tuple(examples), before=before, after=after)
