"""The policy that a command is about: a folder or a file, or a version or a draft on a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from authz.cli.command import Server
from authz.client import Client
from authz.domain.errors import PolicyError, PolicyWarning
from authz.domain.kinds.fields import MAX_NUMBER

if TYPE_CHECKING:
    from authz.domain.decisions import Rule
    from authz.policy.compile import CompiledPolicy
    from authz.policy.invariants import Invariant

ACTIVE, DRAFT = "active", "draft:"


def policy_files(server: Server, path: Path | None, version: str, course: str = "") -> dict[str, str]:
    """The files of a folder, or with a course of its file; else of a version on the server.

    By default of the shipped policy, and of the active version of a course.
    """
    from authz.policy.load import policy_directory

    if path is not None and version:
        raise ValueError(f"name a {'file' if course else 'folder'} or `--version`, not both")
    if path is None and (version or course):
        return version_files(server.client, version or ACTIVE, course)
    return read_source(path or policy_directory(), course)


def read_source(path: Path, course: str = "") -> dict[str, str]:
    """The files of a policy folder, or with a course of the one file of its policy.

    Raises `ValueError` for what is neither.
    """
    from authz.policy.course import COURSE_FILE
    from authz.policy.load import read_folder

    if not course:
        if not path.is_dir():
            raise ValueError(f"`{path}` is no folder; name a policy folder, or with `--course` a file")
        return read_folder(path)
    if path.is_dir():
        raise ValueError(f"`{path}` is a folder; the policy of a course is one file: name that")
    try:
        return {COURSE_FILE: path.read_bytes().decode()}
    except UnicodeDecodeError:
        raise ValueError(f"`{path}` is not UTF-8; save it as UTF-8") from None


def named(folder: Path | None, version: str, course: str = "") -> str:
    """What the arguments of a command name."""
    from authz.policy.load import policy_directory

    if course:
        return f"course `{course}` in `{folder}`" if folder else f"course `{course}`"
    return f"the policy in `{folder or policy_directory()}`" if not version else f"version `{version}`"


class CoursePolicy(NamedTuple):
    """The platform's active policy with that of a course, the platform's alone, and its invariants."""

    policy: CompiledPolicy
    platform: CompiledPolicy
    invariants: tuple[Invariant, ...]

    @property
    def own(self) -> tuple[Rule, ...]:
        """The rules of the course."""
        return self.policy.own_rules


def load_in_course(server: Server, course: str, file: Path | None, version: str) -> CoursePolicy:
    """The policy of a course from a file, else a version of it on the server, under what is active there.

    Raises `PolicyError` with every fault.
    """
    from authz.policy.course import load_course_policy
    from authz.policy.invariants import read_invariants
    from authz.policy.load import compile_files

    files = policy_files(server, file, version, course)
    of_platform = server.client.policies.files()
    platform = compile_files(of_platform)
    policy = load_course_policy(platform, course, files)
    return CoursePolicy(policy, platform, read_invariants(of_platform, platform.vocabulary))


def version_files(client: Client, text: str, course: str = "") -> dict[str, str]:
    """The files of an argument: `draft:NAME`, or a version."""
    if text.startswith(DRAFT):
        return client.policies.drafts.read(text.removeprefix(DRAFT), course_id=course).files
    return client.policies.files(version_number(text), course_id=course)


def version_or_files(client: Client, text: str, course: str) -> dict[str, str] | int:
    """A version by its number, which the server reads itself, or the files of a draft."""
    return version_files(client, text, course) if text.startswith(DRAFT) else version_number(text)


def version_number(text: str) -> int:
    """The number of an argument: 0 for the active version. Raises `ValueError` for what is none."""
    if text == ACTIVE:
        return 0
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_NUMBER):
        raise ValueError(
            f"`{text}` is no version; name `active`, `draft:NAME`, or one that `authz policy history` lists"
        )
    return int(text)


def validated(client: Client, files: dict[str, str], course: str = "") -> list[PolicyWarning]:
    """The warnings. Raises `PolicyError` with all faults: the error of a call has room for few only."""
    found = client.policies.validation(files, course_id=course)
    if found.faults:
        raise PolicyError(tuple(found.faults))
    return found.warnings
