"""A restored backup obeys the erasures that were made after it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from authz.client import CallError, Client
from authz.domain.entities import Account, ErasureStatus, ResourceFilter
from authz.domain.erasures import ErasureList
from authz.domain.mutations import Mutation, Operation
from tests.api.test_erasure import NOTES, STU, Person, person
from tests.api.test_erasure_elsewhere import files_with
from tests.cli.commands import run
from tests.cli.test_backup import restored_into
from tests.databases import create_sqlite
from tests.serving import served


@pytest.fixture(scope="module")
def erased_since(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Person]:
    """A folder with a backup, and with the list of erasures that were made after it: of one person who is in
    the backup, and of one who is not."""
    folder = tmp_path_factory.mktemp("backup")
    with served(create_sqlite(folder / "authz.db")) as address, Client(address) as client:
        maya = person(client)
        database = f"sqlite:///{folder / 'authz.db'}"
        assert run("backup", folder / "backup.db", "--database", database).returncode == 0
        maya.erased()
        client.write([Mutation(Operation.CREATE, Account(STU))])
        newcomer = person(client)
        newcomer.erased()
        exported = run("privacy", "erasures", "--export", folder / "erasures.json", "--address", address)
        assert exported.stdout == f"{folder / 'erasures.json'} has 2 erasures\n"
    assert files_with(maya, folder) == [str(folder / "backup.db")]
    return folder, maya


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_a_restore_erases_again_and_keeps_everybody_else(
    erased_since: tuple[Path, Person], target: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder, maya = erased_since
    url = restored_into(request, target, tmp_path)
    done = run("restore", folder / "backup.db", "--database", url, "--erasures", folder / "erasures.json")
    assert "in the database again" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert files_with(maya, tmp_path) == []
    with served(url) as address, Client(address) as client:
        (certificate,) = client.privacy.erasures(maya.subject)
        assert certificate.removed["membership records deleted"] == 2
        assert {each.erasure.status for each in client.privacy.erasures()} == {ErasureStatus.COMPLETE}
        assert len([*client.privacy.erasures()]) == 2
        assert [*client.read(ResourceFilter(owner=maya.subject))] == []
        assert client.check(STU, "read", NOTES).allowed
        with pytest.raises(CallError, match="was erased"):
            client.write([Mutation(Operation.TOUCH, Account(maya.subject))])


def test_a_list_of_another_database_is_refused_and_nothing_is_restored(
    erased_since: tuple[Path, Person], tmp_path: Path
) -> None:
    folder, _ = erased_since
    given = msgspec.json.decode((folder / "erasures.json").read_bytes(), type=ErasureList)
    other = tmp_path / "other.json"
    other.write_bytes(msgspec.json.encode(msgspec.structs.replace(given, database_id="f" * 32)))
    url = f"sqlite:///{tmp_path / 'restored.db'}"
    refused = run("restore", folder / "backup.db", "--database", url, "--erasures", other)
    assert refused.returncode == 2
    assert "is of the database ffff" in refused.stderr
    other.write_text("{}")
    refused = run("restore", folder / "backup.db", "--database", url, "--erasures", other)
    assert refused.returncode == 2
    assert "authz privacy erasures --export" in refused.stderr
    restored = run("restore", folder / "backup.db", "--database", url)
    assert restored.returncode == 0, restored.stderr
