"""The application that Envoy loads and runs."""

from __future__ import annotations

from authz.runtime.gc_freeze import without_collections

with without_collections():
    from authz.runtime.application import Application

application = Application()
