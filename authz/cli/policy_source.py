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


def policy_files(server: Server, folder: Path | None, version: str) -> dict[str, str]:
    """The files of a folder, by default of the shipped policy, or of a version on the server."""
    from authz.policy.load import policy_directory, read_folder

    if not version:
        return read_folder(folder or policy_directory())
    if folder is not None:
        raise ValueError("name a folder or `--version`, not both")
    return version_files(server.client, version)


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


def read_course_file(file: Path) -> dict[str, str]:
    """A file as the files of a course's policy. Raises `ValueError` for what is no text file."""
    from authz.policy.course import COURSE_FILE

    if file.is_dir():
        raise ValueError(f"`{file}` is a folder; the policy of a course is one file: name that")
    try:
        return {COURSE_FILE: file.read_bytes().decode()}
    except UnicodeDecodeError:
        raise ValueError(f"`{file}` is not UTF-8; save it as UTF-8") from None


def load_in_course(server: Server, course: str, file: Path | None, version: str) -> CoursePolicy:
    """The policy of a course from a file, else a version of it on the server, under what is active there.

    Raises `PolicyError` with every fault.
    """
    from authz.policy.course import load_course_policy
    from authz.policy.invariants import read_invariants
    from authz.policy.load import compile_files

    if file is not None and version:
        raise ValueError("name a file or `--version`, not both")
    of_platform = server.client.policies.files()
    if file is None:
        files = version_files(server.client, version or ACTIVE, course)
    else:
        files = read_course_file(file)
    platform = compile_files(of_platform)
    policy = load_course_policy(platform, course, files)
    return CoursePolicy(policy, platform, read_invariants(of_platform, platform.vocabulary))


def version_files(client: Client, text: str, course: str = "") -> dict[str, str]:
    """The files of an argument: `draft:NAME`, or a version."""
    if text.startswith(DRAFT):
        return client.policies.drafts.read(text.removeprefix(DRAFT), course_id=course).files
    return client.policies.files(version_number(text), course_id=course)


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
