"""Policy files of spreadsheets and other tools: refused in one sentence, and formatted without loss."""

from __future__ import annotations

import csv
import io
from itertools import cycle, product
from pathlib import Path
from typing import Any

import pytest

from authz.domain.errors import InvalidArgumentError, PolicyError
from authz.policy.format import format_policy
from authz.policy.load import MODEL_FILE, POLICY_FILE, load_policy, policy_directory
from tests.policies import POLICY, compiled

DEFAULT = (policy_directory() / POLICY_FILE).read_text()
PLAIN_ROWS = [line for line in DEFAULT.splitlines() if line and not line.startswith("#")]


def spreadsheet(
    text: str, delimiter: str, encoding: str, quoting: Any = csv.QUOTE_MINIMAL, before: str = ""
) -> bytes:
    """What a spreadsheet program saves after it opened a file: each row as wide as the widest."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    rows = [[",".join(line)] if line[0].startswith("#") else line for line in rows]
    width = max(map(len, rows))
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting)
    writer.writerows([*row, *[""] * (width - len(row))] for row in rows)
    return (before + out.getvalue()).encode(encoding)


SAVED: dict[str, tuple[Any, ...]] = {
    "padded": (",", "utf-8"),
    "semicolons": (";", "utf-8"),
    "byte order mark": (",", "utf-8-sig"),
    "semicolons and byte order mark": (";", "utf-8-sig"),
    "tabs in UTF-16": ("\t", "utf-16"),
    "a line that names the separator": (";", "utf-8-sig", csv.QUOTE_MINIMAL, "sep=;\r\n"),
    "a padded line that names the separator": (",", "utf-8", csv.QUOTE_MINIMAL, '"sep=,",,,,,,\r\n'),
    "a line that names the tab, in UTF-16": ("\t", "utf-16", csv.QUOTE_ALL, '"sep=\t"\r\n'),
    "every cell in quotes": (",", "utf-8", csv.QUOTE_ALL),
    "semicolons, every cell in quotes": (";", "utf-8", csv.QUOTE_ALL),
}


@pytest.mark.parametrize("name", SAVED)
def test_what_a_spreadsheet_saves_comes_back_with_every_row(name: str) -> None:
    saved = spreadsheet(DEFAULT, *SAVED[name])
    ours, theirs = POLICY, compiled(format_policy(saved, file=POLICY_FILE))
    assert theirs.rules == ours.rules
    assert theirs.vocabulary == ours.vocabulary
    assert theirs.inherited == ours.inherited


def test_rows_that_are_separated_and_quoted_in_different_ways_come_back_with_every_row(
    tmp_path: Path,
) -> None:
    ways = cycle(product((",", ", ", ";", "; ", "\t"), ("{}", '"{}"')))
    mixed = []
    for line in PLAIN_ROWS:
        separator, quotes = next(ways)
        mixed.append(separator.join(quotes.format(cell.strip()) for cell in line.split(",")))
    for rows in (mixed, mixed[4:] + mixed[:4]):
        formatted = format_policy("\n".join(rows).encode(), file=POLICY_FILE)
        assert sorted(formatted.splitlines()) == sorted(PLAIN_ROWS)
    (tmp_path / MODEL_FILE).write_bytes((policy_directory() / MODEL_FILE).read_bytes())
    (tmp_path / POLICY_FILE).write_text("\n".join((PLAIN_ROWS[0], mixed[4])))
    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path)
    assert [(each.line, each.text) for each in caught.value.faults] == [
        (2, "fields are not separated by commas; run `authz policy format --write` on the file")
    ]


@pytest.mark.parametrize("name", [name for name in SAVED if "UTF-16" not in name])
def test_what_a_spreadsheet_saves_is_refused_with_the_remedy_once(name: str, tmp_path: Path) -> None:
    (tmp_path / MODEL_FILE).write_bytes((policy_directory() / MODEL_FILE).read_bytes())
    (tmp_path / POLICY_FILE).write_bytes(spreadsheet("\n".join(PLAIN_ROWS), *SAVED[name]))
    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path)
    (fault,) = caught.value.faults
    assert "authz policy format --write" in fault.text


def test_the_shipped_policy_is_formatted_as_it_stands() -> None:
    assert format_policy(DEFAULT.encode(), file=POLICY_FILE) == DEFAULT


def test_rows_of_another_tool_keep_their_order_their_kinds_and_their_comments() -> None:
    theirs = (
        b'# kept, with its commas and, "as it is", its quotes\r\n'
        b'p,"student",*,quiz,read,own & published,allow\r\n'
        b"p2, alice, domain1\r\n"
        b"\r\n"
        b"g,owner,teacher\r\n"
    )
    assert format_policy(theirs, file="theirs.csv") == (
        '# kept, with its commas and, "as it is", its quotes\n'
        "p, student, *, quiz, read, own & published, allow\n"
        "p2, alice, domain1\n"
        "\n"
        "g, owner, teacher\n"
    )


def test_a_field_with_a_comma_stays_one_field_for_validation_to_name() -> None:
    formatted = format_policy(b'p,student,*,quiz,"read,grade",,allow\n', file="theirs.csv")
    assert formatted == 'p, student, *, quiz, "read,grade", , allow\n'
    with pytest.raises(PolicyError, match='has a `"`'):
        compiled(DEFAULT + formatted)


@pytest.mark.parametrize("data", [b"p, \xff\xfe\n", "p, a, b\n".encode("utf-16-le")])
def test_bytes_that_are_no_text_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match=r"`roles\.csv` is not UTF-8; save it as UTF-8"):
        format_policy(data, file="roles.csv")


@pytest.mark.parametrize("line_break", ["\r", "\v", "\f", "\x85", "\u2028"])
def test_a_row_behind_a_line_break_that_casbin_does_not_see_is_a_row_again(line_break: str) -> None:
    hidden = f"# nobody reads{line_break}p, *, *, quiz, read, , deny\n"
    assert format_policy(hidden.encode(), file="quiz.csv") == "# nobody reads\np, *, *, quiz, read, , deny\n"


@pytest.mark.parametrize("name", ["invariants.toml", MODEL_FILE])
def test_a_file_of_another_kind_is_refused_rather_than_damaged(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"`{name}` has no row of a policy; name"):
        format_policy((policy_directory() / name).read_bytes(), file=name)
