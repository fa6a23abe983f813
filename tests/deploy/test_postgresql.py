"""The example of PostgreSQL with a standby: its scripts make one, which takes over with all that was written.

The scripts run with real servers; nothing here starts a container.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import psycopg
import yaml

from authz.client import CallError, Client
from authz.domain.entities import Course
from authz.domain.mutations import Mutation, Operation
from authz.runtime.authentication import require_authentication
from authz.runtime.settings import load_settings
from tests.faults.postgresql import Cluster, Clusters, cluster_template, clusters, programs
from tests.serving import drain, over_grpc, serving
from tests.waiting import until

__all__ = ["cluster_template", "clusters"]

EXAMPLE = Path(__file__).parents[2] / "deploy/postgresql"
COMPOSE: dict[str, Any] = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())
PASSWORDS = ("authz", "replicator")


def create(clusters: Clusters) -> Cluster:
    """A cluster on a port of its own, with what its container has: the scripts, and files with passwords."""
    cluster = clusters.create()
    shutil.copytree(EXAMPLE, config(cluster))
    for name in PASSWORDS:
        file = password_file(cluster, name)
        file.write_text(f"{name}'s \\ secret\n")
        file.chmod(0o644)
    return cluster


def config(cluster: Cluster) -> Path:
    return cluster.data.parent / "config"


def password_file(cluster: Cluster, name: str) -> Path:
    return cluster.data.parent / f"{name}.password"


def initialize(cluster: Cluster) -> None:
    """Make an empty cluster as the image of PostgreSQL does."""
    access = ("--auth-local=trust", "--auth-host=scram-sha-256")
    cluster.run("initdb", *access, "-U", "postgres", "-D", str(cluster.data))
    for name, text in (
        ("pg_hba.conf", "host all all all scram-sha-256"),
        ("postgresql.conf", "fsync = off\nshared_buffers = 16MB"),
    ):
        with (cluster.data / name).open("a") as file:
            file.write(f"{text}\n")


def run_script(cluster: Cluster, name: str, *arguments: str, **variables: str) -> None:
    """Run a script of the example as the user of the cluster, as its container would."""
    given = {
        "PATH": f"{programs()}:/usr/bin:/bin",
        "PGDATA": str(cluster.data),
        "PGHOST": str(cluster.data.parent),
        "PGPORT": str(cluster.port),
        "CONFIG": str(config(cluster)),
        **{f"{each.upper()}_PASSWORD_FILE": str(password_file(cluster, each)) for each in PASSWORDS},
        **variables,
    }
    settings = (f"{key}={value}" for key, value in given.items())
    cluster.run("/usr/bin/env", *settings, "sh", str(config(cluster) / name), *arguments)


def waits_for(cluster: Cluster) -> str:
    """The standbys for which a commit waits, as the user of the service finds them."""
    password = password_file(cluster, "authz").read_text().strip()
    where = f"host=127.0.0.1 port={cluster.port} dbname=authz user=authz"
    with psycopg.connect(where, password=password) as connection:
        row = connection.execute("SELECT current_setting('synchronous_standby_names')").fetchone()
    assert row is not None
    return str(row[0])


def answers(client: Client) -> list[str]:
    """The courses, or the failure, that a read gives."""
    try:
        return [each.entity.id for each in client.read_courses()]
    except CallError as error:
        return [error.reason]


def create_course(name: str) -> list[Mutation]:
    return [Mutation(Operation.CREATE, Course(id=name))]


@over_grpc
def test_the_standby_has_every_write_that_was_acknowledged_and_takes_over(
    clusters: Clusters, tmp_path: Path
) -> None:
    primary, standby = create(clusters), create(clusters)
    initialize(primary)
    primary.start()  # nobody else knows the port; the image lets nobody else connect
    run_script(primary, "primary.sh")
    primary.stop("fast")
    primary.start()
    copied = {"PRIMARY_HOST": "127.0.0.1", "PRIMARY_PORT": str(primary.port)}
    run_script(standby, "standby.sh", "true", **copied)
    standby.start()
    run_script(standby, "standby.sh", "true", **copied)  # which leaves a copy as it is
    url = f"postgresql://authz@/authz?host={primary.host}&host={standby.host}"
    own = tmp_path / "password"
    shutil.copy(password_file(primary, "authz"), own)
    assert waits_for(primary) == "standby1"
    with serving(url, AUTHZ_DATABASE_PASSWORD_FILE=str(own)) as (process, address):
        drain(process)
        with Client(address, timeout_s=30) as client:
            client.write(create_course("before"))
            primary.stop("immediate")
            run_script(standby, "promote.sh")
            until(lambda: answers(client) == ["before"], "the service finds no primary")
            client.write(create_course("after"))
            assert answers(client) == ["after", "before"]
    assert waits_for(standby) == ""


def test_what_the_containers_are_given_is_what_the_scripts_and_the_server_read() -> None:
    services = COMPOSE["services"]
    for service, script in (("primary", "primary.sh"), ("standby", "standby.sh")):
        given, text = services[service]["environment"], (EXAMPLE / script).read_text()
        read = set(re.findall(r"\$\{?([A-Z_]+)(?![A-Z_]*:-)", text)) - {"PGPASSWORD"}
        assert read <= set(given), service
        mounted = {each.split(":")[0].removeprefix("./") for each in services[service]["volumes"]}
        assert script in mounted and "replicated.conf" in mounted
        files = {name for name in given.values() if name.startswith("/run/secrets/")}
        assert files == {f"/run/secrets/{name}" for name in services[service]["secrets"]}
    given = {k: v for k, v in services["authz"]["environment"].items() if not k.endswith("_FILE")}
    settings = load_settings(environ=given)
    require_authentication(settings)
    assert settings.database_url.startswith("postgresql://authz@/authz?host=primary:5432&host=standby:5432")
