"""Where the files go that belong to a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from authz.domain.errors import InvalidArgumentError
from authz.store import companion_path


def test_they_are_beside_a_sqlite_file() -> None:
    assert companion_path("sqlite:////var/lib/authz.db", ".replica") == Path("/var/lib/authz.db.replica")


def test_databases_of_one_name_on_several_hosts_share_none() -> None:
    urls = (
        "postgresql://authz@db1/authz",
        "postgresql://authz@db2/authz",
        "postgresql://authz@db1:5433/authz",
        "postgresql://authz@/authz?host=db1&host=db2",
        "postgresql://authz@db1/other",
    )
    paths = [companion_path(url, ".replica") for url in urls]
    assert len(set(paths)) == len(urls)
    assert all(path.name.startswith(("authz-authz-", "authz-other-")) for path in paths)
    # Who asks does not matter, and no password is told.
    assert companion_path("postgresql://somebody:secret@db1/authz", ".replica") == paths[0]


def test_a_url_of_no_database_is_refused() -> None:
    with pytest.raises(InvalidArgumentError):
        companion_path("mysql://db1/authz", ".replica")
