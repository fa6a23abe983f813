"""Compiles each SQL statement once for all the databases that a process of tests opens.

SQLAlchemy compiles the same statements again for each engine, which is most of what starting a
server on a new database takes. Tests start a thousand.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import Engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache

_COMPILED: LRUCache[Any, Any] = LRUCache(2000)


def compile_once() -> None:
    """From now on, engines of one kind of database share what they have compiled."""
    make = Engine.__init__

    def make_sharing(engine: Engine, *args: Any, **options: Any) -> None:
        make(engine, *args, **options)
        engine._compiled_cache = _COMPILED

    kinds: Any = DefaultDialect
    # What is compiled is kept by the dialect that it is compiled for.
    kinds.__hash__ = lambda dialect: hash(type(dialect))
    kinds.__eq__ = lambda dialect, other: type(dialect) is type(other)
    engines: Any = Engine
    engines.__init__ = make_sharing
