"""The roles and types that a policy declares. Others do not exist."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from heapq import nlargest
from operator import eq

import msgspec

from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.ids import ScopeKind


class RoleDeclaration(msgspec.Struct, frozen=True):
    """A role: its kind of scope, its rank (higher assigns lower), and the role that it becomes when over.

    `becomes` is empty for a role that becomes nothing.
    """

    name: str
    scope_kind: ScopeKind
    rank: int
    works_in_drafts: bool
    becomes: str

    @property
    def is_kept(self) -> bool:
        """Whether somebody may hold it in a course that is over: it does not become another there."""
        return not self.becomes or self.scope_kind is ScopeKind.PLATFORM


class TypeDeclaration(msgspec.Struct, frozen=True):
    """A resource type with its actions, in the order of declaration."""

    name: str
    actions: tuple[str, ...]


GRANT_ROLES = "grant_roles"
"""The permission, an action of the type `api`, to give roles and credentials to callers."""
API_TYPE = "api"
"""The type whose actions are the permissions of callers. The API itself is the only resource of it."""

MAX_RANK = 1000

_MAX_NAMED = 30
"""Keeps an error message within gRPC's limit, however many names an admin declares."""

_MAX_COMPARED = 10
"""Names that are compared with an unknown one. Each takes 0.1 ms, and a policy may have 1,000 faults and 500
names."""


def join_names(names: Sequence[str], most: int) -> str:
    """The names in a sentence; of more than `most`, the first and how many there are beyond."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def suggest(word: str, words: Iterable[str]) -> str:
    """The end of an error message: the known word nearest to `word`, else the known words."""
    known = sorted(words)
    # In `word`, longer with its beginning, or of about the same length: `id` is no suggestion for `kind`.
    alike = [
        name
        for name in known
        if name in word or name.startswith(word) or abs(len(name) - len(word)) <= max(1, len(word) // 3)
    ]
    if not known:
        return "none is known"
    near = difflib.get_close_matches(word, nlargest(_MAX_COMPARED, alike, partial(_shared, word)), n=1)
    if near:
        return f"{_unlike_ascii(word)}did you mean `{near[0]}`?"
    return f"known are {join_names([f'`{name}`' for name in known], _MAX_NAMED)}"


def _shared(one: str, other: str) -> int:
    """How many characters are the same, counted from the beginnings and from the ends."""
    same: int = sum(map(eq, one, other)) + sum(map(eq, reversed(one), reversed(other)))
    return same


def _unlike_ascii(word: str) -> str:
    """Which character of a word is none of ASCII: it may be invisible, or look like one."""
    other = next((each for each in word if not each.isascii()), "")
    return f"it has U+{ord(other):04X} ({unicodedata.name(other, 'a character')}); " if other else ""


class Vocabulary(msgspec.Struct, frozen=True):
    """The declarations of a policy, by name.

    `administrators` are the roles on the platform that may edit its policy, `granters` those that permit a
    caller to give roles to callers.
    """

    roles: Mapping[str, RoleDeclaration]
    types: Mapping[str, TypeDeclaration]
    administrators: frozenset[str] = frozenset()
    granters: frozenset[str] = frozenset()

    @property
    def resource_types(self) -> Mapping[str, TypeDeclaration]:
        """The types but `api`."""
        return {name: declared for name, declared in self.types.items() if name != API_TYPE}

    @property
    def actions(self) -> Iterator[tuple[str, str]]:
        """Every type with each of its actions, in the order of declaration."""
        return ((declared.name, action) for declared in self.types.values() for action in declared.actions)

    def require_role(self, name: str, kind: ScopeKind) -> RoleDeclaration:
        """The declaration of a role. Raises `InvalidArgumentError` (UNKNOWN_ROLE)."""
        role = self.roles.get(name)
        if role is not None and role.scope_kind is kind:
            return role
        problem = f"unknown role `{name}`"
        if role is not None:
            problem = f"role `{name}` belongs to a {role.scope_kind.value}, not to a {kind.value}"
        known = (each.name for each in self.roles.values() if each.scope_kind is kind)
        message = f"{problem}; {suggest(name, known)}"
        raise InvalidArgumentError(ErrorReason.UNKNOWN_ROLE, message, role=name)

    def require_type(self, name: str, *, refused: Collection[str] = ()) -> TypeDeclaration:
        """The declaration of a type. Raises `InvalidArgumentError` (UNKNOWN_TYPE), which suggests none of the
        `refused`."""
        declared = self.types.get(name)
        if declared is None:
            known = [each for each in self.types if each not in refused]
            raise InvalidArgumentError(
                ErrorReason.UNKNOWN_TYPE,
                f"unknown resource type `{name}`; {suggest(name, known)}",
                type=name,
            )
        return declared

    def require_action(self, type_name: str, action: str, *, refused: Collection[str] = ()) -> None:
        """Raise `InvalidArgumentError` (UNKNOWN_TYPE or UNKNOWN_ACTION) unless the type has the action. It
        suggests no type and no action that is `refused`."""
        declared = self.require_type(type_name, refused=refused)
        if action not in declared.actions:
            known = [each for each in declared.actions if each not in refused]
            raise InvalidArgumentError(
                ErrorReason.UNKNOWN_ACTION,
                f"unknown action `{action}` on {type_name}; {suggest(action, known)}",
                type=type_name,
                action=action,
            )
