"""Settings are validated whole, before anything starts."""

from __future__ import annotations

import pytest

from authz.domain.errors import InvalidArgumentError
from authz.settings import Settings, load_settings


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
        ({"AUTHZ_TLS_KEY_FILE": "/none", "AUTHZ_TLS_CERTIFICATE_FILE": "/none"}, "/none"),
        ({"AUTHZ_MIGRATE_ON_START": "perhaps"}, "AUTHZ_MIGRATE_ON_START"),
    ],
)
def test_a_bad_setting_is_named(environ: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        load_settings(environ=environ)
    assert named in caught.value.message
