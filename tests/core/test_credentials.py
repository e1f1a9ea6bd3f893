"""No password, token or signature of a URL is shown, wherever it stands in it; what is none stays as it is."""

import pytest

from rlhfblender_core.credentials import has_credentials, without_credentials
from rlhfblender_core.errors import StorageNotUsableError, one_line, trace_of

SECRETS = [
    ("sftp://user:hunter2@host/a", "sftp://***@host/a"),
    ("s3://key:hunter2@bucket/a", "s3://***@bucket/a"),
    ("sftp://user:p/a?s#s@hunter2@host/a", "sftp://***@host/a"),
    ("https://hunter2@host/a", "https://***@host/a"),
    ("https://:hunter2@host/a", "https://***@host/a"),
    ("HTTPS://user:hunter2@[2001:db8::1]:8080/a", "HTTPS://***@[2001:db8::1]:8080/a"),
    ("simplecache::https://user:hunter2@host/a", "simplecache::https://***@host/a"),
    ("zip://a.zip::https://host/a.zip?sv=1&sig=hunter2", "zip://a.zip::https://host/a.zip?***"),
    ("https://host/a.zip?X-Amz-Signature=hunter2", "https://host/a.zip?***"),
    ("https://host/a#access_token=hunter2", "https://host/a#***"),
    ("postgresql+psycopg://user:hunter2@host/db?sslpassword=hunter2", "postgresql+psycopg://***@host/db?***"),
]
NONE = [
    "data",
    "/data/a?b=c",
    "file:///data/user:a@b",
    "s3://bucket/run:1@2/a",
    "s3://bucket/run#3",
    "https://host:8080/a",
    "http://127.0.0.1:4200/api",
    "abfss://container@account.dfs.core.windows.net/a",
    "hf://datasets/user/name@main",
    "simplecache::s3://bucket/a",
]


@pytest.mark.parametrize(("url", "shown"), SECRETS)
def test_secrets_of_a_url_are_found_and_hidden(url: str, shown: str) -> None:
    assert has_credentials(url)
    assert without_credentials(url) == shown
    assert without_credentials(f"'{url}' is gone. See ({url}), {url}.") == f"'{shown}' is gone. See ({shown}), {shown}."


@pytest.mark.parametrize("url", NONE)
def test_what_is_no_secret_stays(url: str) -> None:
    assert not has_credentials(url)
    assert without_credentials(f"{url}: 2 of {url} are 3?a=b") == f"{url}: 2 of {url} are 3?a=b"


def test_a_password_with_a_space_is_one() -> None:
    assert has_credentials("sftp://user:hunter 2@host/a")


@pytest.mark.parametrize("kind", [StorageNotUsableError, ValueError])
def test_no_error_shows_them(kind: type[Exception]) -> None:
    with pytest.raises(kind) as raised:
        raise kind("Could not connect to https://user:hunter2@host/a?sig=hunter2")
    assert "hunter2" not in one_line(raised.value) + trace_of(raised.value)
    assert kind is ValueError or "hunter2" not in str(raised.value)


def test_several_spaces_of_a_name_are_kept_in_a_line() -> None:
    assert one_line(StorageNotUsableError("'a  b' is\n\tgone,\r\n  all of it")) == "'a  b' is gone, all of it"


def test_the_form_of_a_database_url_is_shown() -> None:
    form = "postgresql+psycopg://<user>:<password>@host/database"
    assert without_credentials(form) == form
