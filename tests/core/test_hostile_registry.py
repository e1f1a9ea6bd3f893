"""A registry of somebody else, with rows that nobody would write: each use of it works, or ends with one line."""

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rlhfblender_core
from rlhfblender_core.errors import RLHFBlenderError

#: Longest line: what it quotes is cut, and the flags that it may tell are a few.
_LINE = 1500
SETTINGS = {
    "seed": 0,
    "deterministic": False,
    "max_steps_per_episode": 3,
    "algorithm": None,
    "fps": None,
    "render": False,
}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


VALUES = {
    "nested": nested(900),
    "nested somewhat": nested(60),
    "huge": 2**70,
    "very many digits": 10**400,
    "negative": -1,
    "a flag": True,
    "a fraction": 1.5,
    "a text": "x" * 100_000,
    "a list": [1, [2]],
    "no number": float("nan"),
    "half of a character": "\ud800",
}
USES: dict[str, Callable[[Path], Any]] = {
    "generate": lambda data: rlhfblender_core.generate(exp="E", num_episodes=2, data_root=str(data)),
    "watch": lambda data: rlhfblender_core.watch(data_root=str(data)),
    "verify": lambda data: rlhfblender_core.verify(quick=True, data_root=str(data)),
    "hdf5": lambda data: rlhfblender_core.export(str(data.parent / "hdf5"), to="hdf5", data_root=str(data)),
    "minari": lambda data: rlhfblender_core.export(str(data.parent / "minari"), to="minari", data_root=str(data)),
    "rlhfblender": lambda data: rlhfblender_core.export(str(data.parent / "server"), data_root=str(data)),
    "gallery": lambda data: rlhfblender_core.gallery(data_root=str(data)),
}
#: Columns, and how a value is written into each.
COLUMNS: dict[str, Callable[[Any], str]] = {
    "experiments.env_kwargs": lambda value: json.dumps({"render_fps": value}),
    "experiments.env_kwargs limit": lambda value: json.dumps({"max_episode_steps": value}),
    "experiments.env_kwargs threshold": lambda value: json.dumps({"reward_threshold": value}),
    "experiments.settings": lambda value: json.dumps(
        {**SETTINGS, "agent": "os:mkdir", "agent_kwargs": {"path": value}}
    ),
    "experiments.settings seed": lambda value: json.dumps({**SETTINGS, "seed": value}),
    "experiments.settings fps": lambda value: json.dumps({**SETTINGS, "fps": value}),
    "experiments.settings steps": lambda value: json.dumps({**SETTINGS, "max_steps_per_episode": value}),
    "episodes.sizes": json.dumps,
    "episodes.sizes of a kind": lambda value: json.dumps({"manifests": value, "films": value}),
    "episodes.warnings": lambda value: json.dumps([value]),
    "environments.action_names": json.dumps,
    "environments.observation_space": json.dumps,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("whole") / "data"
    asked: dict[str, Any] = {"env": "CartPole-v1", "random": True, "no_render": True, "max_steps_per_episode": 3}
    rlhfblender_core.generate(**asked, exp="E", num_episodes=2, data_root=str(data))
    return data


def write(data: Path, column: str, text: str) -> None:
    table, _, name = column.partition(" ")[0].partition(".")
    with contextlib.closing(sqlite3.connect(data / "rlhfblender.db")) as connection, connection:
        connection.execute(f"UPDATE {table} SET {name} = ?", (text,))


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "data"))


def check(data: Path, column: str, value: object, uses: "dict[str, Callable[[Path], Any]]") -> None:
    for use, call in uses.items():
        write(data, column, COLUMNS[column](value))
        try:
            call(data)
        except RLHFBlenderError as error:
            line = str(error)
            assert len(line) < _LINE, (use, line[:200])
            assert "\n" not in line, use


@pytest.mark.parametrize("column", COLUMNS)
def test_deep_rows_are_one_line_or_do_no_harm(column: str, copied: Path) -> None:
    check(copied, column, VALUES["nested"], {name: USES[name] for name in ("generate", "hdf5")})


def test_a_rate_that_no_float_can_hold_is_one_line(copied: Path) -> None:
    check(copied, "experiments.settings fps", VALUES["very many digits"], {"generate": USES["generate"]})


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("column", COLUMNS)
def test_hostile_rows_are_one_line_or_do_no_harm(column: str, value: str, copied: Path) -> None:
    pytest.importorskip("minari")
    check(copied, column, VALUES[value], USES)


@pytest.mark.parametrize("number", range(7))
def test_a_row_that_names_no_sizes_is_read_again_from_its_manifest(number: int, copied: Path) -> None:
    texts = ("[" * 100_000, "[1]", "3", '"x"', '{"manifests": null}', '{"films": 1}', "{")
    write(copied, "episodes.sizes", texts[number])
    before = {file: file.stat().st_mtime_ns for file in copied.rglob("*.npz")}
    assert len(rlhfblender_core.generate(exp="E", num_episodes=2, data_root=str(copied))) == 2
    assert {file: file.stat().st_mtime_ns for file in copied.rglob("*.npz")} == before


@pytest.mark.parametrize("key", ["max_episode_steps", "reward_threshold", "order_enforce", "map"])
def test_a_keyword_argument_that_nothing_can_hold_is_one_short_line(key: str, copied: Path) -> None:
    for value in (nested(40), "x" * 100_000 if key != "map" else nested(33)):
        write(copied, "experiments.env_kwargs", json.dumps({key: value}))
        with pytest.raises(RLHFBlenderError) as refused:
            rlhfblender_core.generate(exp="E", num_episodes=2, data_root=str(copied))
        assert len(str(refused.value)) < 250
