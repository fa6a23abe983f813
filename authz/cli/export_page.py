"""An export of a subject as a page to read: HTML without scripts or anything from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from authz.domain.entities import Entity, kind_of
from authz.domain.exports import (
    ExportBegin,
    ExportedChange,
    ExportedEntry,
    ExportedRecord,
    ExportEnd,
    ExportItem,
    ExportRelation,
    ExportRetention,
    ExportSection,
)
from authz.domain.instants import format_duration, format_instant
from authz.domain.kinds.fields import Field, FieldType
from authz.domain.mutations import Mutation, Operation

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #ccc}"
)
_HEADINGS = {
    ExportRelation.ABOUT: ("Records about you", ("what", "details")),
    ExportRelation.CONTEXT: (
        "Courses, sessions and resources that your records refer to",
        ("what", "details"),
    ),
    ExportSection.CHANGES: ("Changes by you or about you", ("when", "by", "why", "what")),
    ExportSection.IDEMPOTENCY_KEYS: ("Keys of repeated writes", ("what", "says", "since")),
    ExportSection.POLICY_DRAFTS: ("Drafts of the policy", ("what", "says", "since")),
    ExportSection.POLICY_VERSIONS: ("Versions of the policy", ("what", "says", "since")),
    ExportSection.DECISIONS: ("Decisions about you, and those that you asked for", ("id", "what", "when")),
    ExportSection.POLICY_SHADOW: ("Checks on which a policy was tried", ("what", "says", "when")),
    ExportSection.RECIPIENTS: ("Who received data about you", ("who", "what", "last")),
    ExportSection.RENAMES: ("Other ids of yours", ("id", "says", "since")),
    ExportSection.HOLDS: ("Holds against erasure", ("what", "says", "since")),
}
_DID = {
    Operation.CREATE: "created",
    Operation.UPDATE: "changed",
    Operation.TOUCH: "wrote",
    Operation.DELETE: "deleted",
}
_Heading = ExportRelation | ExportSection


def page_lines(items: Iterable[ExportItem]) -> Iterator[str]:
    """The lines of the page, as the items come."""
    open_heading: _Heading | None = None
    retention: Sequence[ExportRetention] = ()
    for item in items:
        match item:
            case ExportBegin():
                retention = item.retention
                yield from _head(item)
            case ExportEnd():
                if open_heading is not None:
                    yield "</table>"
                yield from _foot(item, retention)
            case _:
                heading, cells = _row_of(item)
                if heading != open_heading:
                    if open_heading is not None:
                        yield "</table>"
                    title, columns = _HEADINGS[heading]
                    yield f"<h2>{escape(title)}</h2>"
                    yield f"<table><tr>{''.join(f'<th>{column}</th>' for column in columns)}</tr>"
                    open_heading = heading
                yield _row(cells)


def _head(item: ExportBegin) -> Iterator[str]:
    name = escape(str(item.subject))
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f"<title>What is held about {name}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>What is held about {name}</h1>"
    when = format_instant(item.committed_at) if item.committed_at else "the beginning"
    yield f"<p>Everything in the database as of its last change, {when}.</p>"


def _foot(item: ExportEnd, retention: Sequence[ExportRetention]) -> Iterator[str]:
    yield "<h2>How long it is kept</h2><table><tr><th>what</th><th>for what</th><th>how long</th></tr>"
    for each in retention:
        yield _row((_words(each.section), each.purpose, each.kept))
    yield "</table>"
    counts = ", ".join(f"{_words(section)}: {count}" for section, count in item.counts.items())
    yield f"<p>This page is complete. {escape(counts.capitalize())}.</p></body></html>"


def _row_of(item: ExportItem) -> tuple[_Heading, Sequence[str]]:
    match item:
        case ExportedRecord():
            return item.relation, (str(item.record.key), _details(item.record))
        case ExportedChange():
            done = "; ".join(map(_done, item.mutations))
            return ExportSection.CHANGES, (format_instant(item.committed_at), item.actor, item.reason, done)
        case ExportedEntry(section=ExportSection.CHANGES):
            return item.section, ("", "", item.text, item.name)
        case ExportedEntry():
            return item.section, (item.name, item.text, format_instant(item.at) if item.at else "")
        case _:
            raise AssertionError(f"{item} has no row")


def _done(mutation: Mutation) -> str:
    """What a change did, and what the record became by it or, if it is deleted, was before."""
    assert isinstance(mutation.target, Entity)  # noqa: S101  an export has whole records
    details = _details(mutation.target)
    return f"{_DID[mutation.operation]} {mutation.key}" + (f" ({details})" if details else "")


def _details(record: Entity) -> str:
    """The fields that have a value, besides those that the key says."""
    values = ((field, getattr(record, field.name)) for field in kind_of(record).other_fields)
    return ", ".join(_detail(field, value) for field, value in values if value not in (None, ""))


def _detail(field: Field, value: object) -> str:
    name = field.name
    if isinstance(value, bool):
        return f"{name}: {'yes' if value else 'no'}"
    if isinstance(value, int) and field.type is FieldType.INSTANT:
        return f"{name}: {format_instant(value)}"
    if isinstance(value, int) and name.endswith("_us"):
        return f"{name.removesuffix('_us')}: {format_duration(value)}"
    return f"{name}: {value}"


def _words(section: ExportSection) -> str:
    return section.lower().replace("_", " ")


def _row(cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
