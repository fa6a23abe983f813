"""Compiles each policy once for all the servers and commands that a process of tests runs.

Nearly all of them have the shipped policy.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache

from authz.policy import load, versions
from authz.policy.compile import CompiledPolicy

_compile = load.compile_files
_MAX_CHARACTERS = 50_000
"""Of a policy that is kept: tests of memory have larger ones."""


@lru_cache(maxsize=64)
def _compiled(files: tuple[tuple[str, str], ...]) -> CompiledPolicy:
    return _compile(dict(files))


def compile_files(files: Mapping[str, str], *, is_published: bool = False) -> CompiledPolicy:
    """As `authz.policy.load.compile_files`, which reads two of the files, and of all others the name."""
    texts = {name: files[name] if name in (load.MODEL_FILE, load.POLICY_FILE) else "" for name in files}
    if is_published or sum(map(len, texts.values())) > _MAX_CHARACTERS:
        return _compile(files, is_published=is_published)
    return _compiled(tuple(texts.items()))


def compile_policies_once() -> None:
    """From now on, also in what is imported already."""
    for module in [*sys.modules.values()]:
        if getattr(module, "compile_files", None) is _compile:
            module.__dict__["compile_files"] = compile_files
    versions.compile_version.__defaults__ = (compile_files,)
