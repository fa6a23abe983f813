"""The ids of a roster: which are kept, which are replaced and recorded, and what a `source_ref` holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.errors import InvalidArgumentError
from authz.domain.ids import is_id
from authz.domain.instants import MAX_INSTANT, MIN_INSTANT
from authz.importers.oneroster.source_ref import MAX_SOURCED_ID_LENGTH, SourceRef, parse_source_ref
from authz.importers.oneroster.sourced_ids import SourcedIds
from tests.properties import examples

MAX_SOURCE_REF_LENGTH = 256
EVERYTHING = ";modified=2026-09-01T08:00:00.123456Z;term;suspended=row;suspended=user"


def test_ids_of_up_to_255_characters_are_replaced_by_shorter_ones_that_stay_the_same() -> None:
    ids, long = SourcedIds(), "c" * 255
    new = ids.parse(long, field="classSourcedId")
    assert is_id(new)
    assert (new, ids.replaced) == (SourcedIds().parse(long, field=""), {new: long})
    assert ids.parse("c" * 254, field="") != new


def test_an_id_that_looks_like_a_replaced_one_is_replaced() -> None:
    ids = SourcedIds()
    new = ids.parse("c" * 200, field="")
    assert ids.parse(new, field="") != new
    assert ids.parse_reference(new) != new


@pytest.mark.parametrize("text", ["", "c 1", "c" * 256, "c" * 128 + "é", "\x1b[2J"])
def test_other_ids_are_refused_in_characters_that_can_be_printed(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        SourcedIds().parse(text, field="classSourcedId")
    assert refused.value.message.startswith("classSourcedId ")
    assert refused.value.message.isprintable()


def test_replaced_ids_are_added_to_a_file(tmp_path: Path) -> None:
    path, originals = tmp_path / "ids.csv", {"c" * 200, "u" * 200}
    for original in originals:
        ids = SourcedIds()
        ids.parse(original, field="")
        ids.save(path)
    header, *rows = path.read_text().splitlines()
    assert header == "id,sourcedId"
    assert {row.split(",")[1] for row in rows} == originals
    assert [each.name for each in tmp_path.iterdir()] == ["ids.csv"]


refs = st.builds(
    SourceRef,
    st.text(max_size=20),
    st.none() | st.integers(MIN_INSTANT, MAX_INSTANT),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


@given(refs)
@examples(300)
def test_a_source_ref_reads_as_it_was_written(ref: SourceRef) -> None:
    if parse_source_ref(ref.sourced_id) == SourceRef(ref.sourced_id):
        assert parse_source_ref(str(ref)) == ref


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=255))
@examples(300)
def test_any_sourced_id_fits_into_a_source_ref_and_is_found_again(text: str) -> None:
    ids = SourcedIds()
    kept = ids.parse_reference(text)
    assert len(kept) <= MAX_SOURCED_ID_LENGTH
    assert ids.replaced.get(kept, kept) == text
    assert parse_source_ref(kept + EVERYTHING).sourced_id == kept
    assert len(kept + EVERYTHING) <= MAX_SOURCE_REF_LENGTH


@pytest.mark.parametrize("text", ["e1" + EVERYTHING, "e1;term", "e1;suspended=user"])
def test_a_sourced_id_cannot_pretend_what_the_roster_did(text: str) -> None:
    kept = SourcedIds().parse_reference(text)
    assert parse_source_ref(kept) == SourceRef(kept)
