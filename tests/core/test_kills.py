"""Repair, export, import, delete and overwriting, killed at random moments: the same call finishes what they began."""

import functools
import hashlib
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.dataset.layout import RUNS
from rlhfblender_core.delete import delete
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.import_data.run import import_data
from rlhfblender_core.runs.folders import machine_folder, remove_dead_runs
from rlhfblender_core.storage import DataRoot, open_data_root
from tests.support import killing
from tests.support.exporting import DataSet
from tests.support.generating import generate, request
from tests.support.making_sources import make_documented, write_picture
from tests.support.verifying import database, problems, repair

pytestmark = pytest.mark.timeout(3600)

Deed = Callable[[], object]
EPISODES = 4
OTHERS = "somebody's.txt"
_SOAK = pytest.mark.soak
MANY = [pytest.param(1, id="once"), pytest.param(20, id="twenty times", marks=_SOAK)]


def make(root: DataRoot, seed: int = 0, *, overwrite: bool = False) -> None:
    """Makes the episodes."""
    entry_point = "tests.support.environments_for_tests.counting:Drawing"
    asked = request(EPISODES, env="Drawing-v0", env_gym_entrypoint=entry_point, seed=seed, overwrite=overwrite)
    generate(root, database(root), asked)


def overwrite_unless_refused(root: DataRoot, seed: int) -> None:
    """Makes them anew; a run under way that makes others is a reason not to."""
    try:
        make(root, seed, overwrite=True)
    except InvalidParameterError as error:
        if "under way" not in str(error) and "another run" not in str(error).lower():
            raise


def delete_if_there(root: DataRoot) -> None:
    """Deletes the experiment; that there is none means that the killed call had got so far."""
    try:
        delete(exp="E", data_root=root.url)
    except InvalidParameterError as error:
        if "There is no experiment" not in str(error):
            raise


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with pictures, and a file of somebody's beside it."""
    root = open_data_root(str(tmp_path_factory.mktemp("made") / "data"))
    make(root)
    (root.local_folder / OTHERS).write_text("theirs")
    return root.local_folder


def copied(made: Path, place: Path) -> DataRoot:
    shutil.copytree(made, place)
    return open_data_root(str(place))


def no_manifest_lies(place: Path) -> None:
    """Every file that a manifest names is there, and the one that it names."""
    for file in (place / "manifests").rglob("[0-9]*.json"):
        for record in json.loads(file.read_text())["artifacts"].values():
            assert hashlib.sha256((place / record["path"]).read_bytes()).hexdigest() == record["sha256"], record


def tree(folder: Path) -> dict[str, Any]:
    """What lies in a folder, by path."""
    return {str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _content(file: Path) -> Any:
    if file.suffix in (".db", ".sqlite"):
        with closing(sqlite3.connect(file)) as connection:
            return list(connection.iterdump())
    if file.suffix == ".hdf5":
        return _hdf5(file)
    return file.read_bytes() if file.exists() else None  # a journal goes when its database is opened


def _hdf5(file: Path) -> list[str]:
    import h5py

    found: list[str] = []

    def visit(name: str, item: Any) -> None:
        value = item[()].tolist() if isinstance(item, h5py.Dataset) else None
        found.append(f"{name} {value} {sorted((key, str(text)) for key, text in item.attrs.items())}")

    with h5py.File(file, "r") as opened:
        opened.visititems(visit)
    return found


def _rows(root: Path) -> list[str]:
    """The registry's rows, but for times and for what it remembers of dead runs, which others look at and outlive."""
    found = []
    with closing(sqlite3.connect(root / "rlhfblender.db")) as connection:
        connection.row_factory = sqlite3.Row
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if table in ("runs", "claims"):
                continue
            for row in connection.execute(f"SELECT * FROM {table}"):
                found.append(f"{table} {[(key, row[key]) for key in row.keys() if not key.endswith('_at')]}")  # noqa: SIM118 (a Row iterates over its values)
    return sorted(found)


@dataclass
class Kills:
    """Has a deed done, killed, and done again.

    Attributes:
        scratch: for everything.
        snapshot: see the fixture.
        chance: decides the moments.
    """

    scratch: Path
    snapshot: Callable[[Path], dict[str, str]]
    chance: random.Random

    @property
    def temporary(self) -> Path:
        """What stands for the machine's temporary folder."""
        return self.scratch / "temporary"

    def data(self, place: Path) -> Any:
        """Files and rows of a data root, but for a folder of a run that was killed before it was locked.

        Nobody can tell it from one that is being locked at the moment; it goes some seconds later.
        """
        unnamed = f"{RUNS}/.new-"
        files = {path: digest for path, digest in self.snapshot(place).items() if not path.startswith(unnamed)}
        return files, _rows(place)

    def undisturbed(self, deed: Deed) -> int:
        """Does it; gives how many changes that takes."""
        code, changes = killing.run(deed, self.temporary)
        assert code == 0
        return changes

    def each(
        self,
        count: int,
        prepare: Callable[[Path], Deed],
        check: Callable[[Path], None],
        outcome: Callable[[Path], Any] | None = None,
    ) -> None:
        """Kills it so many times; each time the same deed must end well, and as if nothing had happened.

        Args:
            count: how many times.
            prepare: makes a new folder ready, and gives what is to be done there.
            check: what must hold after the kill.
            outcome: of a folder; None for :meth:`data`.
        """
        outcome = outcome or self.data
        changes = self.undisturbed(prepare(self.scratch / "whole"))
        for number in range(count):
            place, last = self.scratch / f"{number}", self.chance.randint(1, changes)
            deed = prepare(place)
            killing.run(deed, self.temporary, last)
            check(place)
            self.undisturbed(deed)
            assert outcome(place) == outcome(self.scratch / "whole"), f"killed at change {last} of {changes}"
            self.nothing_is_left(place)
            shutil.rmtree(place)

    def nothing_is_left(self, place: Path) -> None:
        """No unfinished file, neither there nor in this machine's temporary folder."""
        for folder in (place / RUNS, self.temporary / machine_folder().name):
            for unnamed in folder.glob(".new-*"):  # killed before it was locked: dead in some seconds, or by its age
                os.utime(unnamed, (0, 0))
            remove_dead_runs(folder)
        unfinished = ("*.part", "*-journal", "staging-*", RUNS)
        assert [path for pattern in unfinished for path in place.rglob(pattern)] == []
        # The notes and the cache of who runs these tests are no temporary files.
        assert [path for path in self.temporary.iterdir() if path.name != "rlhfblender-tests"] == []


@pytest.fixture
def kills(tmp_path: Path, request: pytest.FixtureRequest, snapshot: Callable[[Path], dict[str, str]]) -> Kills:
    return Kills(tmp_path, snapshot, random.Random(request.node.name))


DAMAGED = [
    f"{kind}/E/random/{name}"
    for kind, name in [("renders", "0.mp4"), ("manifests", "1.json"), ("rewards", "2.npy"), ("episodes", "3.npz")]
]


@pytest.mark.parametrize("count", MANY)
def test_repair(count: int, kills: Kills, made: Path) -> None:
    def prepare(place: Path) -> Deed:
        root = copied(made, place)
        for path in DAMAGED:
            (place / path).write_bytes(b"x")
        with closing(sqlite3.connect(place / "rlhfblender.db")) as connection, connection:
            connection.execute("DELETE FROM episodes WHERE number = 2")
        return functools.partial(repair, root, database(root))

    def check(place: Path) -> None:
        root = open_data_root(str(place))
        told = problems(root, database(root))
        for path, digest in kills.snapshot(place).items():
            if path in DAMAGED and (place / path).read_bytes() == b"x":
                assert any(line.startswith(path.replace("manifests", "")) or path in line for line in told), told
            elif not path.startswith(RUNS):
                assert digest == kills.snapshot(made).get(path), path

    kills.each(count, prepare, check)


@pytest.mark.parametrize(
    ("to", "count"),
    [
        ("rlhfblender", 1),
        *(pytest.param(to, 20, marks=_SOAK) for to in ("rlhfblender", "minari", "hdf5", "datasets", "lerobot")),
    ],
)
def test_export(to: str, count: int, kills: Kills, made: Path) -> None:
    def prepare(place: Path) -> Deed:
        place.mkdir()
        (place / OTHERS).write_text("theirs")
        root = copied(made, place.with_name(f"{place.name}-data"))
        return functools.partial(DataSet(root, database(root), kills.scratch).export, place, to=to)

    def check(place: Path) -> None:
        found, whole = tree(place), tree(kills.scratch / "whole")
        for path, content in found.items():
            if path.startswith(".rlhfblender-export") or path.endswith((".part", ".db", "-journal")):
                continue
            assert content == whole[path], path
            if to == "rlhfblender" and path.endswith(".mp4"):  # an episode exists for the server if its video does
                number = Path(path).stem
                siblings = [other for other in whole if other.startswith("data/") and _number(other) == number]
                assert set(siblings) <= set(found)

    kills.each(count, prepare, check, tree)


def _number(path: str) -> str:
    return Path(path).stem.rpartition("_")[2]


@pytest.mark.parametrize(
    ("layout", "count"),
    [("documented", 1), pytest.param("documented", 20, marks=_SOAK), pytest.param("own", 20, marks=_SOAK)],
)
def test_import(layout: str, count: int, kills: Kills, made: Path, tmp_path: Path) -> None:
    source, flags = made, {}
    if layout == "documented":
        source, flags = make_documented(tmp_path / "source", episodes=3), {"exp": "Theirs", "env": "Made-v0"}
        for name in ("0_left.png", "1_right.png"):
            write_picture(source / "action_labels" / "Made-v0" / name)
    before = kills.snapshot(source)

    def prepare(place: Path) -> Deed:
        place.mkdir()
        (place / OTHERS).write_text("theirs")
        return functools.partial(import_data, str(source), data_root=str(place), **flags)

    kills.each(count, prepare, no_manifest_lies)
    assert kills.snapshot(source) == before


@pytest.mark.parametrize("count", MANY)
def test_delete(count: int, kills: Kills, made: Path) -> None:
    kills.each(count, lambda place: functools.partial(delete_if_there, copied(made, place)), no_manifest_lies)


@pytest.mark.parametrize("count", MANY)
def test_two_overlapping_runs_that_overwrite(count: int, kills: Kills, made: Path) -> None:
    """One or both are killed; they ask for the same or for different episodes."""
    whole = copied(made, kills.scratch / "whole")
    asked = functools.partial(make, seed=5, overwrite=True)
    changes = kills.undisturbed(functools.partial(asked, whole))
    for number in range(count):
        place = kills.scratch / f"{number}"
        root = copied(made, place)
        seeds = kills.chance.choice([(5, 5), (5, 6), (6, 5)])
        ends = kills.chance.choice([(True, False), (False, True), (True, True)])
        moments = [kills.chance.randint(1, changes) if is_killed else None for is_killed in ends]
        both = [
            killing.start(functools.partial(overwrite_unless_refused, root, seed), kills.temporary, moment)
            for seed, moment in zip(seeds, moments, strict=True)
        ]
        for one in both:
            one.wait()
        no_manifest_lies(place)
        kills.undisturbed(functools.partial(asked, root))
        assert kills.data(place) == kills.data(kills.scratch / "whole"), (seeds, moments, changes)
        kills.nothing_is_left(place)
        shutil.rmtree(place)
