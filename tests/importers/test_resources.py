"""Lists of resources: what becomes of each column, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from authz.domain.entities import Resource, Visibility
from authz.domain.errors import InvalidArgumentError
from authz.domain.ids import course_scope, parse_subject, session_scope
from authz.domain.instants import parse_instant
from authz.importers.resources import read_resources


def write(folder: Path, text: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_every_column_reaches_its_field(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "type,id,session_id,owner,visibility,published,available_from,available_until,created_at,locked,ai_allowed\n"
        "session_note,n1,s1,user:maya,session,true,2026-01-01,2026-02-01T08:00:00Z,2025-12-31,yes,1\n",
    )
    (found,) = read_resources(path).mutations
    assert found.mutation.target == Resource(
        type="session_note",
        id="n1",
        scope=session_scope("s1"),
        owner=parse_subject("user:maya"),
        visibility=Visibility.SESSION,
        published=True,
        available_from=parse_instant("2026-01-01", field=""),
        available_until=parse_instant("2026-02-01T08:00:00Z", field=""),
        created_at=parse_instant("2025-12-31", field=""),
        locked=True,
        ai_allowed=True,
    )


def test_what_is_not_said_is_private_unpublished_and_without_ai(tmp_path: Path) -> None:
    path = write(tmp_path, "id,course_id\nm1,alg\n")
    (found,) = read_resources(path, type_name="material").mutations
    assert found.mutation.target == Resource(type="material", id="m1", scope=course_scope("alg"))


def test_the_owner_given_is_that_of_rows_that_name_none(tmp_path: Path) -> None:
    path = write(tmp_path, "id,course_id,owner\nm1,alg,\nm2,alg,user:maya\n")
    found = read_resources(path, type_name="material", owner="service:cms").mutations
    targets = [each.mutation.target for each in found]
    assert [str(t.owner) for t in targets if isinstance(t, Resource)] == ["service:cms", "user:maya"]
    with pytest.raises(InvalidArgumentError):
        read_resources(path, type_name="material", owner="maya")


@pytest.mark.parametrize("name", ["list.jsonl", "LIST.JSONL"])
def test_csv_and_json_lines_read_alike(tmp_path: Path, name: str) -> None:
    table = write(tmp_path, "type,id,course_id,published,locked\nmaterial,m1,alg,true,\n")
    lines = write(
        tmp_path,
        '{"type": "material", "id": "m1", "course_id": "alg", "published": true, "locked": null}\n\n',
        name,
    )
    (a,), (b,) = read_resources(table).mutations, read_resources(lines).mutations
    assert a.mutation == b.mutation


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("m1,alg,s1,,", "course_id or session_id must be filled, exactly one of them"),
        ("m1,,,,", "course_id or session_id must be filled, exactly one of them"),
        ("m 1,alg,,,", "id `m 1` has the character ` `"),
        ("m1,alg,,maybe,", "published `maybe` is neither `true` nor `false`"),
        ("m1,alg,,,everyone", "visibility `everyone` is none of PRIVATE, SESSION, COURSE"),
    ],
)
def test_a_bad_row_is_a_fault_and_the_rest_goes_in(tmp_path: Path, row: str, complaint: str) -> None:
    path = write(tmp_path, f"id,course_id,session_id,published,visibility\n{row}\nm2,alg,,,\n")
    reading = read_resources(path, type_name="material")
    (fault,) = reading.faults
    assert str(fault).startswith(f"list.csv:2: {complaint}")
    assert len(reading.mutations) == 1


def test_rows_that_say_different_things_of_one_resource_are_faults(tmp_path: Path) -> None:
    rows = ("m1,alg,true", "m2,alg,true", "m1,alg,false", "m2,alg,true")
    reading = read_resources(
        write(tmp_path, "\n".join(("id,course_id,published", *rows))), type_name="material"
    )
    assert [str(each.mutation.key) for each in reading.mutations] == ["material:m2"]
    assert list(map(str, reading.faults)) == [
        "list.csv:2: material:m1 is on lines 2, 4, which differ; keep one of them",
        "list.csv:4: material:m1 is on lines 2, 4, which differ; keep one of them",
    ]
    assert list(map(str, reading.notes)) == [
        "list.csv:5: material:m2 is also on line 3, which says the same; skipped"
    ]


def test_json_lines_of_other_programs_are_read_or_named(tmp_path: Path) -> None:
    line = '{"id": "m1", "course_id": "alg"}'
    path = tmp_path / "list.jsonl"
    path.write_bytes(f"\ufeff{line}\r\n\r\n".encode())
    (found,) = read_resources(path, type_name="material").mutations
    assert (str(found.mutation.key), found.line) == ("material:m1", 1)
    path.write_bytes(line.encode("utf-16"))
    with pytest.raises(InvalidArgumentError, match=r"list\.jsonl:1: is UTF-16; save the file as UTF-8"):
        read_resources(path)


@pytest.mark.parametrize(
    ("text", "name", "complaint"),
    [
        ("id,course_id,availble_until\nm1,alg,2026-01-01\n", "list.csv", "did you mean `available_until`?"),
        ("id,course_id,id\nm1,alg,m1\n", "list.csv", "has the column `id` twice"),
        ("course_id\nalg\n", "list.csv", "has no column `id`"),
        ("", "list.csv", "is empty"),
        ('{"id": "m1", "publishd": true}\n', "list.jsonl", "--ignore publishd"),
        ('{"id": 7}\n', "list.jsonl", "list.jsonl:1: is not a JSON object"),
        ("[]\n", "list.jsonl", "list.jsonl:1: is not a JSON object"),
        (
            '{"id": "m1", "locked": true, "locked": false}\n',
            "list.jsonl",
            "list.jsonl:1: has the key `locked` twice",
        ),
        ('{"id": "m1", "\\u0069d": "m2"}\n', "list.jsonl", "list.jsonl:1: has the key `id` twice"),
        ('[{"id": "m1"}]', "list.json", "put one JSON object on each line of a file that ends in `.jsonl`"),
    ],
)
def test_a_broken_file_is_refused_whole(tmp_path: Path, text: str, name: str, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        read_resources(write(tmp_path, text, name), type_name="material")
    assert complaint in refused.value.message
