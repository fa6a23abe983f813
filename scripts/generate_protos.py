"""Generate `authz/v1` from `protos`; with `--check`, only say whether it is up to date.

Also lays out the protos of google.rpc that buf needs, from the installed googleapis-common-protos, so
that neither step needs a network.
"""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
SITE_PACKAGES = Path(sysconfig.get_paths()["purelib"])


def lay_out_third_party() -> None:
    """Copy google/rpc/status.proto to where buf.yaml looks for it."""
    target = ROOT / "build/third_party/google/rpc"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(SITE_PACKAGES / "google/rpc/status.proto", target)


def generate(target: Path) -> None:
    """Write the generated modules below `target`."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    outputs = [f"--{plugin}_out={target}" for plugin in ("python", "grpc_python", "mypy", "mypy_grpc")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"-I{SITE_PACKAGES}", *outputs]
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    subprocess.run([*command, *sources], check=True, cwd=PROTOS, env={"PATH": path})  # noqa: S603  own arguments


def main() -> int:
    """Generate, or compare; 1 when `--check` finds a difference."""
    lay_out_third_party()
    if "--check" not in sys.argv[1:]:
        generate(ROOT)
        (ROOT / "authz/v1/__init__.py").write_text('"""Generated from `protos/`; see `make protos`."""\n')
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = sorted((Path(scratch) / "authz/v1").iterdir())
        stale = [p.name for p in fresh if not _same(p, ROOT / "authz/v1" / p.name)]
        known = {p.name for p in fresh} | {"__init__.py", "__pycache__"}
        stale += [p.name for p in (ROOT / "authz/v1").iterdir() if p.name not in known]
    if stale:
        print(f"authz/v1 is not up to date ({', '.join(stale)}); run `make protos`")
    return 1 if stale else 0


def _same(one: Path, other: Path) -> bool:
    return other.exists() and filecmp.cmp(one, other, shallow=False)


if __name__ == "__main__":
    sys.exit(main())
