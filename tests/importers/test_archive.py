"""Folders and zips of CSV files: which are opened, and what a refusal lists."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from authz.domain.errors import InvalidArgumentError
from authz.importers.archive import Archive


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, f"content of {name}\n" * 200)
    return path


def content(path: Path, name: str) -> bytes:
    with Archive(path).open(name) as stream:
        return stream.readline()


@pytest.mark.parametrize(
    "names",
    [
        ("classes.csv", "enrollments.csv"),
        ("export/classes.csv", "export/enrollments.csv"),
        ("a/b/classes.csv",),
        ("/classes.csv", "/enrollments.csv"),
        ("/var/export/classes.csv", "/var/export/enrollments.csv"),
        ("../../classes.csv",),
        ("export\\", "export\\classes.csv", "export\\enrollments.csv"),
        ("export/", "export/classes.csv", "export/.DS_Store", "__MACOSX/export/._classes.csv"),
    ],
)
def test_the_files_of_a_zip_may_all_be_in_one_folder(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = zipped(tmp_path / "export.zip", *names)
    name = next(each for each in names if each.endswith("classes.csv"))
    assert content(path, "classes.csv").decode() == f"content of {name}\n"


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (
            ("Classes.csv",),
            "has no `classes.csv`; it has `Classes.csv`; rename `Classes.csv` to `classes.csv`",
        ),
        (
            ("a/classes.csv", "b/users.csv"),
            "it has `a/classes.csv`, `b/users.csv`; unpack it and name the folder of `a/classes.csv`",
        ),
        ((), "has no `classes.csv`; it has no files"),
        (("\x1b[2J.csv",), "it has `\\x1b[2J.csv`"),
        (tuple(f"{n:02}.csv" for n in range(30)), "`19.csv` and 10 more"),
    ],
)
def test_a_missing_file_is_refused_with_what_is_there(
    tmp_path: Path, names: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        content(zipped(tmp_path / "export.zip", *names), "classes.csv")
    assert complaint in refused.value.message


def test_a_zip_with_two_files_of_one_name_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        path = zipped(tmp_path / "export.zip", "classes.csv", "classes.csv")
    with pytest.raises(InvalidArgumentError, match=r"has more than one `classes\.csv`"):
        content(path, "classes.csv")


@pytest.mark.parametrize("other", ["old/users.csv", "Users.csv", "old/USERS.CSV"])
def test_of_several_files_of_one_name_none_is_chosen(tmp_path: Path, other: str) -> None:
    archive = Archive(zipped(tmp_path / "export.zip", "classes.csv", "users.csv", other))
    assert archive.has("classes.csv")
    for ask in (archive.has, archive.require):
        with pytest.raises(InvalidArgumentError, match=r"more than one `users\.csv`: .*; keep only that of"):
            ask("users.csv")


def test_files_in_two_cases_in_a_folder_are_refused(tmp_path: Path) -> None:
    for name in ("users.csv", "Users.csv"):
        (tmp_path / name).write_text("sourcedId\n")
    with pytest.raises(InvalidArgumentError, match=r"`Users\.csv`, `users\.csv`"):
        Archive(tmp_path).has("users.csv")


def test_the_folder_to_name_is_told_where_the_files_are_in_a_folder_of_it(tmp_path: Path) -> None:
    files = tmp_path / "unpacked" / "export"
    files.mkdir(parents=True)
    (files / "classes.csv").write_text("sourcedId\n")
    with pytest.raises(InvalidArgumentError) as refused:
        content(tmp_path / "unpacked", "classes.csv")
    assert refused.value.message.endswith("it has no files; name the folder `export` in it")
    assert content(files, "classes.csv") == b"sourcedId\n"


@pytest.mark.parametrize("separator", ["/", "\\"])
@pytest.mark.parametrize("name", ["manifest.csv", "users.csv"])
def test_a_file_in_another_folder_is_not_overlooked(tmp_path: Path, name: str, separator: str) -> None:
    archive = Archive(zipped(tmp_path / "export.zip", "classes.csv", f"more{separator}{name}"))
    assert archive.has("classes.csv")
    with pytest.raises(InvalidArgumentError, match=f"unpack it and name the folder of `more/{name}`"):
        archive.has(name)


def test_a_file_in_another_case_is_not_overlooked(tmp_path: Path) -> None:
    archive = Archive(zipped(tmp_path / "export.zip", "Users.csv"))
    assert not archive.has("classes.csv")
    with pytest.raises(InvalidArgumentError, match=r"rename `Users\.csv` to `users\.csv`"):
        archive.has("users.csv")


def test_a_zip_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "bomb.zip", "classes.csv", "enrollments.csv")
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\1\2")
    content[directory + 24 : directory + 28] = (3 << 30).to_bytes(4, "little")  # the unpacked size
    path.write_bytes(content)
    with pytest.raises(InvalidArgumentError, match="would unpack to 3072 MiB, more than 2048; if"):
        Archive(path)


def test_what_is_no_export_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a message shows no long path whole
    with pytest.raises(InvalidArgumentError, match="`no` is neither a folder nor a file"):
        Archive(Path("no"))
    Path("classes.csv").write_text("sourcedId\n")
    with pytest.raises(InvalidArgumentError, match=r"`classes\.csv` is neither a folder nor a zip; "):
        Archive(Path("classes.csv"))
    whole = zipped(Path("whole.zip"), "classes.csv")
    cut = Path("cut.zip")
    cut.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(InvalidArgumentError, match=r"cut\.zip` is not a complete zip"):
        Archive(cut)
    sealed = bytearray(whole.read_bytes())
    sealed[6] |= 1
    sealed[sealed.index(b"PK\x01\x02") + 8] |= 1
    cut.write_bytes(sealed)
    with pytest.raises(InvalidArgumentError, match=r"cut\.zip` is encrypted"):
        Archive(cut)


def test_a_path_of_any_characters_can_be_shown(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff \xe2\x80\xaf"))
    with pytest.raises(InvalidArgumentError) as refused:
        Archive(path)
    assert refused.value.message.isprintable()
