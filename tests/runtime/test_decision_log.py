"""The decision log of real processes."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from pathlib import Path

from authz.client import Client
from tests.serving import over_grpc, serving

CLIENTS, CHECKS = 6, 40


@over_grpc
def test_workers_share_a_file_in_which_every_answer_is_before_the_end(
    sqlite_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "decisions.jsonl"
    variables = {"AUTHZ_WORKERS": "2", "AUTHZ_DECISION_LOG": f"file:{file}"}
    with serving(sqlite_url, **variables) as (process, address):
        with ExitStack() as stack:
            clients = [stack.enter_context(Client(address)) for _ in range(CLIENTS)]
            answers = [
                each.check("user:maya", "read", "course:c1") for _ in range(CHECKS) for each in clients
            ]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    logged = [json.loads(line)["decision_id"] for line in file.read_text().splitlines()]
    assert sorted(logged) == sorted(answer.decision_id for answer in answers)
