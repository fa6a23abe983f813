"""What the statistics of PostgreSQL's planner hold of an erased person."""

from __future__ import annotations

import psycopg
from sqlalchemy.engine import make_url

from authz.domain.entities import Account, ErasureFilter, Share, ShareLevel
from authz.domain.ids import ResourceRef
from authz.domain.ports import Page
from authz.store import Store
from authz.store.database.engine import open_engine, read_transaction
from tests.store.directory import create, open_with
from tests.store.privacy.test_erasures import MAYA, REQUEST, STU, fill, finished, write


def test_the_statistics_of_the_planner_have_no_erased_id(postgresql_url: str) -> None:
    """Those of a table without rows would stay."""
    of_values = "SELECT tablename, most_common_vals::text, histogram_bounds::text FROM pg_stats"
    store, engine = open_with(postgresql_url), open_engine(postgresql_url)
    fill(store)
    write(
        store, create(Account(STU)), create(Share(ResourceRef("notebook", "maya-c0"), STU, ShareLevel.VIEWER))
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
        assert "maya" in repr(connection.exec_driver_sql(of_values).all())
    store.personal_data.begin_erasure(REQUEST)
    finished(store).close()
    with read_transaction(engine) as connection:
        left = repr(connection.exec_driver_sql(of_values).all())
    assert MAYA.id not in left.replace("maya-c", "a notebook-")
    engine.dispose()


def test_statistics_that_the_server_may_not_renew_are_left_to_the_operator(postgresql_url: str) -> None:
    store = open_with(postgresql_url)
    store.personal_data.begin_erasure(REQUEST)
    [erasure] = finished(store).directory.read(ErasureFilter(), Page(10)).items

    def left(store: Store) -> bool:
        told = store.personal_data.certificate(erasure.entity.pseudonym).left_to_operator
        store.close()
        return "run ANALYZE as the owner of the tables" in " ".join(told)

    assert not left(store)
    tenant = make_url(postgresql_url).set(username="tenant").render_as_string(hide_password=False)
    with psycopg.connect(postgresql_url, autocommit=True) as owner:
        owner.execute("CREATE ROLE tenant LOGIN")
        try:
            owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO tenant")
            assert left(open_with(tenant))
            owner.execute("GRANT MAINTAIN ON ALL TABLES IN SCHEMA public TO tenant")
            assert not left(open_with(tenant))
        finally:
            owner.execute("DROP OWNED BY tenant")
            owner.execute("DROP ROLE tenant")
