"""Writes groups until it is killed: two courses a write. Each revision is a line on standard error once it is
acknowledged."""

from __future__ import annotations

import os
import sys

from authz.domain.entities import Course
from authz.domain.mutations import WriteRequest
from authz.domain.tokens import ConsistencyToken
from tests.store.directory import create, open_with


def main() -> None:
    """Never returns."""
    store, number, name = open_with(sys.argv[1]), 0, os.getpid()
    while True:
        group = []
        for _ in range(int(sys.argv[2])):
            number += 1
            courses = (Course(id=f"{half}-{name}-{number}") for half in "ab")
            group.append(WriteRequest(mutations=tuple(create(course) for course in courses)))
        for state in store.directory.write_group(group):
            assert isinstance(state, ConsistencyToken)
            print(state.revision, file=sys.stderr, flush=True)
