"""The imports of the fork server, which forks the children of a supervisor."""

from __future__ import annotations

import sys

from authz.runtime.gc_freeze import without_collections

try:
    with without_collections():
        import authz.runtime.supervise  # noqa: F401  the children run it
except FileNotFoundError:
    # The supervisor has ended, and deleted the folder in which its processes count.
    sys.exit()
