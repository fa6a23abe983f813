"""The pages as a reader follows them: each link leads somewhere, and each command that is shown exists."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from authz.cli.main import whole_command
from authz.domain.decisions import Reason
from authz.domain.effective_roles import InactiveReason
from authz.runtime.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md")
    for page in ROOT.glob(pattern)
    if "node_modules" not in page.parts  # the packages of the TypeScript example, which its reader installs
)
DECISIONS = sorted(ROOT.glob("docs/decisions/[0-9]*.md"))
INDEX = ROOT / "docs/decisions/README.md"
GUIDES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
NO_SETTINGS = {"AUTHZ_PORT", "AUTHZ_SERVICE_HOST"}
"""Variables of Kubernetes, which a guide says to be ignored."""
LINK = re.compile(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
TABLE = re.compile(r"(?:^|\n\n)(\|.*)\n(.*)")
"""The first two lines of each: GitHub shows rows after an empty line as text."""
PATH = re.compile(r"`((?:[a-z_]+/)+[\w.-]*)`")
FOLDERS = [ROOT, *(ROOT / name for name in ("authz", "authz/store", "docs", "protos", "tests"))]
"""What the paths that a page names are relative to."""
NO_PATHS = ("application/grpc", "gen/")
"""A media type, and what `buf generate` writes."""
MODULE = re.compile(r"python -m (tests(?:\.\w+)+)")
SHOWN = re.compile(r"^\$ (?:[A-Z_]+=\S+ )*(authz .*)|`(authz [^`]+)`", re.MULTILINE)
NAMED = re.compile(r"`(authz [^`\n]+)`")
SOURCES = [path for path in sorted(ROOT.glob("authz/**/*.py")) if NAMED.search(path.read_text())]
"""The modules whose messages name commands."""
PLACEHOLDER = re.compile(r"\{[^{}]*\}")
SETTING = re.compile(rf"\b{PREFIX}[A-Z_]*[A-Z]\b")
MENTION = re.compile(r"docs/decisions/(\d{4})")


def test_no_two_decisions_share_a_number() -> None:
    numbers = Counter(page.name[:4] for page in DECISIONS)
    assert [number for number, count in numbers.items() if count > 1] == []


def test_the_index_has_each_decision_once_under_its_title() -> None:
    titles = {page.name: page.read_text().partition("\n")[0].removeprefix("# ") for page in DECISIONS}
    entries = re.findall(r"^- \[(\d{4})\]\((\1-\S+)\) (.+)$", INDEX.read_text(), re.MULTILINE)
    assert sorted((name, title) for _, name, title in entries) == sorted(titles.items())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    for link, anchor in LINK.findall(page.read_text()):
        target = page.parent / link if link else page
        assert target.exists(), link
        assert not anchor or target.suffix != ".md" or anchor in anchors_of(target), f"{link}#{anchor}"


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = HEADING.findall(CODE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_table_begins_with_a_header(page: Path) -> None:
    tables = TABLE.findall(CODE.sub("", page.read_text()))
    assert [first for first, second in tables if not set(second) <= set("|-: ")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_folder_and_benchmark_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    for path in PATH.findall(text):
        assert path.startswith(NO_PATHS) or any((folder / path).exists() for folder in FOLDERS), path
    for module in MODULE.findall(text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_every_command_option_and_setting_that_a_guide_names_exists(page: Path) -> None:
    text = page.read_text()
    for shown in ("".join(found) for found in SHOWN.findall(text)):
        require_runs(shown)
    settings = {PREFIX + field.name.upper() for field in msgspec.structs.fields(Settings)}
    assert {
        name for name in SETTING.findall(text) if not any(each.startswith(name) for each in settings)
    } <= (NO_SETTINGS)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(ROOT)))
def test_every_command_that_a_message_names_runs_as_it_is_printed(source: Path) -> None:
    for shown in NAMED.findall(source.read_text()):
        require_runs(PLACEHOLDER.sub("VALUE", shown))


def require_runs(shown: str) -> None:
    """The command and its options exist; with a value, it also has every option that it needs."""
    command: Any = whole_command()
    known, values = options_of(command), False
    assert shown.split()[1].startswith(("--", *command.commands)), shown
    for word in re.split(r" #|[|;]", shown)[0].split()[1:]:
        if word.startswith("--"):
            assert word in known, shown
        elif word in getattr(command, "commands", ()):
            command = command.commands[word]
            known |= options_of(command)
        elif ":" in word or word == "VALUE":
            values = True
    if values:
        needed = [each.opts[0] for each in command.params if each.required and each.opts[0].startswith("--")]
        assert [option for option in needed if option not in shown] == [], shown


def options_of(command: Any) -> set[str]:
    """The options that a command takes itself."""
    return {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}


def test_a_reader_of_the_readme_reaches_every_page() -> None:
    reached, left = set[Path](), [ROOT / "README.md"]
    while left:
        page = left.pop().resolve()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            left += [page.parent / link for link, _ in LINK.findall(page.read_text()) if link]
    assert sorted(set(map(Path.resolve, PAGES)) - reached) == []


def test_every_decision_that_the_code_names_exists() -> None:
    named = {
        number for source in ROOT.glob("authz/**/*.py") for number in MENTION.findall(source.read_text())
    }
    assert named
    assert named <= {page.name[:4] for page in DECISIONS}


def test_the_guide_of_questions_explains_every_reason() -> None:
    page = (ROOT / "docs/questions.md").read_text()
    reasons = [*Reason, *InactiveReason]
    assert [each for each in reasons if each != Reason.ROLE_GRANT and f"`{each}`" not in page] == []


def test_no_page_installs_the_package_by_its_name() -> None:
    """It is not on PyPI, where anybody could take the name."""
    for page in PAGES:
        found = re.findall(r"^\$ pip install.*qalamchat-authz.*", page.read_text(), re.MULTILINE)
        assert found == [], page


def test_a_setting_has_its_line_to_itself() -> None:
    """systemd and `--env-file` of containers take a comment at the end of a line into the value."""
    for page in PAGES:
        found = re.findall(rf"^{PREFIX}\w+=\S*[ \t]+#.*", page.read_text(), re.MULTILINE)
        assert found == [], page
