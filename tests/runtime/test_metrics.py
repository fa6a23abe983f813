"""Counts of several processes are read while a process begins to count."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, mmap_dict

from authz.runtime.metrics import MultiprocessCounts


def test_a_file_that_is_still_empty_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "counter_1.db"
    file.touch()
    counts = MultiprocessCounts(CollectorRegistry(), str(tmp_path))
    waited = threading.Event()

    def fill(_: float) -> None:
        if not waited.is_set():
            counted: Any = mmap_dict.MmapedDict
            key = mmap_dict.mmap_key("calls", "calls_total", [], [], "Calls.")
            counted(str(file)).write_value(key, 3.0, 0.0)
            waited.set()

    monkeypatch.setattr("authz.runtime.metrics.time.sleep", fill)
    ((sample,),) = (metric.samples for metric in counts.collect())
    assert (sample.name, sample.value) == ("calls_total", 3.0)
    assert waited.is_set()
