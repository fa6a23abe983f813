"""Generate what follows from `protos/authz`; with `--check`, only say whether it is up to date.

That is the Python code in `authz/v1`, the descriptor set, and the protos of `google.rpc` that clients need,
copied from the installed googleapis-common-protos so that `protos` alone is a complete include path.
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
SITE_PACKAGES = Path(sysconfig.get_paths()["purelib"])
GOOGLE_RPC = ("google/rpc/error_details.proto", "google/rpc/status.proto")
"""What the protos import, and what the details of an error are."""
DESCRIPTOR_SET = "descriptor_set.binpb"


def generate(target: Path) -> None:
    """Write `authz/v1` and the generated part of `protos` below `target`."""
    (target / "protos/google/rpc").mkdir(parents=True, exist_ok=True)
    for name in GOOGLE_RPC:
        shutil.copy(SITE_PACKAGES / name, target / "protos" / name)
    sources = sorted(str(path.relative_to(ROOT / "protos")) for path in ROOT.glob("protos/authz/**/*.proto"))
    plugins = ("python", "grpc_python", "mypy", "mypy_grpc")
    _protoc(*(f"--{plugin}_out={target}" for plugin in plugins), *sources)
    descriptor_set = target / "protos" / DESCRIPTOR_SET
    _protoc(f"--descriptor_set_out={descriptor_set}", "--include_imports", *sources, *GOOGLE_RPC)
    (target / "authz/v1/__init__.py").write_text('"""Generated from `protos/`; see `make protos`."""\n')


def _protoc(*arguments: str) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}", *arguments]
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    subprocess.run(command, check=True, env={"PATH": path})  # noqa: S603  own arguments


def main() -> int:
    """Generate, or compare; 1 when `--check` finds a difference."""
    if "--check" not in sys.argv[1:]:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = {path.relative_to(scratch) for path in Path(scratch).rglob("*") if path.is_file()}
        stale = {path for path in fresh if not _same(Path(scratch) / path, ROOT / path)}
    kept = {path.relative_to(ROOT) for path in ROOT.glob("authz/v1/*.py*")}
    kept |= {path.relative_to(ROOT) for path in ROOT.glob("protos/google/**/*.proto")}
    stale |= kept - fresh
    if stale:
        print(f"not up to date: {', '.join(sorted(map(str, stale)))}; run `make protos`")
    return 1 if stale else 0


def _same(one: Path, other: Path) -> bool:
    return other.exists() and filecmp.cmp(one, other, shallow=False)


if __name__ == "__main__":
    sys.exit(main())
