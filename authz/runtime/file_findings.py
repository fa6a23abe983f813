"""What is wrong or unsafe about the files of a server: who may use them, and certificates that end."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from authz.domain.instants import Instant, from_datetime
from authz.runtime.certificate_keys import read_chain, unaccepted_keys
from authz.runtime.compose import replica_folder
from authz.runtime.findings import SOON_US, Finding, date_of, unsafe, wrong
from authz.runtime.settings import Settings
from authz.store import has_password, sqlite_file


def of_database_files(settings: Settings) -> Iterator[Finding]:
    """A password in the URL, and who may read the database and the replica."""
    if has_password(settings.database_url):
        yield unsafe(
            "AUTHZ_DATABASE_URL has the password, which `ps` and child processes may show;"
            " set AUTHZ_DATABASE_PASSWORD_FILE"
        )
    for path in (sqlite_file(settings.database_url), replica_folder(settings)):
        if path is not None:
            yield from _of_secret(path, stat.S_IRWXG | stat.S_IRWXO)


def of_files(settings: Settings) -> Iterator[Finding]:
    """Who may use the files that settings name."""
    for name in ("tls_key_file", "database_password_file", "checkpoint_key_file"):
        if getattr(settings, name):
            yield from _of_secret(Path(getattr(settings, name)), stat.S_IRWXO)
    for name in ("callers_file", "jwt_keys_file", "tls_client_ca_file", "limits_file"):
        path = getattr(settings, name)
        if path and _mode(Path(path)) & (stat.S_IWGRP | stat.S_IWOTH):
            what = "lift every limit" if name == "limits_file" else "let themselves in"
            yield unsafe(f"other users may write {path}, and so {what}; run `chmod go-w {shlex.quote(path)}`")


def _of_secret(path: Path, too_much: int) -> Iterator[Finding]:
    if _mode(path) & too_much:
        yield unsafe(f"other users may use {path}; run `chmod go= {shlex.quote(str(path))}`")


def _mode(path: Path) -> int:
    """0 for a file that is not there or not to be looked at."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def of_certificates(settings: Settings, now: Instant) -> Iterator[Finding]:
    """Certificates that have ended, or end soon, and keys that some refuse."""
    for name in filter(None, (settings.tls_certificate_file, settings.tls_client_ca_file)):
        for found in read_chain(name):
            ends_at = from_datetime(found.not_valid_after_utc)
            if ends_at <= now:
                yield wrong(f"a certificate in {name} has ended; renew it")
            elif ends_at < now + SOON_US:
                yield unsafe(f"a certificate in {name} ends on {date_of(ends_at)}; renew it")
    yield from map(wrong, unaccepted_keys(settings.tls_certificate_file, settings.tls_client_ca_file))
