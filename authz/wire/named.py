"""The subject and the resource that a request of any method names, for logs: without what is malformed."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from authz.domain.ids import is_id, is_name
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.wire.values import SUBJECT_TYPES


def subject_named(request: object) -> str:
    """The subject of a request, as `user:<id>`; empty without one."""
    subject = _field(request, "subject")
    if not isinstance(subject, pb.Subject) or subject.type not in SUBJECT_TYPES or not is_id(subject.id):
        return ""
    return f"{SUBJECT_TYPES[subject.type].value}:{subject.id}"


def resource_named(request: object) -> str:
    """The resource of a request, as `<type>:<id>`; the type alone if it has no id; empty without one."""
    query = _field(request, "resource")
    if isinstance(query, apb.ResourceQuery):
        type_name, id_ = query.type, query.id
    else:
        type_name = _text(request, "resource_type") or _text(request, "type")
        id_ = _text(request, "resource_id")
    if not is_name(type_name):
        return ""
    return f"{type_name}:{id_}" if is_id(id_) else type_name


def action_named(request: object) -> str:
    """The action of a request; empty without one."""
    action = _text(request, "action")
    return action if is_name(action) else ""


def _text(request: object, name: str) -> str:
    found = _field(request, name)
    return found if isinstance(found, str) else ""


def _field(request: object, name: str) -> Any:
    if isinstance(request, Message) and name in request.DESCRIPTOR.fields_by_name:
        return getattr(request, name)
    return None
