"""What is not declared does not exist, and the error says what was meant."""

from __future__ import annotations

from functools import partial

import pytest

from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.ids import ScopeKind, is_name
from authz.domain.vocabulary import RoleDeclaration, TypeDeclaration, Vocabulary, suggest
from tests.steps import count_steps

WORDS = Vocabulary(
    {
        "teacher": RoleDeclaration("teacher", ScopeKind.COURSE, 40, True, ""),
        "host": RoleDeclaration("host", ScopeKind.SESSION, 30, False, ""),
    },
    {
        "notebook": TypeDeclaration("notebook", ("create", "read", "update")),
        "course": TypeDeclaration("course", ("create", "read", "archive")),
    },
)


def test_what_is_declared_is_found() -> None:
    assert WORDS.require_role("teacher", ScopeKind.COURSE).rank == 40
    assert WORDS.require_type("notebook").actions == ("create", "read", "update")
    WORDS.require_action("notebook", "read")


@pytest.mark.parametrize(
    ("type_name", "action", "reason", "says"),
    [
        ("notebok", "read", ErrorReason.UNKNOWN_TYPE, "did you mean `notebook`?"),
        ("Notebook", "read", ErrorReason.UNKNOWN_TYPE, "unknown resource type `Notebook`"),
        ("zzz", "read", ErrorReason.UNKNOWN_TYPE, "known are `course`, `notebook`"),
        ("", "read", ErrorReason.UNKNOWN_TYPE, "unknown resource type ``"),
        ("*", "read", ErrorReason.UNKNOWN_TYPE, "unknown resource type `*`"),
        ("notebook", "raed", ErrorReason.UNKNOWN_ACTION, "did you mean `read`?"),
        ("notebook", "*", ErrorReason.UNKNOWN_ACTION, "unknown action `*` on notebook"),
        ("notebook", "", ErrorReason.UNKNOWN_ACTION, "unknown action `` on notebook"),
        ("notebook", "archive", ErrorReason.UNKNOWN_ACTION, "known are `create`, `read`, `update`"),
    ],
)
def test_an_undeclared_type_or_action_is_an_error_and_no_denial(
    type_name: str, action: str, reason: ErrorReason, says: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        WORDS.require_action(type_name, action)
    assert caught.value.reason is reason
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("role", "kind", "says"),
    [
        ("techer", ScopeKind.COURSE, "did you mean `teacher`?"),
        ("teacher", ScopeKind.SESSION, "belongs to a course, not to a session"),
        ("host", ScopeKind.PLATFORM, "belongs to a session, not to a platform"),
        ("*", ScopeKind.COURSE, "unknown role `*`"),
        ("hosts", ScopeKind.COURSE, "unknown role `hosts`; known are `teacher`"),
    ],
)
def test_a_role_is_declared_for_the_kind_of_scope_or_refused(role: str, kind: ScopeKind, says: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        WORDS.require_role(role, kind)
    assert caught.value.reason is ErrorReason.UNKNOWN_ROLE
    assert says in caught.value.message


def test_a_suggestion_is_one_word_or_all_there_are() -> None:
    assert suggest("raed", ["read", "create"]) == "did you mean `read`?"
    assert suggest("xyz", ["read", "create"]) == "known are `create`, `read`"
    assert suggest("xyz", []) == "none is known"


@pytest.mark.parametrize(
    ("word", "character"),
    [("rеad", "U+0435 (CYRILLIC SMALL LETTER IE)"), ("read\u200b", "U+200B (ZERO WIDTH SPACE)")],  # noqa: RUF001  the point
)
def test_a_suggestion_names_a_character_that_the_eye_does_not_tell_apart(word: str, character: str) -> None:
    assert suggest(word, ["read", "create"]) == f"it has {character}; did you mean `read`?"


@pytest.mark.parametrize("name", ["a", "teaching_assistant", "quiz2", "a" * 64])
def test_a_name_is_lower_case(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "A", "2quiz", "_a", "a-b", "a b", "a\n", "*", "é", "a" * 65])
def test_anything_else_is_no_name(name: str) -> None:
    assert not is_name(name)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("raed", "did you mean `read`?"),
        ("not read", "did you mean `read`?"),
        ("kind", "known are `id`, `read`"),
    ],
)
def test_a_suggestion_is_something_that_could_have_been_meant(word: str, told: str) -> None:
    assert suggest(word, ["read", "id"]) == told


def test_of_many_names_some_are_told() -> None:
    told = suggest("?", [f"role_{number:03}" for number in range(500)])
    assert told.startswith("known are `role_000`, ")
    assert told.endswith("`role_029` and 470 more")


def test_an_unknown_name_is_compared_with_few_of_many_names_that_are_like_it() -> None:
    names = [f"an_action_name_that_is_like_the_others_{number:03}" for number in range(400)]
    word = "an_action_name_that_si_like_the_others_123"
    assert suggest(word, names) == f"did you mean `{names[123]}`?"
    few, many = (count_steps(partial(suggest, word, known)) for known in (names[:20], names))
    assert many < 3 * few
