"""Policies to publish: the shipped one, with rows more or less."""

from __future__ import annotations

from pathlib import Path

from authz.policy.cases import TESTS_FOLDER
from authz.policy.compile import CompiledPolicy
from authz.policy.load import (
    MODEL_FILE,
    POLICY_FILE,
    compile_files,
    load_policy,
    policy_directory,
    read_folder,
)

SHIPPED = read_folder(policy_directory())
POLICY = load_policy(policy_directory())
"""The shipped policy, compiled once for all tests of a process."""


def with_rows(*rows: str) -> dict[str, str]:
    """The files of the shipped policy with more rows, and without its tests, which would speak of them."""
    files = {name: text for name, text in SHIPPED.items() if not name.startswith(f"{TESTS_FOLDER}/")}
    return files | {POLICY_FILE: SHIPPED[POLICY_FILE] + "".join(f"{row}\n" for row in rows)}


EXACTING = (
    "p, student, *, notebook, read, !own & !shared_view, deny",
    "p, *, *, message, *, attending & locked, deny",
    "p, *, *, session_note, read, !published & !attending, deny",
    "p, *, *, material, read, !published, deny",
    "p, *, *, material, update, published, deny",
    "p, *, *, material, ai_process, !for_ai_response, deny",
    "p, *, *, session, read, !attending, deny",
    "p, auditor, course:a, *, *, ai_enabled, allow",
    "p, student, course:course:a, notebook, read, locked, deny",
    "p, platform_admin, course:teacher, session, *, , allow",
)
"""Rows with negated facts, with facts that depend on the subject, and of single courses."""


def exacting_policy() -> CompiledPolicy:
    """The shipped policy with rows that lists and explanations find hard to see through."""
    return policy_with(*EXACTING)


def policy_with(*rows: str) -> CompiledPolicy:
    """The shipped policy with more rows."""
    return compile_files(with_rows(*rows))


def compiled(rows: str) -> CompiledPolicy:
    """A policy of these rows, with the shipped model."""
    return compile_files({MODEL_FILE: SHIPPED[MODEL_FILE], POLICY_FILE: rows})


def written(folder: Path, rows: str) -> Path:
    """A folder with the shipped model and a policy of these rows."""
    (folder / MODEL_FILE).write_bytes((policy_directory() / MODEL_FILE).read_bytes())
    (folder / POLICY_FILE).write_text(rows)
    return folder


SAYS = """\
now = "2026-03-01T12:00:00Z"

[directory]
courses = [{ id = "algebra", state = "ACTIVE" }]
memberships = [{ subject = "user:stu", scope = "course:algebra", role = "student" }]

[cases]
"a student reads the course" = { ask = "user:stu read course:algebra", allowed = true }
"a student changes it" = { ask = "user:stu update course:algebra", allowed = %s }
"""
"""A test file with two cases; the second passes with `false`."""

CLOSED = with_rows("p, *, *, material, read, , deny")
"""Nobody reads a material."""
