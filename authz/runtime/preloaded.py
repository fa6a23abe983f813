"""The imports of the fork server, which forks the children of a supervisor."""

from __future__ import annotations

from authz.runtime.gc_freeze import without_collections

with without_collections():
    import authz.runtime.supervise  # noqa: F401  the children run it
