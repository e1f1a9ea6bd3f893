"""``delete.py`` asks on a terminal: what a person may type, and what is there instead of one."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.storage import open_data_root
from tests.support.generating import generate, request

Snapshot = Callable[[Path], dict[str, str]]
NOT_DELETED = "error: Nothing was deleted.\n"


@pytest.fixture
def experiment(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two episodes."""
    generate(open_data_root(str(data_root)), f"sqlite:///{data_root / 'rlhfblender.db'}", request(2))
    monkeypatch.setenv("RLHFBLENDER_DATA_ROOT", str(data_root))
    return data_root


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A terminal is standard input; what is written here is typed."""
    openpty = getattr(os, "openpty", None)
    if openpty is None:
        pytest.skip("no terminals here")
    keys, terminal = openpty()
    with os.fdopen(terminal, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield keys
    os.close(keys)


@pytest.mark.parametrize("typed", [b"n\n", b"\n", b"nein\n", b"yes please\n", b"\x04", b"\xff\xfe\n"])
def test_anything_but_yes_deletes_nothing(
    typed: bytes, keyboard: int, experiment: Path, command_line: Callable[..., Any], snapshot: Snapshot
) -> None:
    """An end of input (Ctrl-D) and bytes that are no text included."""
    before = snapshot(experiment)
    os.write(keyboard, typed)
    refused = command_line("delete", "--exp", "E")
    assert (refused.code, refused.err.lstrip("\n")) == (2, NOT_DELETED)
    assert "To be deleted: experiment E (random): 2 episodes, 12 files" in refused.out
    assert snapshot(experiment) == before


@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize("typed", [b"y\n", b" YES \n"])
def test_yes_deletes(
    typed: bytes, keyboard: int, experiment: Path, command_line: Callable[..., Any], snapshot: Snapshot
) -> None:
    os.write(keyboard, typed)
    assert command_line("delete", "--exp", "E").code == 0
    assert snapshot(experiment) == {}


@pytest.mark.parametrize("is_closed", [True, False])
def test_where_nobody_can_be_asked_nothing_is_deleted_without_yes(
    *,
    is_closed: bool,
    experiment: Path,
    command_line: Callable[..., Any],
    snapshot: Snapshot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = snapshot(experiment)
    (tmp_path / "answers").write_text("y\n")
    with (tmp_path / "answers").open() as answers:
        monkeypatch.setattr(sys, "stdin", None if is_closed else answers)
        refused = command_line("delete", "--exp", "E")
    assert refused.code == 2
    assert refused.err == "error: Nothing was deleted: nobody is there to ask. Give --yes to delete.\n"
    assert snapshot(experiment) == before


@pytest.mark.usefixtures("prefect")
def test_chosen_episodes_are_deleted(experiment: Path, command_line: Callable[..., Any]) -> None:
    done = command_line("delete", "--exp", "E", "--where", "number >= 1", "--episodes", "0-5", "--yes")
    assert done.code == 0, done.err
    assert "Deleted episodes (--episodes 0-5 --where 'number >= 1') of experiment E (random): 1 episode" in done.out
    assert {path.stem for path in experiment.glob("*/E/random/*")} == {"0"}


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--where", "retrun > 3"), "error: --where 'retrun > 3': there is no 'retrun': did you mean return?"),
        (("--episodes", "3;4"), "error: --episodes '3;4': give numbers and spans of them, e.g. 3,5-9."),
        (("--where", "return > 1e9"), "error: No episode of experiment 'E' is chosen by --where 'return > 1e9'."),
    ],
)
def test_a_wrong_choice_is_told_in_one_line(
    flags: tuple[str, str], line: str, experiment: Path, command_line: Callable[..., Any], snapshot: Snapshot
) -> None:
    before = snapshot(experiment)
    refused = command_line("delete", "--exp", "E", *flags, "--yes")
    assert refused.code == 2
    assert refused.err.startswith(line)
    assert refused.err.count("\n") == 1
    assert snapshot(experiment) == before
