"""The file of a SQLite database, opened by several engines and processes."""

from __future__ import annotations

import subprocess
import sys

from authz.domain.entities import Course
from tests.store.directory import create, open_with, write


def test_a_second_engine_leaves_the_locks_of_the_first(sqlite_url: str) -> None:
    first = open_with(sqlite_url)
    write(first, create(Course(id="c")))
    second = open_with(sqlite_url)
    # Another process that believes to be the last deletes the write-ahead log when it closes.
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM counter'); c.close()"
    )
    subprocess.run([sys.executable, "-c", program, sqlite_url.removeprefix("sqlite:///")], check=True)
    assert write(first, create(Course(id="d"))) == 2
    assert second.directory.head().revision == 2
    second.close()
    first.close()
