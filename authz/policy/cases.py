"""The test files of a policy: a small directory, then who may do what and why.

TOML, as the invariants are: it has a parser in the standard library, strict types and times of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from functools import partial
from typing import Any

import msgspec

from authz.domain.decisions import COURSE_TYPE, CREATE_ACTION, SESSION_TYPE, Question, Reason
from authz.domain.entities import CourseKey, Entity, Key, SessionKey
from authz.domain.errors import AuthzError, PolicyError, PolicyFault, escaped, invalid
from authz.domain.facts import PURPOSE_AI_RESPONSE, PURPOSES
from authz.domain.ids import ResourceRef, Subject, parse_resource_ref, parse_subject
from authz.domain.instants import Instant, format_instant, parse_instant
from authz.domain.mentions import subjects_in
from authz.domain.vocabulary import API_TYPE, Vocabulary, suggest
from authz.policy.counterexample import Counterexample
from authz.policy.directory_tables import directory_tables, parse_directory
from authz.policy.rows import Faults
from authz.policy.toml_tables import convert_table, line_of, read_tables

TESTS_FOLDER = "tests"
_malformed = partial(invalid, "cases")
_SUFFIX = ".toml"
_CASES = "cases"
_BEFORE_RULES = (
    Reason.NOT_A_MEMBER,
    Reason.RESOURCE_UNKNOWN,
    Reason.SCOPE_MISMATCH,
    Reason.PURPOSE_NOT_PERMITTED,
)
"""The reasons for which somebody whom the directory does not know is denied."""


class Case(msgspec.Struct, frozen=True):
    """One question and the answer that it must have. `reason` and `rule_role` may be left open."""

    name: str
    question: Question
    now: Instant
    allowed: bool
    reason: Reason | None = None
    rule_role: str | None = None


class CaseFile(msgspec.Struct, frozen=True):
    """A directory and the cases that are asked of it."""

    name: str
    entities: tuple[Entity, ...]
    cases: tuple[Case, ...]


class _CaseTable(msgspec.Struct, kw_only=True):
    ask: str
    allowed: bool
    reason: str | None = None
    rule: str | None = None
    course: str | None = None
    session: str | None = None
    purpose: str = ""
    now: Any = None


class _FileTable(msgspec.Struct, kw_only=True):
    now: Any
    directory: dict[str, Any]
    cases: dict[str, Any]


def is_case_file(path: str) -> bool:
    """Whether a file of a policy has tests."""
    folder, _, name = path.rpartition("/")
    return folder == TESTS_FOLDER and name.endswith(_SUFFIX)


def read_tests(files: Mapping[str, str], vocabulary: Vocabulary) -> tuple[CaseFile, ...]:
    """The test files among the files of a policy, in the order of their names.

    Raises `PolicyError` with every fault of every file.
    """
    found: list[CaseFile] = []
    faults: list[PolicyFault] = []
    for path, text in sorted(files.items()):
        if is_case_file(path):
            try:
                found.append(read_case_file(path, text, vocabulary))
            except PolicyError as error:
                faults += error.faults
    if faults:
        raise PolicyError(tuple(faults))
    return tuple(found)


def fault_of_case(files: Mapping[str, str], file: str, case: str, problem: str) -> PolicyFault:
    """The fault of a case that fails, at its line."""
    path = f"{TESTS_FOLDER}/{file}"
    text = (
        f"the test `{escaped(case)}` fails: {problem}; change the rule, or the test if that is what you mean"
    )
    return PolicyFault(path, line_of(files[path], _CASES, case), 1, text)


def read_case_file(path: str, text: str, vocabulary: Vocabulary) -> CaseFile:
    """The cases of one file. Raises `PolicyError` with the faults of the directory, which name their records,
    and the fault of each case, at its line."""
    faults = Faults()
    tables = read_tables(path, text, faults)
    faults.require_none()
    file, problems = convert_table(tables, _FileTable)
    for problem in problems:
        faults.add(path, 1, 1, problem)
    faults.require_none()
    assert file is not None  # noqa: S101  else there were faults
    now = 0
    try:
        now = _instant(file.now)
    except AuthzError as error:
        faults.add(path, 1, 1, error.message)
    entities, in_directory = parse_directory(file.directory, vocabulary)
    for problem in in_directory:
        faults.add(path, 1, 1, problem)
    # Of a directory with faults nobody knows what is in it.
    keys = None if in_directory else {entity.key for entity in entities}
    subjects = {subject for entity in entities for subject in subjects_in(entity)}
    cases: list[Case] = []
    for name, table in file.cases.items():
        try:
            cases.append(_case(name, table, now, vocabulary))
            _require_known_purpose(cases[-1])
            if keys is not None:
                _require_registered(cases[-1], keys)
                _require_known_subject(cases[-1], subjects)
        except AuthzError as error:
            faults.add(path, line_of(text, _CASES, name), 1, f"`{escaped(name)}`: {error.message}")
    faults.require_none()
    return CaseFile(path.rpartition("/")[2], entities, tuple(cases))


def _instant(value: object) -> Instant:
    """A time, as text or as TOML has it."""
    return parse_instant(value.isoformat() if isinstance(value, date) else str(value), field="now")


def _case(name: str, data: object, now: Instant, vocabulary: Vocabulary) -> Case:
    table, problems = convert_table(data, _CaseTable)
    if table is None or problems:
        raise _malformed("; ".join(problems))
    words = table.ask.split()
    if len(words) != 3:  # noqa: PLR2004  the three of the message
        raise _malformed(f"ask is `{table.ask}`; write `user:<id> <action> <type>:<id>`")
    subject, action, resource = words
    ref = ResourceRef(resource, "") if action == CREATE_ACTION else parse_resource_ref(resource)
    vocabulary.require_action(ref.type, action)
    reasons = [reason.value for reason in Reason]
    if table.reason is not None and table.reason not in reasons:
        raise _malformed(f"unknown reason `{table.reason}`; {suggest(table.reason, reasons)}")
    if table.rule not in (None, "*", *vocabulary.roles):
        raise _malformed(f"unknown role `{table.rule}`; {suggest(str(table.rule), vocabulary.roles)}")
    question = Question(
        parse_subject(subject),
        action,
        ref,
        stated_course_id=table.course,
        stated_session_id=table.session,
        purpose=table.purpose,
    )
    return Case(
        name,
        question,
        now if table.now is None else _instant(table.now),
        table.allowed,
        None if table.reason is None else Reason(table.reason),
        table.rule,
    )


def _require_known_purpose(case: Case) -> None:
    """Refuse a purpose that is denied whatever the policy says, unless the case expects that."""
    purpose = case.question.purpose
    if purpose not in PURPOSES and case.reason is not Reason.PURPOSE_NOT_PERMITTED:
        raise _malformed(
            f"unknown purpose `{purpose}`; write `{PURPOSE_AI_RESPONSE}`, or none for ordinary use, or expect"
            " PURPOSE_NOT_PERMITTED"
        )


def _require_registered(case: Case, keys: Collection[Key]) -> None:
    """Refuse a question about what is not there: it is denied whatever the policy says."""
    ref, question = case.question.resource, case.question
    if case.reason not in (Reason.RESOURCE_UNKNOWN, Reason.SCOPE_MISMATCH):
        for named, key in (
            (question.stated_course_id, CourseKey(question.stated_course_id or "")),
            (question.stated_session_id, SessionKey(question.stated_session_id or "")),
        ):
            if named is not None and key not in keys:
                raise _malformed(f"`{key}` is not in the directory; add it, or correct the name")
    scopes: dict[str, Key] = {COURSE_TYPE: CourseKey(ref.id), SESSION_TYPE: SessionKey(ref.id)}
    if not ref.id or ref.type == API_TYPE or case.reason is Reason.RESOURCE_UNKNOWN:
        return
    if scopes.get(ref.type, ref) not in keys:
        raise _malformed(f"`{ref}` is not in the directory; add it, or expect RESOURCE_UNKNOWN")


def _require_known_subject(case: Case, subjects: Collection[Subject]) -> None:
    """Refuse the denial of somebody whom no record names, such as by a misspelt id: the case would pass
    whatever the policy says."""
    unknown = case.question.subject not in subjects
    if unknown and not case.allowed and case.reason not in _BEFORE_RULES:
        raise _malformed(
            f"`{case.question.subject}` is in no record of the directory; add a membership, or expect"
            f" {Reason.NOT_A_MEMBER}"
        )


def case_file_of(says: str, example: Counterexample) -> dict[str, Any]:
    """A test file that holds once the counterexample is none any more."""
    question = example.question
    entities, allowed = example.entities, False
    if example.gained is not None:
        entities, allowed = (*entities, example.gained), True
    resource = str(question.resource) if question.resource.id else question.resource.type
    stated = {
        "course": question.stated_course_id,
        "session": question.stated_session_id,
        "purpose": question.purpose,
    }
    case = {"ask": f"{question.subject} {question.action} {resource}", "allowed": allowed}
    return {
        "now": format_instant(example.now),
        "directory": directory_tables(entities),
        "cases": {says: case | {name: value for name, value in stated.items() if value}},
    }


def render(case_file: Mapping[str, Any]) -> str:
    """A test file as TOML."""
    lines = [f"now = {_value(case_file['now'])}", "", "[directory]"]
    for plural, rows in case_file["directory"].items():
        lines += [f"{plural} = [", *(f"  {_value(row)}," for row in rows), "]"]
    lines += ["", "[cases]"]
    lines += [f"{_value(name)} = {_value(case)}" for name, case in case_file["cases"].items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_value(each)}" for name, each in value.items()) + " }"
    return msgspec.json.encode(value).decode()  # a string, a number or a boolean is the same in TOML
