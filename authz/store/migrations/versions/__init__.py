"""One module a step; alembic runs them in the order of `down_revision`."""
