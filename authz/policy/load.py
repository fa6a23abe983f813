"""Compiles the files of a policy, and refuses them as a whole for any fault.

Casbin itself ignores a misspelt effect (so the allow stands), raises on each check for a short row, and may
allow a request without any row. So every row is validated here, before it can decide anything.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from authz.domain.decisions import Rule
from authz.domain.errors import PolicyError, PolicyFault
from authz.domain.files import decode_file, why_not_utf8
from authz.domain.vocabulary import RoleDeclaration, suggest
from authz.policy.compile import CompiledPolicy
from authz.policy.declarations import read_inheritance, read_vocabulary
from authz.policy.locks import read_locks
from authz.policy.rows import WIDTHS, Faults, Row, read_rows, trim_padding
from authz.policy.rules import read_rules
from authz.policy.size import check_cells, require_few_rows

MODEL_FILE = "model.conf"
POLICY_FILE = "default.csv"
_MODEL = {
    "r": ("request_definition", "roles, scope, type, action, facts"),
    "p": ("policy_definition", "role, scope, type, action, condition, eft"),
    "g": ("role_definition", "_, _"),
    "e": ("policy_effect", "some(where (p.eft == allow)) && !some(where (p.eft == deny))"),
    "m": (
        "matchers",
        '(p.type == "*" || p.type == r.type) && (p.action == "*" || p.action == r.action) '
        '&& (p.scope == "*" || p.scope == r.scope) '
        "&& has_role(r.roles, p.role) && holds(r.facts, p.condition)",
    ),
}
_READ = re.compile(r"default\.csv|invariants\.toml|tests/[^/]+\.toml")
_SEEM_READ = (".csv", ".toml", ".yaml", ".yml")
_NO_DECLARATIONS = (
    "declares no role and no type, as a file that Casbin has saved; add the `role`, `type` and `lock` rows of"
    " the active version, which `authz policy export` writes"
)


def policy_directory() -> Path:
    """The folder of the shipped policy."""
    packaged = Path(__file__).parent.parent / "policies"
    return packaged if packaged.is_dir() else packaged.parent.parent / "policies"


def read_folder(directory: Path) -> dict[str, str]:
    """The files of a folder and of the folders in it by relative name, without those that begin with a dot.
    Their lines end with a newline.

    Raises `PolicyError` with a fault for each file that is not text, for whatever else is there, such as a
    broken link, and before it reads anything if the folder is not of a policy.
    """
    files: dict[str, str] = {}
    faults = Faults()
    for name in (MODEL_FILE, POLICY_FILE):
        if not (directory / name).is_file():
            faults.add(name, 1, 1, f"is not in `{directory}`; name a policy folder")
    faults.require_none()
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        if any(part.startswith((".", "__pycache__")) for part in relative.parts) or path.is_dir():
            continue
        if not path.is_file():
            text = "is no file that can be read, or a link to nothing; delete it, or put the file there"
            faults.add(relative.as_posix(), 1, 1, text)
            continue
        data = path.read_bytes()
        try:
            files[relative.as_posix()] = decode_file(data)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            column = error.start - data.rfind(b"\n", 0, error.start)
            text = f"{why_not_utf8(path.name, data)}, or move it out of the folder"
            faults.add(relative.as_posix(), line, column, text)
    faults.require_none()
    return files


def load_policy(directory: Path) -> CompiledPolicy:
    """As `compile_files`, of the files of a folder."""
    return compile_files(read_folder(directory))


def compile_files(files: Mapping[str, str], *, is_published: bool = False) -> CompiledPolicy:
    """Validate and compile `model.conf` and `default.csv` of some files, by name.

    Raises `PolicyError` with every fault, also for another CSV, TOML or YAML file, which nothing would read.
    The version is a digest of both files. If it `is_published`, the names of its files, its size, and that
    Casbin reads it alike, were validated then, and all calls wait while a worker compiles the version that
    has just become active.
    """
    faults = Faults()
    model_text, text = files.get(MODEL_FILE), files.get(POLICY_FILE)
    for name in (MODEL_FILE, POLICY_FILE):
        if name not in files:
            faults.add(name, 1, 1, "is missing; add it to the files of the policy")
    if not is_published:
        _check_names(files, faults)
    if model_text is not None:
        _check_model(model_text, faults)
    rows = [] if text is None else trim_padding(list(read_rows(POLICY_FILE, text, faults)), faults)
    if rows and not {row.kind for row in rows} & {"role", "type"}:
        faults.add(POLICY_FILE, 1, 1, _NO_DECLARATIONS)
        faults.require_none()
    require_few_rows(rows, faults)
    _check_kinds(rows, faults)
    vocabulary = read_vocabulary(rows, faults)
    inherited = read_inheritance(rows, vocabulary, faults)
    rules = read_rules(rows, vocabulary, inherited, faults, is_published=is_published)
    locks = read_locks(rows, vocabulary, faults)
    if text is not None and not rules and not faults:
        faults.add(POLICY_FILE, 1, 1, "has no rule; a policy needs at least one `p` line")
    if not (is_published or faults):
        check_cells(rules, rows, vocabulary, inherited, faults)
    faults.require_none()
    assert text is not None and model_text is not None  # noqa: S101  else there were faults
    if not is_published:
        require_same_as_casbin(text, rules, file=POLICY_FILE)
    version = hashlib.sha256(f"{model_text}\0{text}".encode()).hexdigest()[:12]
    return CompiledPolicy(version, vocabulary, inherited, rules, locks)


def declared_roles(files: Mapping[str, str]) -> Collection[RoleDeclaration]:
    """The roles that the files of a published version declare, without reading its other rows."""
    rows = [line for line in files[POLICY_FILE].split("\n") if line.lstrip().startswith("role")]
    return _roles_of("\n".join(rows))


@lru_cache(maxsize=8)
def _roles_of(rows: str) -> Collection[RoleDeclaration]:
    """The roles that rows declare. Few versions change them."""
    faults = Faults()
    return read_vocabulary(list(read_rows(POLICY_FILE, rows, faults)), faults).roles.values()


def _check_names(names: Iterable[str], faults: Faults) -> None:
    """Record a fault for each file that seems to state rules, invariants or tests, and that nothing reads."""
    for name in names:
        if name.lower().endswith(_SEEM_READ) and not _READ.fullmatch(name):
            where = "rules are in `default.csv`, invariants in `invariants.toml`, tests in `tests/NAME.toml`"
            faults.add(name, 1, 1, f"is not read: {where}; move or delete it")


def _check_kinds(rows: Sequence[Row], faults: Faults) -> None:
    for row in rows:
        kind = row.kind
        if kind not in WIDTHS:
            faults.at(row, 0, f"unknown kind of line `{kind}`; {suggest(kind, WIDTHS)}")
            faults.skip_declaration(row)


def _check_model(text: str, faults: Faults) -> None:
    """Refuse every model but the shipped one, because the compiled rules implement only that one."""
    found: set[str] = set()
    sections = [f"[{section}]" for section, _ in _MODEL.values()]
    section = ""
    for number, line in enumerate(text.split("\n"), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        if content.startswith("["):
            section = content
            if section not in sections:
                faults.add(
                    MODEL_FILE, number, 1, f"unknown section `{section}`; {suggest(section, sections)}"
                )
            continue
        name, _, value = (part.strip() for part in content.partition("="))
        fault = _definition_fault(name, value, section, found)
        if fault:
            column = line.find("=") + 2 if name in _MODEL else 1
            faults.add(MODEL_FILE, number, column, f"{fault}; restore the shipped model.conf")
        found.add(name)
    for name in _MODEL:
        if name not in found:
            faults.add(MODEL_FILE, 1, 1, f"`{name}` is missing; restore the shipped model.conf")


def _definition_fault(name: str, value: str, section: str, found: set[str]) -> str:
    if name not in _MODEL:
        return f"unknown definition `{name}`"
    if name in found:
        return f"`{name}` is defined twice"
    expected_section, expected = _MODEL[name]
    if section != f"[{expected_section}]":
        return f"`{name}` must be in `[{expected_section}]`"
    return "" if value == expected else f"`{name}` must be `{expected}`"


def require_same_as_casbin(text: str, rules: tuple[Rule, ...], *, file: str) -> None:
    """Raise `PolicyError` unless Casbin reads the same rows of a file that were validated."""
    # A server compiles policies that were validated before: it starts a twentieth sooner without Casbin.
    import casbin
    from casbin.persist import load_policy_line

    model = casbin.Model()
    model.add_def("p", "p", _MODEL["p"][1])
    # As Casbin's adapter for files does.
    for line in io.BytesIO(text.encode()):
        load_policy_line(line.decode().strip(), model)
    theirs = [tuple(row) for row in model.model["p"]["p"].policy]
    ours = [rule.fields for rule in rules]
    if theirs != ours:
        place = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), 0)
        problem = f"Casbin reads {rules[place].source} differently; remove special characters"
        raise PolicyError((PolicyFault(file, 1, 1, problem),))
