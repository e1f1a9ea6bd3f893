"""Passwords and tokens in what a command is given: refused where they would be kept, shown nowhere, nothing is left."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tasks.prefect_defaults  # noqa: F401 (its import is what it is for)

import pytest

URLS = (
    "https://user:hunter2@127.0.0.1:9/x",
    "https://127.0.0.1:9/x.zip?sig=hunter2",
    "s3://key:hunter2@bucket/x",
    "simplecache::s3://bucket/x?X-Amz-Signature=hunter2",
)
CARTPOLE = ("--env", "CartPole-v1")
PLACES = [
    ("generate", *CARTPOLE, "--random", "--data-root"),
    ("generate", *CARTPOLE, "--model-path"),
    ("generate", *CARTPOLE, "--model-path", "m", "--vecnormalize"),
    ("generate", *CARTPOLE, "--random", "--runner", "dask", "--dask-address"),
    ("generate", *CARTPOLE, "--random", "--database-url"),
    ("generate", *CARTPOLE, "--random", "--verbose", "--data-root"),
    ("generate", "--random", "--env"),
    ("generate", *CARTPOLE, "--random", "--exp"),
    ("generate", *CARTPOLE, "--random", "--unknown"),
    ("train", *CARTPOLE, "--model-path"),
    ("train", *CARTPOLE, "--export-to"),
    ("train", *CARTPOLE, "--hyperparameters-file"),
    ("watch", "--data-root"),
    ("watch", "--export-to"),
    ("export",),
    ("export", "out", "--to", "lerobot", "--push-to"),
    ("export", "out", "--data-root"),
    ("import_data",),
    ("import_data", "--exp", "e", *CARTPOLE),
    ("gallery", "--clip"),
    ("gallery", "--data-root"),
    ("delete", "--exp", "e", "--data-root"),
    ("verify", "--repair", "--data-root"),
    ("register", *CARTPOLE, "--data-root"),
    ("register", *CARTPOLE, "--set-action-images"),
]


@pytest.mark.parametrize("place", PLACES, ids=" ".join)
def test_no_command_shows_or_keeps_a_password(
    place: tuple[str, ...], command_line: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for url in (*URLS, f"sftp://user:hun ter/hunter2@host/{'x' * 200}"):
        result = command_line(*place, url)
        assert (result.code, result.out) == (2, ""), url
        assert "hunter2" not in result.err
        assert result.err.startswith("error: ") or "--verbose" in place
    assert not list(tmp_path.rglob("*hunter2*"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://user:hunter2@127.0.0.1:1/x",
        "postgresql+psycopg://user@127.0.0.1:1/x?password=hunter2",
        "mysql://user:hunter2@h/x",
        "postgresql://user:hunter2@h:port/x",
    ],
)
def test_a_database_url_is_named_without_its_password(
    url: str, command_line: Callable[..., Any], data_root: Path
) -> None:
    for flow in (
        ("register", "--list"),
        ("export", "out"),
        ("delete", "--exp", "e"),
        ("generate", *CARTPOLE, "--random"),
    ):
        result = command_line(*flow, "--data-root", data_root, "--database-url", url)
        assert result.code == 2
        assert "hunter2" not in result.err + result.out


def test_no_traceback_that_prefect_keeps_has_a_password() -> None:
    try:
        raise ConnectionError("Could not connect to http://user:hunter2@host/x?sig=hunter2")
    except ConnectionError as error:
        record = logging.getLogger("prefect.task_runs").makeRecord(
            "prefect.task_runs", logging.ERROR, __file__, 1, "failed", (), (type(error), error, error.__traceback__)
        )
    said = logging.Formatter().format(record).splitlines()
    assert said[-1] == "ConnectionError: Could not connect to http://***@host/x?***"
