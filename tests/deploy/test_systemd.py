"""systemd accepts the units, and finds their sandbox closed."""

from __future__ import annotations

import re
import shutil
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from authz.runtime.settings import load_settings
from tests.forkserver import AUTHZ

UNITS = Path(__file__).parents[2] / "deploy/systemd"
ANALYZE = shutil.which("systemd-analyze")
MOST_EXPOSURE = 20
"""In tenths, of 100. A unit without a sandbox has 96."""

pytestmark = pytest.mark.skipif(ANALYZE is None, reason="needs systemd-analyze")


def analyze(*arguments: str | Path) -> str:
    """What systemd-analyze says; it finds no fault."""
    assert ANALYZE is not None
    done = subprocess.run([ANALYZE, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units as they are installed, with the program of this machine; a file for each."""
    made = []
    for unit in sorted(UNITS.iterdir()):
        name = unit.name.replace("@.", "@1.")
        text = re.sub(r"/opt/authz/bin/authz", str(AUTHZ), unit.read_text())
        (tmp_path / name).write_text(text)
        made.append(tmp_path / name)
    return made


def test_systemd_finds_no_fault_in_the_units(units: list[Path]) -> None:
    assert [unit.name for unit in units] == ["authz-follow.service", "authz-serve@1.service"]
    told = analyze("verify", "--man=no", *units)
    assert not re.search(r"authz-\S+\.service:\d+:", told), told


def test_every_instance_of_a_unit_has_an_address_of_its_own() -> None:
    instances = {"authz-follow.service": [""], "authz-serve@.service": ["1", "9", "10", "254"]}
    addresses = []
    for unit, names in instances.items():
        (stated,) = re.findall("^Environment=AUTHZ_METRICS_ADDRESS=(.*)$", (UNITS / unit).read_text(), re.M)
        for name in names:
            environ = {"AUTHZ_METRICS_ADDRESS": stated.replace("%i", name)}
            addresses.append(load_settings(environ=environ).metrics_address)
    for address in addresses:
        host, _, port = address.rpartition(":")
        assert ip_address(host).is_loopback
        assert 0 < int(port) < 1 << 16
    assert len(set(addresses)) == len(addresses)


def test_the_sandbox_of_each_unit_is_closed(units: list[Path]) -> None:
    for unit in units:
        analyze("security", "--offline=true", f"--threshold={MOST_EXPOSURE}", unit)
