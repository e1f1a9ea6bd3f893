"""The last lines of a command can be pasted where one stands."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.next_commands import command, flags_of, lines_from_here, path_from_here, without_registry

REPOSITORY = Path(__file__).parents[3]


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


def test_flags_that_were_not_given_are_not_repeated() -> None:
    flags = flags_of(data_root="my data", database_url=None, exp="")
    assert flags == ["--data-root", "my data"]
    assert without_registry(["--database-url", "sqlite:///x", *flags]) == flags


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
