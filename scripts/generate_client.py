"""Generate `authz/client/sync` from `authz/client/aio`; with `--check`, only say whether it is up to date.

unasync takes `async` and `await` out, and ruff formats the rest. `transport.py` is written by hand in both.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import unasync

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ROOT / "authz/client"
WRITTEN_BY_HAND = "transport.py"
NAMES = {
    "aio": "sync",
    "aclosing": "closing",
    "AsyncQuestions": "Questions",
    "AsyncLists": "Lists",
    "AsyncAuditClient": "AuditClient",
    "AsyncClient": "Client",
    "AsyncDirectory": "Directory",
    "AsyncDraftClient": "DraftClient",
    "AsyncPolicyClient": "PolicyClient",
    "AsyncPrivacyClient": "PrivacyClient",
    "AsyncShadowClient": "ShadowClient",
    "AuditServiceAsyncStub": "AuditServiceStub",
    "AuthorizationServiceAsyncStub": "AuthorizationServiceStub",
    "DirectoryServiceAsyncStub": "DirectoryServiceStub",
    "PolicyServiceAsyncStub": "PolicyServiceStub",
    "PrivacyServiceAsyncStub": "PrivacyServiceStub",
    "WatchServiceAsyncStub": "WatchServiceStub",
}
IN_DOCSTRINGS = {"async with": "with", "async for ": "for ", "await ": "", "AsyncClient": "Client"}
"""unasync leaves the inside of a string as it is."""


def generate(target: Path) -> None:
    """Write the generated modules below `target`."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "aio"
        shutil.copytree(CLIENT / "aio", source, ignore=shutil.ignore_patterns("__pycache__", WRITTEN_BY_HAND))
        files = sorted(source.glob("*.py"))
        unasync.unasync_files(
            [str(file) for file in files],
            [unasync.Rule(f"{source}/", f"{target}/", additional_replacements=NAMES)],
        )
    generated = [target / file.name for file in files]
    for file in generated:
        text = file.read_text()
        for before, after in IN_DOCSTRINGS.items():
            text = text.replace(before, after)
        notice = f"# Generated from authz/client/aio/{file.name}; see `make client`."
        file.write_text(f"{notice}\n{text}")
    ruff = [str(Path(sys.executable).with_name("ruff"))]
    settings = ["--quiet", "--config", str(ROOT / "pyproject.toml"), *map(str, generated)]
    subprocess.run([*ruff, "check", "--select", "I", "--fix", *settings], check=True)  # noqa: S603  own arguments
    subprocess.run([*ruff, "format", *settings], check=True)  # noqa: S603  own arguments


def main() -> int:
    """Generate, or compare; 1 when `--check` finds a difference."""
    kept = CLIENT / "sync"
    if "--check" not in sys.argv[1:]:
        generate(kept)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = {file.name: file.read_text() for file in Path(scratch).glob("*.py")}
    found = {file.name: file.read_text() for file in kept.glob("*.py") if file.name != WRITTEN_BY_HAND}
    stale = [name for name in sorted(fresh.keys() | found.keys()) if fresh.get(name) != found.get(name)]
    if stale:
        print(f"not up to date in authz/client/sync: {', '.join(stale)}; run `make client`")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
