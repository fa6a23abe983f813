"""The kinds of record, a module each. `authz.domain.entities` registers them."""
