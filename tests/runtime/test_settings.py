"""Settings are validated whole, before anything starts."""

from __future__ import annotations

import msgspec
import pytest

from authz.domain.errors import InvalidArgumentError
from authz.runtime.settings import Settings, load_settings


def test_a_flag_wins_over_the_environment_and_that_over_the_default() -> None:
    environ = {"AUTHZ_ADDRESS": "a:1", "AUTHZ_LOG_LEVEL": "error", "HOME": "/"}
    loaded = load_settings({"address": "b:2", "database_url": None}, environ=environ)
    assert (loaded.address, loaded.log_level) == ("b:2", "error")
    assert loaded.database_url == Settings().database_url


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"AUTHZ_ADRESS": "a:1"}, "AUTHZ_ADRESS"),
        ({"AUTHZ_READ_THREADS": "many"}, "AUTHZ_READ_THREADS"),
        ({"AUTHZ_READ_THREADS": "0"}, "AUTHZ_READ_THREADS"),
        ({"AUTHZ_LOG_LEVEL": "loud"}, "AUTHZ_LOG_LEVEL"),
        ({"AUTHZ_TLS_KEY_FILE": "/none"}, "AUTHZ_TLS_CERTIFICATE_FILE"),
        ({"AUTHZ_MIGRATE_ON_START": "perhaps"}, "AUTHZ_MIGRATE_ON_START"),
        ({"AUTHZ_MAX_MESSAGE_BYTES": "4MB"}, "AUTHZ_MAX_MESSAGE_BYTES"),
        ({"AUTHZ_MAX_MESSAGE_BYTES": "-1"}, "AUTHZ_MAX_MESSAGE_BYTES"),
        ({"AUTHZ_MAX_CHECKS": "0"}, "AUTHZ_MAX_CHECKS"),
        ({"AUTHZ_FRESHNESS_TIMEOUT_S": "0"}, "AUTHZ_FRESHNESS_TIMEOUT_S"),
        ({"AUTHZ_STOP_GRACE_S": "-0.5"}, "AUTHZ_STOP_GRACE_S"),
        ({"AUTHZ_STOP_GRACE_S": "nan"}, "AUTHZ_STOP_GRACE_S"),
        ({"AUTHZ_READ_THREADS": ""}, "AUTHZ_READ_THREADS"),
        ({"AUTHZ_TLS_CERTIFICATE_FILE": "/none"}, "AUTHZ_TLS_KEY_FILE"),
        ({"AUTHZ_TLS_CLIENT_CA_FILE": "/none"}, "AUTHZ_TLS_CLIENT_CA_FILE"),
        ({"AUTHZ_": "x"}, "AUTHZ_"),
        ({"AUTHZ_REPLICA_NAME": "a\nb"}, "AUTHZ_REPLICA_NAME"),
        ({"AUTHZ_REPLICA_NAME": "x" * 4097}, "AUTHZ_REPLICA_NAME"),
        ({"AUTHZ_ADDRESS": "unix:/s", "AUTHZ_WORKERS": "2"}, "cannot share the Unix socket"),
        (
            {"AUTHZ_DECISION_LOG": "stdout, syslog"},
            "AUTHZ_DECISION_LOG names `syslog`; known are `stdout`, `table`",
        ),
        ({"AUTHZ_DECISION_LOG": "file:/no-such-folder/d.jsonl"}, "`/no-such-folder/d.jsonl`"),
        ({"AUTHZ_DECISION_LOG": "file:/tmp"}, "`/tmp`; name a file"),
        ({"AUTHZ_MAX_MESSAGE_BYTES": str(2**31)}, "AUTHZ_MAX_MESSAGE_BYTES"),
        ({"AUTHZ_DECISION_LOG": "file:a,file:b"}, "names `file` twice"),
        ({"AUTHZ_DECISION_LOG_SAMPLE_RATE": "1.5"}, "AUTHZ_DECISION_LOG_SAMPLE_RATE"),
    ],
)
def test_a_bad_setting_is_named(environ: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        load_settings(environ=environ)
    assert named in caught.value.message


def test_an_unknown_variable_is_told_what_there_is_and_others_are_left_alone() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        load_settings(environ={"AUTHZ_ADRESS": "a:1"})
    assert "`AUTHZ_ADDRESS`" in caught.value.message
    assert load_settings(environ={"MY_AUTHZ_ADRESS": "a:1", "authz_adress": "a:1"}) == Settings()


def test_every_setting_comes_from_its_variable() -> None:
    names = [field.name for field in msgspec.structs.fields(Settings)]
    with_text = {f"AUTHZ_{name.upper()}": str(getattr(Settings(), name)) for name in names}
    assert load_settings(environ=with_text) == Settings()


def test_settings_never_change() -> None:
    with pytest.raises(AttributeError):
        Settings().address = "a:1"  # type: ignore[misc]  # that it cannot be set is the point
