"""Writes until it is killed: two courses a write; prints each revision when it is acknowledged."""

from __future__ import annotations

import sys

from authz.domain.entities import Course
from tests.store.directory import create, open_with, write


def main(url: str) -> None:
    """Never returns."""
    store, number = open_with(url), 0
    while True:
        number += 1
        revision = write(store, create(Course(id=f"a{number}")), create(Course(id=f"b{number}")))
        print(revision, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
