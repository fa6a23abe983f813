"""The policy that a course has of its own, for the commands with `--course`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from authz.cli.connection import connect

if TYPE_CHECKING:
    from authz.domain.decisions import Rule
    from authz.policy.compile import CompiledPolicy
    from authz.policy.invariants import Invariant

Course = Annotated[
    str, typer.Option("--course", help="The id of a course, for the policy that it has of its own: one file.")
]


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


def load_in_course(course: str, file: Path | None, version: str, address: str, database: str) -> CoursePolicy:
    """The policy of a course from a file, else a version of it on the server, under what is active there.

    Raises `PolicyError` with every fault.
    """
    from authz.cli.policy_versions import ACTIVE, version_files
    from authz.policy.course import load_course_policy
    from authz.policy.invariants import read_invariants
    from authz.policy.load import compile_files

    if file is not None and version:
        raise ValueError("name a file or `--version`, not both")
    with connect(address, database) as client:
        of_platform = client.policies.files()
        files = version_files(client, version or ACTIVE, course) if file is None else read_course_file(file)
    platform = compile_files(of_platform)
    policy = load_course_policy(platform, course, files)
    return CoursePolicy(policy, platform, read_invariants(of_platform, platform.vocabulary))
