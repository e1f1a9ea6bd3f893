"""The last lines of a command can be pasted where one stands."""

import contextvars
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from flows.cli import next_commands
from flows.cli.next_commands import (
    as_typed,
    command,
    flags_noted,
    lines_from_here,
    note_flag,
    path_from_here,
    with_place,
)
from flows.cli.secret_parameters import DatabaseUrl

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that another test ran in this process has left its flags, as it may: a process runs one."""
    monkeypatch.setattr(next_commands, "_given", contextvars.ContextVar("given_flags", default=None))


def test_paths_below_the_current_folder_are_written_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert path_from_here(f"{tmp_path}/my data/a") == "my data/a"
    assert [path_from_here(path) for path in ("/elsewhere", "s3://bucket/a")] == ["/elsewhere", "s3://bucket/a"]
    text = f'in {tmp_path}/out: ("{tmp_path}/out/a") file://{tmp_path}/out {tmp_path}2/x'
    assert lines_from_here(text) == f'in out: ("out/a") file://{tmp_path}/out {tmp_path}2/x'
    monkeypatch.chdir("/")
    assert lines_from_here("Open /data/a") == "Open /data/a"


def test_a_command_is_one_in_the_repository_and_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, script in ((REPOSITORY, "flows/gallery.py"), (tmp_path, str(REPOSITORY / "flows" / "gallery.py"))):
        monkeypatch.chdir(folder)
        words = shlex.split(command("gallery", "--exp", "It's mine"))
        assert words[1:] == [script, "--exp", "It's mine"]


def in_own_context(test: Callable[[], None]) -> None:
    contextvars.copy_context().run(test)


def test_flags_that_were_not_given_are_not_repeated() -> None:
    assert with_place("Run `python flows/verify.py --repair`.") == "Run `python flows/verify.py --repair`."
    with flags_noted({"--data-root": "my data"}):
        assert command("gallery", "--exp", "e").endswith(" --exp e --data-root 'my data'")


def test_commands_of_messages_get_the_flags_that_were_given() -> None:
    def test() -> None:
        note_flag("--data-root", "it's my `data`")
        note_flag("--database-url", "sqlite:///my db")
        text = "It is damaged. Run `python flows/verify.py --exp 'a b`c' --repair`, or `python flows/gallery.py`; `x`."
        both = """--data-root 'it'"'"'s my `data`' --database-url 'sqlite:///my db'"""
        once = with_place(text)
        assert f"`python flows/verify.py --exp 'a b`c' --repair {both}`, or" in once
        assert once.endswith("""`python flows/gallery.py --data-root 'it'"'"'s my `data`'`; `x`.""")
        assert with_place(once) == once
        words = shlex.split(as_typed(once).partition("`")[2].partition("`,")[0])
        assert Path(words[1]).resolve() == REPOSITORY / "flows" / "verify.py"
        assert words[2:] == [
            "--exp",
            "a b`c",
            "--repair",
            "--data-root",
            "it's my `data`",
            *("--database-url", "sqlite:///my db"),
        ]

    in_own_context(test)


def test_a_folder_whose_name_begins_with_a_dash_is_given_as_one() -> None:
    with flags_noted({"--data-root": "-data"}):
        assert with_place("`python flows/verify.py`") == "`python flows/verify.py --data-root=-data`"


def test_the_run_that_a_run_is_part_of_says_where() -> None:
    with flags_noted({"--data-root": "outer"}), flags_noted({"--data-root": "inner"}):
        assert with_place("`python flows/verify.py`") == "`python flows/verify.py --data-root outer`"


def test_a_database_url_is_repeated_without_its_password() -> None:
    def test() -> None:
        parameter = next(item for item in get_args(DatabaseUrl) if hasattr(item, "keep"))
        assert parameter.keep("postgresql://user@host/db?sslmode=require") is not None
        assert with_place("`python flows/verify.py`").endswith("'postgresql://user@host/db?sslmode=require'`")
        assert parameter.keep("postgresql://user:hunter2@host/db") is None
        assert with_place("`python flows/verify.py`").endswith("'postgresql://***@host/db'`")

    in_own_context(test)


@pytest.mark.soak
def test_what_generate_says_last_can_be_pasted(tmp_path: Path, prefect_server: str) -> None:
    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    flags = ("--env", "CartPole-v1", "--random", "--num-episodes", "1", "--data-root", "my data")
    said = run(sys.executable, str(REPOSITORY / "flows" / "generate.py"), *flags)
    lines = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    assert (tmp_path / shlex.split(lines["Data"])[0]).samefile(tmp_path / "my data")
    assert (tmp_path / shlex.split(lines["Watch"])[0]).read_bytes()[4:8] == b"ftyp"
    assert run(sys.executable, "-c", f"{lines['Load']}; print(len(list(data)))") == "1\n"
    page = run(*shlex.split(lines["Look"])).splitlines()[-1].removeprefix("Open in a browser: ")
    assert (tmp_path / page).is_file()
    assert not Path(page).is_absolute()
