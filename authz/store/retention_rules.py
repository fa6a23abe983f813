"""Reads the retention rules."""

from __future__ import annotations

from sqlalchemy import Connection, select

from authz.domain.entities import RetainedData, RetentionRule, Versioned
from authz.domain.retention import default_rule
from authz.store.rows import ENTITY_ROWS

_RULES = ENTITY_ROWS["retention_rule"]
_ALL = select(_RULES.table)


def read_rules(connection: Connection) -> dict[RetainedData, Versioned[RetentionRule]]:
    """The rules of all data; the default at version 0 where nobody has set one."""
    stored = {each.entity.data: each for each in _RULES.versioned(connection.execute(_ALL).all())}
    return {data: stored.get(data) or Versioned(default_rule(data), 0) for data in RetainedData}
