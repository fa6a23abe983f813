"""Print what a check costs a caller that proves who it is, against a server that lets in everybody."""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

from authz.client import check_request
from authz.client.access_tokens import make_access_token
from authz.domain.ids import parse_subject
from authz.domain.mutations import Mutation, Operation, WriteRequest
from authz.domain.origin import Origin
from tests.bench.campus import Campus
from tests.bench.measure import ratio_text, show
from tests.bench.serving import Load, drive_in_turns, running
from tests.callers import directory_of, grant
from tests.forkserver import AUTHZ
from tests.issuer import Issuer, bearer

CALLER = "service:bench"
DAY_US = 86_400_000_000


def bench(folder: Path, size: int) -> None:
    """Two servers over one database and one replica, asked in turns: one asks for no credential."""
    campus, issuer = Campus(size), Issuer()
    url = campus.fill_sqlite(folder / "bench.db")
    grant(url, {CALLER: "checker"})
    ends_at = time.time_ns() // 1000 + DAY_US
    token, record = make_access_token(parse_subject(CALLER), ends_at=ends_at)
    with directory_of(url) as directory:
        directory.write(WriteRequest(mutations=(Mutation(Operation.CREATE, record),), origin=Origin("bench")))
    accepts = {f"AUTHZ_{name.upper()}": value for name, value in issuer.settings(folder).items()}
    checks = [check_request(*ids).SerializeToString() for ids in campus.questions(10_000)]
    check = itertools.cycle(checks).__next__
    command = [str(AUTHZ), "serve"]
    with (
        running(command, AUTHZ_DATABASE_URL=url) as (open_pid, open_address, _),
        running(
            command, AUTHZ_DATABASE_URL=url, AUTHZ_FOLLOW="false", AUTHZ_ACCESS_TOKENS="true", **accepts
        ) as (pid, address, _),
    ):
        rounds = drive_in_turns(
            [
                Load(open_address, open_pid, "Check", check),
                Load(open_address, open_pid, "Check", check, bearer(token)),
                Load(address, pid, "Check", check, bearer(token)),
                Load(address, pid, "Check", check, bearer(issuer.jwt("bench"))),
            ]
        )
    show("Check without authentication", f"{statistics.median(row[0][1] for row in rounds):,.0f} us")
    for place, base, what in (
        (1, 0, "a header that the server does not read, against without"),
        (2, 1, "an access token, against the same header unread"),
        (3, 0, "a JWT, against without"),
        (2, 0, "an access token, against without"),
    ):
        by_processor = ratio_text(row[place][1] / row[base][1] for row in rounds)
        by_rate = ratio_text(row[base][0] / row[place][0] for row in rounds)
        show(f"Check with {what}", by_processor)
        show("the same, by rate", by_rate, "goal 1.05x" if place > 1 else "")


def main(size: int = 10_000) -> None:
    """Over one SQLite database of a campus."""
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder:
        bench(Path(folder), size)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 10_000)
