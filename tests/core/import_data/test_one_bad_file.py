"""One bad file never ends an import, costs much, or starts a program: it is named, and the others are imported."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rlhfblender_core.import_data.labels import import_action_labels
from rlhfblender_core.import_data.source_database import find_database, read_facts
from rlhfblender_core.storage import open_data_root
from tests.core.import_data.conftest import ImportAll
from tests.support.hostile_files import bounded, long_npz, npy_with_header
from tests.support.making_sources import episode_arrays, make_documented

EPISODE = "episodes/Theirs/5000/0.npz"


def objects(*rows: Any) -> np.ndarray[Any, Any]:
    array = np.empty(len(rows), object)
    for index, row in enumerate(rows):
        array[index] = row
    return array


def infos(row: Any) -> dict[str, Any]:
    return {"infos": objects(*[row] * 6)}


def observations(row: Any) -> dict[str, Any]:
    return {"obs": objects(*[row] * 6)}


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (infos({("a", 1): 2}), "key"),
        (infos({"a": {(1, 2): {}}}), "key"),
        (infos({"a": {(1, 2)}}), "key"),
        (infos({1, 2}), "infos isn't one dict per step"),
        (infos(3), "infos isn't one dict per step"),
        (infos([{}]), "infos isn't one dict per step"),
        (infos({1: "a", "1": "b"}), "two keys"),
        (infos({"a": [{True: 0, "True": 1}]}), "two keys"),
        ({"infos": np.arange(6)}, "infos is an array of int64"),
        ({"infos": np.array(["3"] * 6)}, "infos isn't one dict per step"),
        ({"infos": np.array(["{"] * 6)}, "is no JSON"),
        ({"infos": np.array(["[" * 5000] * 6)}, ""),
        ({"infos": objects()}, "infos has 0 rows"),
        ({"terminated": np.zeros(0), "truncated": np.zeros(0)}, "terminated has 0 rows"),
        ({"terminated": np.bool_(True), "truncated": np.bool_(True)}, "terminated has one value and no rows"),
        ({"terminated": np.zeros((6, 2)), "truncated": np.zeros((6, 2))}, "terminated has shape (6, 2)"),
        ({"dones": np.float64(1)}, "dones has one value"),
        ({"dones": np.array(["x"] * 6)}, "dones is an array of <U1"),
        ({"dones": objects(*[{}] * 6)}, "dones is an array of object"),
        ({"rewards": objects(*[None] * 6)}, "rewards is an array of object"),
        ({"rewards": np.float64(1)}, "rewards"),
        ({"actions": objects(*[{"a": 1}] * 6)}, "actions has rows"),
        (observations({"a.b": 1, "a": {"b": 2}}), "two keys that would both become obs.a.b"),
        (observations({1: 1, "1": 2}), "two keys that would both become obs.1"),
        (observations({"a": {"b": {"c": 1}}, "a.b.c": 2}), "two keys"),
        (observations({"../../x": 1}), "can't be the name of a column"),
        (observations({"": {"\n": 1}}), "can't be the name of a column"),
        ({**observations({"x": 1}), "obs.x": np.zeros(6)}, "two of its columns would both become obs.x"),
        (observations({}), "obs has rows without a value"),
    ],
)
def test_what_can_not_be_an_episode_is_named_and_the_rest_imported(
    changed: dict[str, Any], problem: str, source: Path, import_all: ImportAll
) -> None:
    make_documented(source)
    arrays = {**episode_arrays(), **changed}
    np.savez(source / EPISODE, allow_pickle=True, **arrays)
    (batch,) = import_all()
    assert batch.made == (1,)
    (fault,) = batch.faults
    assert fault.startswith(f"{EPISODE}: ")
    assert problem in fault
    assert "\n" not in fault


def test_infos_with_sets_and_numbers_as_keys_are_imported(source: Path, import_all: ImportAll) -> None:
    make_documented(source)
    np.savez(source / EPISODE, allow_pickle=True, **{**episode_arrays(), **infos({0: {"a": {1, 2}}, "b": {None}})})
    (batch,) = import_all()
    assert batch.made == (0, 1)


def test_episode_of_very_many_steps_is_refused_at_once(source: Path, import_all: ImportAll) -> None:
    make_documented(source)
    long_npz(source / EPISODE, 60_000_000)
    assert (source / EPISODE).stat().st_size < 600_000
    with bounded():  # the other episode has a video
        (batch,) = import_all()
    assert batch.made == (1,)
    assert batch.faults[0].startswith(f"{EPISODE}: ")


def write_long_info(source: Path) -> None:
    long = objects({"a": "x" * 200_000}, *[{}] * 9_999)
    numbers = np.zeros(10_000)
    np.savez(source / EPISODE, allow_pickle=True, obs=numbers, actions=numbers, rewards=numbers, infos=long)


def write_claims(source: Path) -> None:
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    (source / "uncertainty/Theirs/5000/0.npy").write_bytes(npy_with_header(header))


def write_brackets(source: Path) -> None:
    (source / "rewards/Theirs/5000/0.npy").write_bytes(npy_with_header("(" * 4_000))


def write_other_picture(source: Path) -> None:
    Image.new("RGB", (8, 8)).save(source / "thumbnails/Theirs/5000/0.png", "TIFF")


@pytest.mark.parametrize("write", [write_long_info, write_claims, write_brackets, write_other_picture])
def test_small_file_that_asks_for_much_is_named(
    write: Callable[[Path], None], source: Path, import_all: ImportAll
) -> None:
    make_documented(source)
    write(source)
    with bounded():
        (batch,) = import_all()
    assert batch.made == (1,)
    assert len(batch.faults) == 1


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("extension", [".png", ".jpg", ".gif", ".bmp", ".webp"])
def test_no_picture_starts_a_program(
    extension: str, source: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, canary = tmp_path / "bin", tmp_path / "canary"
    programs.mkdir()
    program = programs / "gs"
    program.write_text(f"#!/bin/sh\ntouch {canary}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    folder = source / "action_labels" / "Made-v0"
    folder.mkdir(parents=True)
    file = folder / f"0_left{extension}"
    file.write_bytes(EPS)
    with pytest.raises(OSError), Image.open(file) as image:  # noqa: PT011 (Pillow's, of any kind)
        image.load()
    assert canary.exists(), "the control started no program: this test shows nothing"
    canary.unlink()
    Image.new("RGB", (8, 8)).save(folder / "1_right.png")
    stored, faults = import_action_labels(open_data_root(str(target)), source)
    assert stored == 1
    assert len(faults) == 1
    assert faults[0].startswith(f"action_labels/Made-v0/0_left{extension}: ")
    assert not canary.exists()


def sparse(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(2**40)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a link to itself": lambda file: file.symlink_to(file.name),
    "a link to nowhere": lambda file: file.symlink_to("nowhere"),
    "a link to a device": lambda file: file.symlink_to("/dev/zero"),
    "a link to what can't be read": lambda file: file.symlink_to("/proc/self/mem"),
    "a pipe": os.mkfifo,
    "a terabyte of nothing": sparse,
}
KINDS = ["episodes/{}/0.npz", "rewards/{}/0.npy", "uncertainty/{}/0.npy", "renders/{}/0.mp4", "thumbnails/{}/0.png"]


@pytest.mark.parametrize("what", NO_FILES)
def test_what_is_no_file_is_named_or_made_up_for(what: str, source: Path, import_all: ImportAll) -> None:
    make_documented(source, "Theirs", episodes=6)
    for number, path in enumerate(KINDS):
        file = source / path.format("Theirs/5000").replace("0.", f"{number}.")
        file.unlink()
        NO_FILES[what](file)
    with bounded():
        (batch,) = import_all(source_exp="Theirs")
    named = " ".join((*batch.faults, *batch.notes))
    assert 0 not in batch.made
    assert 5 in batch.made
    assert {*batch.made, *(int(fault.partition(".")[0].rpartition("/")[2]) for fault in batch.faults)} == {*range(6)}
    for number, path in enumerate(KINDS):
        assert path.format("Theirs/5000").replace("0.", f"{number}.") in named


@pytest.mark.parametrize("what", NO_FILES)
def test_picture_of_an_action_that_is_no_file_is_named(what: str, source: Path, target: Path) -> None:
    folder = source / "action_labels" / "Made-v0"
    folder.mkdir(parents=True)
    NO_FILES[what](folder / "0_left.png")
    Image.new("RGB", (8, 8)).save(folder / "1_right.png")
    with bounded():
        stored, faults = import_action_labels(open_data_root(str(target)), source)
    assert (stored, len(faults)) == (1, 1)


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"


@pytest.mark.parametrize(
    "statement",
    [
        f"CREATE VIEW Experiment AS {ENDLESS} SELECT 1 AS id, x AS exp_name FROM c",
        f"CREATE VIEW Environment AS {ENDLESS} SELECT 'E' AS registration_id, count(*) AS env_name FROM c",
        "CREATE TABLE Environment (registration_id, env_name AS (hex(zeroblob(900000000))))",
        f"CREATE TABLE Environment (registration_id, env_name); INSERT INTO Environment VALUES ('E', '{'(' * 90_000}')",
    ],
)
def test_database_that_computes_without_end_is_left(statement: str, source: Path) -> None:
    source.mkdir()
    file = source / "rlhfblender.db"
    with sqlite3.connect(file) as connection:
        connection.executescript("CREATE TABLE IF NOT EXISTS Other (id);" + statement)
        if "VIEW Experiment" not in statement:
            connection.execute("CREATE TABLE Experiment (id, env_id, environment_config)")
            connection.execute("INSERT INTO Experiment VALUES (1, 'E', ?)", ["{" * 50_000])
    connection.close()
    with bounded():
        find_database(source)
        assert read_facts(file, 1, "E").env_kwargs == {}
