"""The Containerfile copies what the package is built from, and runs it without rights."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import yaml

from authz.runtime.settings import load_settings

ROOT = Path(__file__).parents[2]
LINES = re.sub(r" *\\\n *", " ", (ROOT / "deploy/Containerfile").read_text()).splitlines()


def arguments_of(instruction: str) -> list[list[str]]:
    """What follows each use of an instruction."""
    return [line.split()[1:] for line in LINES if line.startswith(f"{instruction} ")]


def test_everything_that_the_package_is_built_from_is_copied_and_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"], *wheel["packages"], *wheel["force-include"]}
    copied = {source for *sources, _ in arguments_of("COPY") for source in sources if source[0] not in "-/"}
    assert needed <= copied
    assert all((ROOT / source).exists() for source in copied)
    extras = re.findall(r"'\.\[([\w,]+)\]'", "\n".join(LINES))
    assert set(extras[0].split(",")) <= set(project["project"]["optional-dependencies"])


def test_it_runs_as_a_user_of_its_own_with_settings_that_exist_and_is_probed() -> None:
    ((user,),) = arguments_of("USER")
    assert user == "10001:10001"
    environ = dict(re.findall(r"(AUTHZ_\w+)=(\S+)", "\n".join(LINES)))
    settings = load_settings(environ=environ)
    assert settings.replica_dir.startswith("/var/lib/authz/")
    (check,) = [line for line in LINES if line.startswith("HEALTHCHECK ")]
    assert f":{settings.metrics_address.rpartition(':')[2]}/livez" in check


def test_the_containers_of_the_pod_in_the_guide_run_the_image_and_share_no_address() -> None:
    image = dict(re.findall(r"(AUTHZ_\w+)=(\S+)", "\n".join(LINES)))
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/operate.md").read_text(), re.DOTALL)
    (deployment,) = yaml.safe_load_all(text)
    addresses: list[str] = []
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        command, *flags = container["args"]
        assert container["image"] == "authz" and command in ("follow", "serve")  # after the entry point
        environ = image | {each["name"]: each["value"] for each in container["env"]}
        del environ["AUTHZ_DATABASE_PASSWORD_FILE"]  # of the secret
        for flag, value in pairwise(flags):
            if not value.startswith("--"):
                environ["AUTHZ_" + flag.removeprefix("--").replace("-", "_").upper()] = value
        settings = load_settings(environ=environ)
        start = container["startupProbe"]
        assert start.keys() - container["livenessProbe"].keys() == {"failureThreshold"}
        assert start["failureThreshold"] * 10 >= 900  # seconds, for a migration, which a kill would undo
        addresses += [settings.metrics_address, *[settings.address] * (command == "serve")]
    assert len(set(addresses)) == len(addresses) == 3
