"""What a person is told while a run is under way."""

import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.cli import progress
from rlhfblender_core.environments.quiet import quiet_natives
from rlhfblender_core.workers.progress import ProgressCounter


@pytest.mark.parametrize("ends", [False, True])
def test_episodes_that_never_end_get_one_note(
    ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.02)
    monkeypatch.setattr(progress, "_LONG_SECONDS", 0.5)
    counter = ProgressCounter(tmp_path / "1.progress")
    with progress.TerminalDisplay().watch(tmp_path, 100):
        for _ in range(20):
            counter.add(steps=50, episodes=int(ends))
            time.sleep(0.06)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("No episode has ended (") == (0 if ends else 1)
    assert ("--max-steps-per-episode" in said) == (not ends)


def test_silent_cluster_is_not_said_to_run_an_endless_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.02)
    monkeypatch.setattr(progress, "_LONG_SECONDS", 0.1)
    with progress.TerminalDisplay().watch(tmp_path, 100):
        time.sleep(0.5)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("No shard has come back for") == 1
    assert "episode has ended" not in said


@pytest.mark.parametrize("takes_long", [False, True])
def test_checks_that_take_long_are_said_once(
    takes_long: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_LONG_SECONDS", 0.1 if takes_long else 20.0)
    before = progress.current_display.set(progress.TerminalDisplay())
    try:
        with progress.checking():
            time.sleep(0.4)
    finally:
        progress.current_display.reset(before)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("Nothing is rolled out yet after") == int(takes_long)


def test_a_note_is_seen_while_an_environment_is_kept_quiet(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_LONG_SECONDS", 0.1)
    before = progress.current_display.set(progress.TerminalDisplay())
    try:
        with progress.checking(), quiet_natives():
            time.sleep(0.4)
    finally:
        progress.current_display.reset(before)
    assert "Nothing is rolled out yet after" in capfd.readouterr().err


def test_plain_lines_say_of_which_checkpoint_and_how_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.5)
    monkeypatch.setattr(progress, "_REFRESH_SECONDS", 0.01)
    counter = ProgressCounter(tmp_path / "1.progress")
    with progress.TerminalDisplay().watch(tmp_path, 3, "20000"):
        for _ in range(3):
            time.sleep(0.3)
            counter.add(steps=50, episodes=1)
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(re.fullmatch(r"20000: [123]/3 episodes · [\d,]+ frames/s", line) for line in lines), lines


def test_steps_are_counted_with_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.0)
    now = iter([100.0, 110.0, 121.0, 130.0, 140.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(now)))
    with progress.TerminalDisplay().count("check-episodes", 4) as advance:
        for _ in range(4):
            advance()
    assert capsys.readouterr().err.splitlines() == [
        "check-episodes: 1/4 · 0:00:30 left",
        "check-episodes: 2/4 · 0:00:21 left",
        "check-episodes: 3/4 · 0:00:10 left",
    ]
    with progress.TerminalDisplay().count("a single step", None) as advance:
        advance()
    assert capsys.readouterr().err == ""
