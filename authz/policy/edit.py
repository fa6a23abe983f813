"""Edits the files of a policy: by cell, by row or by file. Comments, other rows and their order stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from authz.domain.decisions import Rule
from authz.domain.drafts import AddRow, DeleteFile, Edit, Files, PutFile, RemoveRow, SetCell
from authz.domain.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    PolicyError,
    PolicyFault,
    invalid,
    precondition_failed,
)
from authz.domain.facts import FACTS_BY_NAME
from authz.domain.ids import course_scope
from authz.domain.vocabulary import Vocabulary, suggest
from authz.policy.compile import Clause, CompiledPolicy
from authz.policy.condition import Condition, condition_terms, parse_condition
from authz.policy.course import COURSE_FILE, load_course_policy
from authz.policy.load import POLICY_FILE, compile_files
from authz.policy.prove import never_cancelled
from authz.policy.rules import ALLOW, ANY, unknown_fact
from authz.policy.situations import closure

_invalid = partial(invalid, "edits")
_ROW_FILES = (POLICY_FILE, COURSE_FILE)
_MAX_PROBLEMS = 5
"""Named in one error, which has a limit in gRPC."""
_MAX_ROW = 500
"""Characters of a row that a fault quotes."""
_ROLE, _TYPE, _ACTION = 1, 3, 4
"""The places of these fields in a `p` row."""


class Course(NamedTuple):
    """A course whose own policy is edited, and the platform's policy, with which it decides."""

    id: str
    platform: CompiledPolicy


def edit_files(
    files: Files,
    edits: Iterable[Edit],
    course: Course | None = None,
    require_not_cancelled: Callable[[], object] = never_cancelled,
) -> dict[str, str]:
    """The files after the edits, made in order: of the platform's policy, or of that of a course.

    Before each, as one of a large policy takes seconds, it calls `require_not_cancelled`, which raises to end
    them. Raises `InvalidArgumentError` for edits that name what is not there, `FailedPreconditionError` for a
    cell that its rows cannot express, and `PolicyError`, with faults of `with_lines`, if a cell is set while
    the rows have faults.
    """
    edited, rows = dict(files), _file_of(course)
    problems: list[str] = []
    for edit in edits:
        require_not_cancelled()
        lines = edited.get(rows, "").split("\n")
        try:
            match edit:
                case SetCell():
                    edited[rows] = _set_cell(edited, edit, lines, course)
                case AddRow():
                    edited[rows] = _joined(_added(lines, [_one_line(edit.row)]))
                case RemoveRow():
                    edited[rows] = _joined(_removed(lines, edit.row))
                case PutFile():
                    edited[edit.name] = edit.text
                case DeleteFile():
                    if edited.pop(edit.name, None) is None:
                        raise _invalid(f"there is no file `{edit.name}`; {suggest(edit.name, edited)}")
        except InvalidArgumentError as error:
            problems.append(error.message)
        except PolicyError as error:
            raise PolicyError(with_lines(error.faults, edited)) from None
    _require_none(problems)
    return edited


def with_lines(faults: Iterable[PolicyFault], files: Files) -> tuple[PolicyFault, ...]:
    """The faults of the files of a draft, each with the row that an edit has to name to remove it: nobody
    sees the lines of a draft by their number."""
    lines = {name: files.get(name, "").split("\n") for name in _ROW_FILES}
    return tuple(_with_line(fault, lines.get(fault.file, ())) for fault in faults)


def _with_line(fault: PolicyFault, lines: Sequence[str]) -> PolicyFault:
    row = lines[fault.line - 1].strip() if fault.line <= len(lines) else ""
    fields = _fields(row)
    if not any(fields) or len(row) > _MAX_ROW:
        return fault
    is_repeated = [_fields(line) for line in lines].count(fields) > 1
    how = "removes wherever it is; add it again (`--add`) to keep one" if is_repeated else "removes"
    return fault._replace(text=f"{fault.text}; the row is `{row}`, which `--remove` {how}")


def _require_none(problems: Sequence[str]) -> None:
    """Raise `InvalidArgumentError` with the first of the problems and how many there are beyond."""
    if problems:
        more = f"; and {len(problems) - _MAX_PROBLEMS} more problems" if len(problems) > _MAX_PROBLEMS else ""
        raise _invalid("; also, ".join(problems[:_MAX_PROBLEMS]) + more)


def rebase_files(base: Files, changed: Files, onto: Files) -> dict[str, str]:
    """The files `onto`, with what was changed since `base`.

    The file of rows is merged by row: one that was only moved stays where `onto` has it. Raises
    `FailedPreconditionError` for a row that both have changed, and for another file that differs on both.
    """
    merged: dict[str, str] = {}
    for name in sorted({*base, *changed, *onto}):
        old, mine, theirs = base.get(name), changed.get(name), onto.get(name)
        if mine == old:
            mine = theirs
        elif theirs not in (old, mine):
            if old is None or mine is None or theirs is None or name not in _ROW_FILES:
                raise precondition_failed(
                    f"both the draft and the active version have changed `{name}`; export the active version,"
                    " make your change to its file, and put that into the draft",
                    file=name,
                )
            lines = [text.rstrip("\n").split("\n") for text in (old, mine, theirs)]
            _require_no_row_of_both(name, *lines)
            mine = _joined(_merged(*lines))
        if mine is not None:
            merged[name] = mine
    return merged


def _require_no_row_of_both(
    name: str, base: Sequence[str], mine: Sequence[str], theirs: Sequence[str]
) -> None:
    """Raise `FailedPreconditionError` for a row that both sides have removed, and one has replaced.

    Both replacements would allow more than either side wanted, and one of them what the other took away.
    """
    before, here, there = set(base), set(mine), set(theirs)
    replaced = {_what_row_is_about(line) for line in (here ^ there) - before}
    for line in base:
        if line not in here and line not in there and _what_row_is_about(line) in replaced:
            raise precondition_failed(
                f"both the draft and the active version have changed the row `{line}`; make a draft of the"
                " active version, and make your change there",
                file=name,
            )


def _what_row_is_about(line: str) -> tuple[str, ...]:
    """The cell of a rule, and of another row what it declares. A comment is about nothing else."""
    fields = [field.strip() for field in line.split(",")]
    return tuple(fields[:5] if fields[0] == "p" else fields[:2])


def _merged(base: Sequence[str], mine: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """The lines `theirs` without those that `mine` has removed since `base`, and with those that it has
    added, each after the line that it follows in `mine`."""
    known, there, removed = set(base), set(theirs), {*base} - {*mine}
    after, added = "", dict[str, list[str]]()
    for line in mine:
        if line in there:
            after = line if line.strip() else after
        elif line not in known:
            added.setdefault(after, []).append(line)
    merged = added.pop("", [])
    for line in theirs:
        if line not in removed:
            merged.append(line)
        merged += added.pop(line, ())
    return merged


def _file_of(course: Course | None) -> str:
    return POLICY_FILE if course is None else COURSE_FILE


def _set_cell(files: Files, cell: SetCell, lines: list[str], course: Course | None) -> str:
    policy = compile_files(files) if course is None else load_course_policy(course.platform, course.id, files)
    _require_none([*_unknown_names(cell, policy.vocabulary)])
    wanted = _minimal([parse_condition(text.strip()) for text in cell.when])
    denies, allows = policy.clauses(course and course.id, cell.role, cell.type, cell.action)
    others = [clause for clause in allows if not _is_of_cell(clause.rule, cell, course)]
    for clause in others:
        if not any(_implies(clause.condition, each) for each in wanted):
            raise _given_by(clause.rule, cell, course)
    needed = [each for each in wanted if not any(_implies(each, clause.condition) for clause in others)]
    stopping = [clause for clause in denies if _stops(clause, wanted)]
    for clause in stopping:
        if not _is_of_cell(clause.rule, cell, course):
            raise _denied_by(clause.rule, cell, course)
    own = {clause.condition: clause for clause in allows if _is_of_cell(clause.rule, cell, course)}
    gone = [clause for condition, clause in own.items() if condition not in needed] + stopping
    rows = [
        f"p, {cell.role}, {_scope_of(course)}, {cell.type}, {cell.action}, {each}, {ALLOW}"
        for each in needed
        if each not in own
    ]
    # The rows that go are found by their text: those that are added move them.
    texts = {lines[int(clause.rule.source.rpartition(":")[2]) - 1] for clause in gone}
    return _joined([line for line in _added(lines, rows) if line not in texts])


def _unknown_names(cell: SetCell, vocabulary: Vocabulary) -> Iterator[str]:
    """Everything that is wrong with what an edit of a cell names."""
    if cell.role not in vocabulary.roles:
        yield f"unknown role `{cell.role}`; {suggest(cell.role, vocabulary.roles)}"
    try:
        vocabulary.require_action(cell.type, cell.action)
    except InvalidArgumentError as error:
        yield error.message
    for text in cell.when:
        problems = [*_wrong_facts(text)]
        yield from problems
        if not problems and closure(parse_condition(text.strip())) is None:
            yield f"`{text}` never holds; leave out a fact"


def _wrong_facts(text: str) -> Iterator[str]:
    for name, negated in condition_terms(text.strip()):
        if name not in FACTS_BY_NAME:
            problem = unknown_fact(name, 'for "or", write `;` between alternatives')
            yield f"{problem}; for no condition, write `always` or `never`"
        elif negated:
            yield f"negates `{name}`, which only a deny row may; add such a row for `{name}`"


def _minimal(conditions: Sequence[Condition]) -> list[Condition]:
    """Those that no other one covers, each once."""
    once = list(dict.fromkeys(conditions))
    return [
        one
        for place, one in enumerate(once)
        if not any(
            _implies(one, other) and (not _implies(other, one) or at < place)
            for at, other in enumerate(once)
            if at != place
        )
    ]


def _implies(one: Condition, other: Condition) -> bool:
    known = closure(one)
    return known is None or other.follows_from(known)


def _stops(clause: Clause, wanted: Sequence[Condition]) -> bool:
    """Whether a deny that names roles is in the way. Gates, which stop every role, stay as they are."""
    return clause.rule.role != ANY and any(closure(clause.condition, each) is not None for each in wanted)


def _scope_of(course: Course | None) -> str:
    return ANY if course is None else str(course_scope(course.id))


def _is_of_cell(rule: Rule, cell: SetCell, course: Course | None) -> bool:
    """Whether the edit may change the rule: it is of this cell, and in the file that is edited."""
    same = (cell.role, _scope_of(course), cell.type, cell.action)
    return (rule.role, rule.scope, rule.type, rule.action) == same and _is_in(rule, course)


def _is_in(rule: Rule, course: Course | None) -> bool:
    return rule.source.startswith(f"{_file_of(course)}:")


def _fields(line: str) -> list[str]:
    return [] if line.lstrip().startswith("#") else [field.strip() for field in line.split(",")]


def _one_line(row: str) -> str:
    if "\n" in row or "\r" in row:
        raise _invalid("a row is one line; send an edit for each")
    if not any(_fields(row)):
        raise _invalid(f"`{row}` is no row; write fields, such as `p, student, *, quiz, read, , allow`")
    return row.strip()


def _removed(lines: list[str], row: str) -> list[str]:
    wanted = _fields(row)
    left = [line for line in lines if _fields(line) != wanted]
    if not any(wanted) or len(left) == len(lines):
        raise _invalid(f"there is no row `{row}`; `authz policy show` lists them")
    return left


def _added(lines: list[str], rows: Sequence[str]) -> list[str]:
    """With each row after the rows that are most like it: of its cell, of its action, of its type."""
    lines = list(lines)
    for row in rows:
        fields = _fields(row)
        compared = (0, _TYPE, _ACTION, _ROLE) if len(fields) > _ACTION else (0,)
        most, place = 1, len(lines)
        while place and not lines[place - 1].strip():
            place -= 1
        for number, line in enumerate(lines):
            found = _fields(line)
            if len(found) == len(fields):
                pairs = enumerate((found[at], fields[at]) for at in compared)
                alike = next((count for count, (one, other) in pairs if one != other), len(compared))
                if alike >= most:
                    most, place = alike, number + 1
        lines.insert(place, row)
    return lines


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(lines).rstrip("\n") + "\n"


def _given_by(rule: Rule, cell: SetCell, course: Course | None) -> FailedPreconditionError:
    how, remedy = "it is for more than this cell", "change that row, or add"
    if not _is_in(rule, course):
        how, remedy = "it is the platform's", "add"
    elif rule.role not in (cell.role, ANY):
        how = f"`{cell.role}` inherits it"
    when = f" when {rule.condition}" if rule.condition else ""
    return _inexpressible(
        f"the row {rule.source} allows {cell.action} on {cell.type}{when}, and {how}; {remedy}"
        f" `p, {cell.role}, {_scope_of(course)}, {cell.type}, {cell.action}, , deny`, which also denies"
        " holders of other roles",
        rule,
    )


def _denied_by(rule: Rule, cell: SetCell, course: Course | None) -> FailedPreconditionError:
    how = "is for more than this cell; change that row first"
    if not _is_in(rule, course):
        how = "is the platform's, which no row of a course can undo"
    return _inexpressible(
        f"the row {rule.source} denies {cell.action} on {cell.type} to `{cell.role}`, and {how}", rule
    )


def _inexpressible(problem: str, rule: Rule) -> FailedPreconditionError:
    return precondition_failed(problem, row=rule.source)
