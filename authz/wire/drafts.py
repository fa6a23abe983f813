"""Drafts of the policy between protobuf and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.message import Message

from authz.domain.drafts import (
    AddRow,
    DeleteFile,
    DraftKey,
    Edit,
    PolicyDraft,
    Publication,
    PutFile,
    RemoveRow,
    SetCell,
)
from authz.domain.errors import malformed
from authz.domain.ids import parse_id
from authz.v1 import policy_pb2 as pb
from authz.wire.fields import file_messages
from authz.wire.policies import parse_policy_scope
from authz.wire.values import missing, time_message


def parse_draft_key(request: Message) -> DraftKey:
    """The draft that a request names, among those of the platform or of a course."""
    named: Any = request
    return DraftKey(parse_id(named.id, field="id"), parse_policy_scope(named.course_id))


def parse_etag(text: str) -> int:
    """The etag of a draft, as it was sent to the client."""
    if not text:
        raise missing("etag")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):  # noqa: PLR2004  fits a column
        raise malformed("etag", "is none that this service gave; send that of the draft as last read")
    return int(text)


def parse_edits(messages: Iterable[pb.PolicyEdit]) -> Iterator[Edit]:
    """The edits, in order."""
    for position, message in enumerate(messages):
        match message.WhichOneof("edit"):
            case "set_cell":
                cell = message.set_cell
                yield SetCell(cell.role, cell.type, cell.action, tuple(cell.when))
            case "add_row":
                yield AddRow(message.add_row)
            case "remove_row":
                yield RemoveRow(message.remove_row)
            case "put_file":
                yield PutFile(message.put_file.name, message.put_file.text)
            case "delete_file":
                yield DeleteFile(message.delete_file)
            case _:
                raise missing(f"edits[{position}].edit")


def edit_message(edit: Edit) -> pb.PolicyEdit:
    """An edit as a message."""
    match edit:
        case SetCell():
            cell = pb.PolicyCellEdit(role=edit.role, type=edit.type, action=edit.action, when=edit.when)
            return pb.PolicyEdit(set_cell=cell)
        case AddRow():
            return pb.PolicyEdit(add_row=edit.row)
        case RemoveRow():
            return pb.PolicyEdit(remove_row=edit.row)
        case PutFile():
            message = pb.PolicyEdit()
            message.put_file.name, message.put_file.text = edit.name, edit.text
            return message
        case DeleteFile():
            return pb.PolicyEdit(delete_file=edit.name)


def draft_message(draft: PolicyDraft, *, with_files: bool = False) -> pb.PolicyDraft:
    """A draft as a message."""
    publication = draft.publication
    return pb.PolicyDraft(
        id=draft.id,
        etag=str(draft.etag),
        base_number=draft.base_number,
        files=file_messages(draft.files) if with_files else (),
        author=draft.author,
        course_id=draft.scope.id,
        created_at=time_message(draft.created_at),
        edited_at=time_message(draft.edited_at),
        publication=None if publication is None else _publication_message(publication),
    )


def _publication_message(publication: Publication) -> pb.PolicyPublication:
    return pb.PolicyPublication(
        publish_at=time_message(publication.at),
        author=publication.author or publication.actor,
        reason=publication.reason,
        error=publication.error,
    )
