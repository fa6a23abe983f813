"""Policies to publish: the shipped one, with rows more or less."""

from __future__ import annotations

from authz.policy.load import POLICY_FILE, policy_directory
from authz.policy.versions import read_folder

SHIPPED = read_folder(policy_directory())


def with_rows(*rows: str) -> dict[str, str]:
    """The files of the shipped policy with more rows."""
    return SHIPPED | {POLICY_FILE: SHIPPED[POLICY_FILE] + "".join(f"{row}\n" for row in rows)}


CLOSED = with_rows("p, *, *, material, read, , deny")
"""Nobody reads a material."""
