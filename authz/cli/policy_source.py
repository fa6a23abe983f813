"""The policy that a command is about: a folder or a file, or a version or a draft on a server."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from authz.cli.command import Context
from authz.cli.options import DRAFT
from authz.client import CallError, Client
from authz.domain.errors import ErrorReason, PolicyError, PolicyWarning
from authz.domain.files import decode_file, files_digest, files_text, require_files, why_not_utf8
from authz.domain.kinds.fields import MAX_NUMBER

if TYPE_CHECKING:
    from authz.domain.decisions import Rule
    from authz.policy.compile import CompiledPolicy
    from authz.policy.invariants import Invariant

ACTIVE, SHIPPED = "active", "shipped"
SHOWN_DIGEST = 12
"""How much of the digest of a version people see."""


class PolicyFiles(NamedTuple):
    """The files of a policy, what they are of, and the number of the version; 0 for what is none."""

    files: dict[str, str]
    name: str
    number: int = 0

    @property
    def digest(self) -> str:
        """That of the version with these files."""
        return files_digest(files_text(self.files))


def read_policy(
    context: Context, path: Path | None, version: str | None, course: str | None = None
) -> PolicyFiles:
    """The policy of a folder, or with a course of a file; else of a version, by default the active one.

    Says on standard error which policy it is.
    """
    if path is not None and version is not None:
        raise ValueError(f"name a {'file' if course else 'folder'} or `--version`, not both")
    if path is not None:
        name = f"course `{course}` in `{path}`" if course else f"the policy in `{path}`"
        source = PolicyFiles(read_source(path, course), name)
    else:
        source = read_version(context.client, ACTIVE if version is None else version, course)
    print(f"read {source.name}", file=sys.stderr)
    return source


def read_version(client: Client, text: str, course: str | None = None) -> PolicyFiles:
    """A version, by its number or its name."""
    of_course = f" of course `{course}`" if course else ""
    found = version_or_files(client, text, course)
    if not isinstance(found, int):
        return PolicyFiles(found, "the shipped policy" if text == SHIPPED else f"`{text}`{of_course}")
    number = found or client.policies.active_number(course_id=course)
    active = " (active)" if text == ACTIVE else ""
    files = client.policies.files(number, course_id=course)
    return PolicyFiles(files, f"version {number}{active}{of_course}", number)


def read_source(path: Path, course: str | None = None, *, remedy: str = "") -> dict[str, str]:
    """The files of a policy folder, or with a course of the one file of its policy.

    Raises `ValueError` for what is neither. `remedy` is that of a command which takes no version.
    """
    from authz.policy.course import COURSE_FILE
    from authz.policy.load import read_folder

    if not path.exists():
        what = "file" if course else "folder"
        raise ValueError(f"there is no {what} `{path}`; {remedy}" if remedy else _missing(str(path), what))
    if not course:
        if not path.is_dir():
            raise ValueError(
                f"`{path}` is a file; name the folder of the policy, or the course that the file is of by"
                " `--course`"
            )
        files = read_folder(path)
        require_files(files, field=f"`{path}`")
        return files
    if path.is_dir():
        raise ValueError(f"`{path}` is a folder; the policy of a course is one file: name that")
    return {COURSE_FILE: read_text(path)}


def _missing(text: str, what: str) -> str:
    if text.isdigit() or text in (ACTIVE, SHIPPED) or text.startswith(DRAFT):
        return (
            f"`{text}` is no {what}; name a version of the server by an option: `--version {text}`, in `diff`"
            " `--old` and `--new`"
        )
    return f"there is no {what} `{text}`; name one, or a version of the server by an option, see `--help`"


def read_text(path: Path) -> str:
    """The text of a file of a policy, each line of which ends with a newline. Raises `ValueError` if it is
    not UTF-8."""
    data = path.read_bytes()
    try:
        return decode_file(data)
    except UnicodeDecodeError:
        raise ValueError(f"`{path}` {why_not_utf8(path.name, data)}") from None


class CoursePolicy(NamedTuple):
    """The platform's active policy with that of a course, the platform's alone, and its invariants."""

    policy: CompiledPolicy
    platform: CompiledPolicy
    invariants: tuple[Invariant, ...]

    @property
    def own(self) -> tuple[Rule, ...]:
        """The rules of the course."""
        return self.policy.own_rules


def load_in_course(context: Context, course: str, source: PolicyFiles) -> CoursePolicy:
    """The policy of a course under what is active on the platform. Raises `PolicyError` with every fault, and
    `CallError` if there is no such course."""
    from authz.policy.course import load_course_policy
    from authz.policy.invariants import read_invariants
    from authz.policy.load import compile_files

    active_number(context.client, course)  # or there is no such course: a file says nothing of it
    of_platform = context.client.policies.files()
    platform = compile_files(of_platform)
    policy = load_course_policy(platform, course, source.files)
    return CoursePolicy(policy, platform, read_invariants(of_platform, platform.vocabulary))


def active_number(client: Client, course: str | None) -> int:
    """The number of the active version; 0 for a course without a policy of its own. Raises `CallError` if
    there is no such course."""
    try:
        return client.policies.active_number(course_id=course)
    except CallError as error:
        if error.reason != ErrorReason.VERSION_NOT_FOUND:
            raise
        return 0


def version_or_files(client: Client, text: str, course: str | None) -> dict[str, str] | int:
    """A version by its number, which the server reads itself, 0 for the active one; or the files of
    `shipped` or of `draft:NAME`."""
    from authz.policy.load import policy_directory

    if text == SHIPPED:
        if course:
            raise ValueError("no policy of a course is shipped; name a file, or a version of the course")
        return read_source(policy_directory())
    if text.startswith(DRAFT):
        return client.policies.drafts.read(text.removeprefix(DRAFT), course_id=course).files
    names = ("active", "draft:NAME") if course else ("active", "shipped", "draft:NAME")
    return 0 if text == ACTIVE else version_number(text, course, names)


def version_number(text: str, course: str | None, names: Sequence[str]) -> int:
    """The number of an argument. Raises `ValueError` for what is none, with the names that the command takes
    in place of a number."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_NUMBER):
        history = f"authz policy history --course {course}" if course else "authz policy history"
        known = ", ".join(f"`{name}`" for name in names)
        raise ValueError(f"`{text}` is no version; name {known}, or a number that `{history}` lists")
    return int(text)


@contextmanager
def every_fault(client: Client, policy: dict[str, str] | int, course: str | None) -> Iterator[None]:
    """Raise `PolicyError` with all faults of files in place of the error of a call that is refused for them.
    A number is a version, which has none."""
    try:
        yield
    except CallError as error:
        if error.reason == ErrorReason.POLICY_INVALID and not isinstance(policy, int):
            validated(client, policy, course)
        raise


def validated(client: Client, files: dict[str, str], course: str | None) -> list[PolicyWarning]:
    """The warnings. Raises `PolicyError` with all faults: the error of a call has room for few only."""
    found = client.policies.validation(files, course_id=course)
    if found.faults:
        raise PolicyError(tuple(found.faults))
    return found.warnings
