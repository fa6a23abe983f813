"""CSV files: which rows they have, and on which line they are malformed."""

from __future__ import annotations

import io
from typing import Any

import pytest

from authz.domain.errors import InvalidArgumentError
from authz.importers.tables import Record, read_csv


def read(content: bytes | str) -> list[tuple[int, Record]]:
    stream = io.BytesIO(content.encode() if isinstance(content, str) else content)
    return list(read_csv(stream, "x.csv", ("id", "role"), ("endDate",)))


def refusal(content: bytes | str) -> str:
    with pytest.raises(InvalidArgumentError) as refused:
        read(content)
    return refused.value.message


def test_rows_have_the_number_of_their_first_line() -> None:
    assert read('id,role\n\n1,"a\nb"\n2,c\r\n3,"d ""e"""\n') == [
        (3, {"id": "1", "role": "a\nb"}),
        (5, {"id": "2", "role": "c"}),
        (6, {"id": "3", "role": 'd "e"'}),
    ]


def test_only_the_columns_that_are_named_are_read() -> None:
    assert read("password,role,id,\nsecret,a,1,\n") == [(2, {"role": "a", "id": "1"})]


def test_a_byte_order_mark_and_old_line_ends_are_read() -> None:
    assert read(b"\xef\xbb\xbfid,role\r1,a\r2,b\r") == [
        (2, {"id": "1", "role": "a"}),
        (3, {"id": "2", "role": "b"}),
    ]


def test_a_row_without_any_value_is_empty() -> None:
    assert read("id,role\n,\n ,\n1,a\n") == [(2, {}), (3, {}), (4, {"id": "1", "role": "a"})]


@pytest.mark.parametrize("lines", [0, 2, 5000])
def test_what_is_not_utf8_is_refused_with_its_line(lines: int) -> None:
    content = b"id,role\n" + b"1,abcdefgh\n" * lines + b"1,Fran\xe7ais\n" + b"2,a\n" * 3
    assert refusal(content) == f"x.csv:{lines + 2}: is not UTF-8 (byte 0xe7); save the file as UTF-8"


def test_utf16_is_named() -> None:
    assert refusal("id,role\n1,a\n".encode("utf-16")) == "x.csv:1: is UTF-16; save the file as UTF-8"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_named(encoding: str) -> None:
    assert refusal("id,role\n1,a\n".encode(encoding)) == (
        "x.csv:1: has NUL characters, as UTF-16 does; save the file as UTF-8"
    )


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_named_also_if_a_letter_is_not_in_ascii(encoding: str) -> None:
    assert refusal("id,role\r\n1,\u00e9\r\n".encode(encoding)) == "x.csv:1: is UTF-16; save the file as UTF-8"


class Endless(io.RawIOBase):
    """A file of one letter, without an end."""

    def __init__(self, letter: bytes) -> None:
        self._letter = letter

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        buffer[:] = self._letter * len(buffer)
        return len(buffer)


@pytest.mark.parametrize("letter", [b"a", b","])
def test_a_line_without_an_end_is_refused(letter: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match=r"x\.csv:1: is a line of 1048576 characters"):
        list(read_csv(io.BufferedReader(Endless(letter)), "x.csv", ("id", "role")))


@pytest.mark.parametrize("lines", [3, 20_000])
def test_a_quote_that_is_not_closed_is_refused_with_the_line_where_it_opens(lines: int) -> None:
    message = refusal('id,role\n1,a\n2,"b\n' + "3,cdefghij\n" * lines)
    assert message.startswith("x.csv:3: is not CSV (")
    assert message.endswith("look for a quote that is not closed")


def test_a_quote_that_is_closed_later_is_refused_with_the_line_where_it_opens() -> None:
    assert refusal('id,role\n1,"a\n2,b\n3,c"\n4\n') == "x.csv:5: has 1 field, and the header has 2"
    assert refusal('id,role\n1,a\n"2,b\n3,c"\n') == (
        "x.csv:3: has 1 field, and the header has 2 on 2 lines; look for a quote that is not closed"
    )


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ("", "is empty; its first line must have the column names"),
        ("id;role;endDate", "is separated by semicolons; save the file separated by commas"),
        ("id\trole", "is separated by tabs; save the file separated by commas"),
        ("id,title", "has no column `role`; its columns are `id`, `title`"),
        ("id,role\x07", "has a column `role\\x07`; did you mean `role`?"),
        ("id,role,enddate", "has a column `enddate`; did you mean `endDate`?"),
        ("id,role,end_date", "has a column `end_date`; did you mean `endDate`?"),
        ("id,role, endDate", "has a column `␠endDate`; did you mean `endDate`?"),
        ("id,role,endDate,endDate", "has the column `endDate` twice; remove one"),
    ],
)
def test_a_header_is_refused_with_what_is_there(header: str, complaint: str) -> None:
    assert refusal(header and header + "\n") == f"x.csv:1: {complaint}"


def test_columns_without_a_name_are_left_out() -> None:
    assert read("id,role,,\n1,a,,\n") == [(2, {"id": "1", "role": "a"})]
