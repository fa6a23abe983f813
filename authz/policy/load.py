"""Loads a policy folder through Casbin, and refuses it whole for any fault.

Casbin itself ignores a misspelt effect (the allow stands), raises on each check for a short row,
and may allow with no rows at all; so every row is checked here, before it can decide anything.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import casbin
from casbin.persist.adapters import FileAdapter

from authz.domain.decisions import Rule
from authz.domain.errors import PolicyError
from authz.domain.facts import FACT_NAMES
from authz.domain.ids import MAX_ID_LENGTH
from authz.domain.vocabulary import Vocabulary, suggest
from authz.policy.compile import CompiledPolicy, compile_policy
from authz.policy.declarations import has_fields, read_inheritance, read_vocabulary
from authz.policy.rows import Faults, Row, read_rows, read_text

MODEL_FILE = "model.conf"
POLICY_FILE = "default.csv"
ANY = "*"
EFFECTS = ("allow", "deny")
_KINDS = ("p", "g", "role", "type")
_RULE_FIELDS = ("role", "scope", "type", "action", "condition", "effect")
_COURSE_SCOPE = re.compile(rf"course:[A-Za-z0-9._~@+=|/:\-]{{1,{MAX_ID_LENGTH}}}")
_MODEL = {
    "r": "roles, scope, type, action, facts",
    "p": "role, scope, type, action, condition, eft",
    "g": "_, _",
    "e": "some(where (p.eft == allow)) && !some(where (p.eft == deny))",
    "m": '(p.type == "*" || p.type == r.type) && (p.action == "*" || p.action == r.action) '
    '&& (p.scope == "*" || p.scope == r.scope) && has_role(r.roles, p.role) && holds(r.facts, p.condition)',
}


def policy_directory() -> Path:
    """The folder of the policy that comes with the service."""
    packaged = Path(__file__).parent.parent / "policies"
    return packaged if packaged.is_dir() else packaged.parent.parent / "policies"


def load_policy(directory: Path) -> CompiledPolicy:
    """Read, validate and compile `model.conf` and `default.csv`.

    Raises `PolicyError` with every fault. The version is a digest of both files.
    """
    faults = Faults()
    model_text = read_text(directory / MODEL_FILE, faults)
    text = read_text(directory / POLICY_FILE, faults)
    if model_text is not None:
        _check_model(model_text, faults)
    rows = [] if text is None else list(read_rows(POLICY_FILE, text, faults))
    for row in rows:
        kind = row.fields[0].text
        if kind not in _KINDS:
            faults.at(row, 0, f"unknown kind of line `{kind}`; {suggest(kind, _KINDS)}")
    vocabulary = read_vocabulary(rows, faults)
    inherited = read_inheritance(rows, vocabulary, faults)
    rules = _read_rules(rows, vocabulary, faults)
    if text is not None and not rules and not faults:
        faults.add(POLICY_FILE, 1, 1, "has no rule; a policy needs at least one `p` line")
    if faults:
        raise PolicyError(faults.lines())
    assert text is not None and model_text is not None  # noqa: S101  else there were faults
    _check_same_as_casbin(directory, rules)
    version = hashlib.sha256(f"{model_text}\0{text}".encode()).hexdigest()[:12]
    return compile_policy(version, vocabulary, inherited, rules)


def _check_model(text: str, faults: Faults) -> None:
    """The index answers for one model only: refuse any other rather than differ from it."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        content = line.partition("#")[0].strip()
        if not content or content.startswith("["):
            continue
        name, _, value = (part.strip() for part in content.partition("="))
        if name not in _MODEL:
            faults.add(MODEL_FILE, number, 1, f"unknown definition `{name}`; restore the shipped model.conf")
        elif value != _MODEL[name]:
            column = line.find("=") + 2
            faults.add(
                MODEL_FILE,
                number,
                column,
                f"`{name}` must be `{_MODEL[name]}`; restore the shipped model.conf",
            )
        found[name] = value
    for name in _MODEL:
        if name not in found:
            faults.add(MODEL_FILE, 1, 1, f"`{name}` is missing; restore the shipped model.conf")


def _read_rules(rows: list[Row], vocabulary: Vocabulary, faults: Faults) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    seen: dict[tuple[str, ...], int] = {}
    for row in rows:
        if row.fields[0].text != "p" or not has_fields(row, _RULE_FIELDS, faults):
            continue
        _check_rule(row, vocabulary, faults)
        first = seen.setdefault(row.texts, row.line)
        if first != row.line:
            faults.at(row, 0, f"repeats line {first}; remove one of the two")
        role, scope, type_name, action, condition, effect = row.texts
        source = f"{row.file}:{row.line}"
        rules.append(Rule(role, scope, type_name, action, condition, effect, source))
    return tuple(rules)


def _check_rule(row: Row, vocabulary: Vocabulary, faults: Faults) -> None:
    role, scope, type_name, action, condition, effect = row.texts
    if role != ANY and role not in vocabulary.roles:
        faults.at(row, 1, f"unknown role `{role}`; {suggest(role, vocabulary.roles)}")
    if scope != ANY and not _COURSE_SCOPE.fullmatch(scope):
        faults.at(row, 2, f"scope `{scope}` is neither `*` nor `course:<id>`")
    if type_name != ANY and type_name not in vocabulary.types:
        faults.at(row, 3, f"unknown type `{type_name}`; {suggest(type_name, vocabulary.types)}")
    else:
        types = vocabulary.types.values() if type_name == ANY else (vocabulary.types[type_name],)
        actions = {known for declared in types for known in declared.actions}
        # A gate may speak of an action that no type declares yet: it denies in advance.
        if action not in (ANY, *actions) and not (type_name == ANY and effect == "deny"):
            faults.at(row, 4, f"unknown action `{action}` on {type_name}; {suggest(action, actions)}")
    if condition:
        for name in (part.strip() for part in condition.split("&")):
            if name not in FACT_NAMES:
                faults.at(row, 5, f"unknown fact `{name}`; {suggest(name, FACT_NAMES)}")
    if effect not in EFFECTS:
        faults.at(row, 6, f"unknown effect `{effect}`; {suggest(effect.lower(), EFFECTS)}")


def _check_same_as_casbin(directory: Path, rules: tuple[Rule, ...]) -> None:
    """Casbin must have read the very rows that were validated."""
    model = casbin.Model()
    model.load_model(str(directory / MODEL_FILE))
    FileAdapter(str(directory / POLICY_FILE)).load_policy(model)
    theirs = [tuple(row) for row in model.model["p"]["p"].policy]
    ours = [(r.role, r.scope, r.type, r.action, r.condition, r.effect) for r in rules]
    if theirs != ours:
        place = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), 0)
        raise PolicyError((f"{rules[place].source}:1: Casbin reads this row otherwise; write it plainly",))
