"""What changes for a subject in a place: as for all who hold the same, corrected by what is its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple, TypeAlias

from authz.domain.context import ScopeContext
from authz.domain.decisions import Verdict
from authz.domain.facts import FOR_AI_RESPONSE, PURPOSE_AI_RESPONSE
from authz.domain.ids import ResourceRef, Subject
from authz.domain.impact import AccessChange, AccessKind, Example
from authz.engine.compared_cells import ComparedCell
from authz.engine.preview_place import Belonging, Holders, Place, types_read


class Run(NamedTuple):
    """Resources in one context with the same facts, to which the access of some holders changes."""

    at: int
    holders: Holders
    cell: ComparedCell
    before_facts: int
    after_facts: int
    refs: Sequence[ResourceRef]


Runs: TypeAlias = dict[AccessKind, list[Run]]


class Correction:
    """How the changes to a resource differ for a subject to which it belongs: kinds that it leaves, and kinds
    that it joins, with the cell and the facts."""

    __slots__ = ("added", "changes", "removed")

    def __init__(self, removed: list[AccessKind], added: list[tuple[AccessKind, Run]]) -> None:
        self.removed, self.added = removed, added
        self.changes = bool(removed or added)


WithoutRules: TypeAlias = Callable[[Run, ScopeContext], tuple[Verdict | None, Verdict | None]]
"""The verdicts under either policy where it consults no rule."""


class Outcome:
    """What changes for all who hold the same in a place: `holders` there, and others by index in some
    of its sessions."""

    def __init__(
        self,
        place: Place,
        holders: Holders,
        inside: Mapping[int, Holders],
        without_rules: WithoutRules,
        *,
        max_examples: int,
    ) -> None:
        self._place = place
        self._holders, self._inside = holders, inside
        self._without_rules = without_rules
        self._max_examples = max_examples
        self._runs: Runs = defaultdict(list)
        self._counts: dict[AccessKind, int] = {}
        self._types: list[str] = []
        self._corrections: dict[object, Correction] = {}
        self._known: dict[object, tuple[AccessChange, ...]] = {}
        self._shown: set[ResourceRef] = set()
        self._common: tuple[AccessChange, ...] = ()

    def compute(self, everywhere: Outcome | None) -> Iterator[None]:
        """Find what changes. `everywhere` is the computed outcome of `holders` alone, if there is something
        inside. Yields None after each small step."""
        found = list(dict.fromkeys([self._holders, *self._inside.values()]))
        for type_name in dict.fromkeys(name for holders in found for name in types_read(holders)):
            yield from self._place.read_resources(type_name)
        if everywhere is None:
            yield from self._find(self._holders, range(len(self._place.contexts)))
        else:
            for kind, runs in everywhere._runs.items():
                self._runs[kind] = [run for run in runs if run.at not in self._inside]
                yield None
            for index, holders in self._inside.items():
                yield from self._find(holders, (index,))
        self._counts = {kind: sum(len(run.refs) for run in runs) for kind, runs in self._runs.items()}
        self._types = list(dict.fromkeys(name for holders in found for name in holders.cells_of_subject))
        self._common = self._changes(())
        self._shown = {example.resource for change in self._common for example in change.examples}

    def changes_for(self, subject: Subject) -> tuple[AccessChange, ...]:
        """Every change of the subject's access in the place. Mostly one object for all to whom it applies."""
        corrections = [
            (correction, belonging.ref)
            for type_name in self._types
            for belonging in self._place.belongings(type_name, subject)
            if (correction := self._correction(type_name, belonging)).changes
        ]
        if not corrections:
            return self._common
        if any(correction.added or ref in self._shown for correction, ref in corrections):
            return self._changes(corrections)
        # The examples stay, so the result is that of everybody with as many resources of these kinds.
        key = tuple(correction for correction, _ in corrections)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._changes(corrections)
        return known

    def _find(self, holders: Holders, indexes: Iterable[int]) -> Iterator[None]:
        for index in indexes:
            before, after = holders.attending(index, self._place.contexts[index])
            for cell in holders.cells:
                for facts, refs in self._place.resources(cell, index):
                    for kind in cell.kinds(facts | before, facts | after):
                        run = Run(index, holders, cell, facts | before, facts | after, refs)
                        self._runs[kind].append(run)
                yield None

    def _correction(self, type_name: str, belonging: Belonging) -> Correction:
        """What is otherwise because a resource is the subject's own, or shared with it."""
        key = (type_name, belonging.index, belonging.facts, belonging.extra)
        found = self._corrections.get(key)
        if found is None:
            found = self._corrections[key] = self._compare(type_name, belonging)
        return found

    def _compare(self, type_name: str, belonging: Belonging) -> Correction:
        index, extra = belonging.index, belonging.extra
        holders = self._inside.get(index, self._holders)
        before, after = holders.attending(index, self._place.contexts[index])
        before, after = before | belonging.facts, after | belonging.facts
        removed: list[AccessKind] = []
        added: list[tuple[AccessKind, Run]] = []
        for cell in holders.cells_of_subject.get(type_name, ()):
            common, special = cell.kinds(before, after), cell.kinds(before | extra, after | extra)
            run = Run(index, holders, cell, before | extra, after | extra, ())
            removed += [kind for kind in common if kind not in special]
            added += [(kind, run) for kind in special if kind not in common]
        return Correction(removed, added)

    def _changes(self, corrections: Sequence[tuple[Correction, ResourceRef]]) -> tuple[AccessChange, ...]:
        gone: dict[AccessKind, set[ResourceRef]] = {}
        new: dict[AccessKind, list[Run]] = {}
        for correction, ref in corrections:
            for kind in correction.removed:
                gone.setdefault(kind, set()).add(ref)
            for kind, run in correction.added:
                new.setdefault(kind, []).append(run._replace(refs=(ref,)))
        changes = []
        for kind in dict.fromkeys([*self._runs, *new]):
            without, own = gone.get(kind, ()), new.get(kind, ())
            count = self._counts.get(kind, 0) - len(without) + len(own)
            if count:
                runs = chain(self._runs.get(kind, ()), own)
                shown = ((run, ref) for run in runs for ref in run.refs if ref not in without)
                changes.append(self._change(kind, count, list(islice(shown, self._max_examples))))
        return tuple(changes)

    def _change(self, kind: AccessKind, count: int, shown: Sequence[tuple[Run, ResourceRef]]) -> AccessChange:
        first = shown[0][0]
        extra = FOR_AI_RESPONSE if kind.purposes == (PURPOSE_AI_RESPONSE,) else 0
        cell = first.cell
        before, after = (
            self._without_rules(first, self._place.contexts[first.at])
            if cell.before is None or cell.after is None
            else (None, None)
        )
        return AccessChange(
            kind=kind,
            count=count,
            examples=tuple(Example(ref, self._place.scopes[run.at]) for run, ref in shown),
            before=before if cell.before is None else cell.before.verdict(first.before_facts | extra),
            after=after if cell.after is None else cell.after.verdict(first.after_facts | extra),
        )
