"""What docs/clients.md shows in Python runs, and prints what the page says."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from authz.client import Client
from authz.domain.entities import Course, CourseState, Membership, Resource
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation
from tests.serving import served

PAGE = Path(__file__).parents[2] / "docs/clients.md"
STATED_ADDRESS = "127.0.0.1:50051"
ALGEBRA = course_scope("algebra-1")
CAMPUS = (
    Course(id="algebra-1", state=CourseState.ACTIVE),
    Membership(subject=parse_subject("user:maya"), scope=ALGEBRA, role="student"),
    Resource(type="material", id="m-1", scope=ALGEBRA, published=True),
)


def test_every_example_in_python_prints_what_it_says(sqlite_url: str) -> None:
    # Those without an import are parts of what is in `examples/`, which other tests run.
    found = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    blocks = [block for block in found if "import" in block]
    assert len(blocks) > 2
    with served(sqlite_url) as address:
        with Client(address) as client:
            client.write([Mutation(Operation.CREATE, entity) for entity in CAMPUS])
        for block in blocks:
            printed = StringIO()
            with redirect_stdout(printed):
                exec(block.replace(STATED_ADDRESS, address), {"__name__": "__main__"})  # noqa: S102  our page
            assert printed.getvalue().splitlines() == re.findall(r"# prints: (.*)", block), block
