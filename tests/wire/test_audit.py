"""Changes of the audit trail as messages and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.audit import LoggedChange
from authz.domain.entities import KINDS, Kind
from authz.domain.mutations import Mutation, Operation
from authz.v1 import audit_pb2 as pb
from authz.wire.audit import change_message, parse_change
from tests.properties import examples
from tests.records import entities


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
@examples(10)
@given(data=st.data())
def test_the_change_of_a_record_of_any_kind_is_read_as_it_was(kind: Kind, data: st.DataObject) -> None:
    record = data.draw(entities(kind))
    for mutation in (
        Mutation(Operation.CREATE, record),
        Mutation(Operation.TOUCH, record, before=record),
        Mutation(Operation.DELETE, record),
    ):
        change = LoggedChange(
            revision=7, committed_at=1, actor="service:a", reason="why", request_id="r", mutation=mutation
        )
        sent = change_message(change).SerializeToString()
        assert parse_change(pb.LoggedChange.FromString(sent)) == change
