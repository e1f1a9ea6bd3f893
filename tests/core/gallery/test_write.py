import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from rlhfblender_core.dataset.manifests import parse_manifest
from rlhfblender_core.dataset.publish import episode_record
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.gallery import INDEX_PATH, collect, figures, write_gallery
from rlhfblender_core.gallery.escape import script_json
from rlhfblender_core.gallery.write import GalleryReport
from rlhfblender_core.registry import (
    CheckpointRecord,
    EnvironmentRecord,
    ExperimentRecord,
    Registry,
    open_registry,
)
from rlhfblender_core.storage import DataRoot, list_sizes, open_data_root, publish_many_bytes, read_many
from tests.support.synthetic import Synthetic


@pytest.fixture
def memory_root() -> Iterator[DataRoot]:
    root = open_data_root("memory://gallery")
    yield root
    root.fs.rm("/gallery", recursive=True)


@contextmanager
def indexed(root: Path, whole: Synthetic, numbers: Iterable[int]) -> Iterator[Registry]:
    """A registry with rows for these episodes, as a run leaves it."""
    folder = root / "manifests" / whole.experiment / whole.checkpoint
    manifests = [parse_manifest((folder / f"{n}.json").read_bytes(), str(n)) for n in numbers]
    with open_registry(f"sqlite:///{root}/rlhfblender.db") as registry:
        registry.ensure_environment(EnvironmentRecord(env_id=whole.environment))
        registry.ensure_experiment(ExperimentRecord(name=whole.experiment, env_id=whole.environment, kind="random"))
        registry.ensure_checkpoint(CheckpointRecord(experiment=whole.experiment, label=whole.checkpoint))
        registry.record_episodes([episode_record(manifest) for manifest in manifests])
        yield registry


def page_data(root: Path) -> dict:
    page = (root / INDEX_PATH).read_text()
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)[1])


def script(root: Path, name: str) -> dict:
    text = (root / "gallery" / "data" / f"{name}.js").read_text()
    assert text.startswith(f'galleryData("{name}",')
    return json.loads(text.partition(",")[2].removesuffix(");\n"))


def pieces(root: Path) -> list[dict]:
    """The pieces of the first checkpoint, each with a row per episode and its scripts of arrays."""
    found = page_data(root)["experiments"][0]["checkpoints"][0]["pieces"]
    return [script(root, name) for name, _, _ in found]


def data_files(root: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (root / "gallery" / "data").iterdir()}


def test_page_shows_every_episode_and_which_files_it_has(tmp_path: Path) -> None:
    report = write_gallery(Synthetic(tmp_path, episodes=3, videos=2).publish())
    assert (report.experiments, report.checkpoints, report.episodes, report.without_video) == (1, 1, 3, 1)
    (experiment,) = page_data(tmp_path)["experiments"]
    (checkpoint,) = experiment["checkpoints"]
    ((name, first, count),) = checkpoint["pieces"]
    assert (first, count, checkpoint["actions"]) == (0, 3, ["left", "idle", "right"])
    piece = script(tmp_path, name)
    assert piece["n"] == [0, 1, 2]
    #: Terminated or truncated, then video, thumbnail, arrays.
    assert piece["flags"] == [0b110110, 0b110101, 0b100001]
    assert set(script(tmp_path, f"{name}-{piece['chunk'][0]}")) == {"0", "1", "2"}


def test_figures_are_those_of_the_manifests(tmp_path: Path) -> None:
    root = Synthetic(tmp_path, episodes=5, videos=0).publish()
    write_gallery(root)
    manifests = [json.loads((tmp_path / f"manifests/Synthetic/100000/{n}.json").read_text()) for n in range(5)]
    (piece,) = pieces(tmp_path)
    assert piece["return"] == [manifest["episode_return"] for manifest in manifests]
    assert piece["length"] == [manifest["episode_length"] for manifest in manifests]
    (checkpoint,) = page_data(tmp_path)["experiments"][0]["checkpoints"]
    assert checkpoint["mean"] == pytest.approx(sum(piece["return"]) / 5)
    assert checkpoint["lengths"][::2] == [min(piece["length"]), max(piece["length"])]


def test_checkpoints_are_in_the_order_of_training(tmp_path: Path) -> None:
    for label in ("final", "1000000", "random", "20000"):
        Synthetic(tmp_path, checkpoint=label, episodes=1, videos=0).publish()
    write_gallery(open_data_root(str(tmp_path)))
    (experiment,) = page_data(tmp_path)["experiments"]
    assert [found["label"] for found in experiment["checkpoints"]] == ["random", "20000", "1000000", "final"]


def test_second_run_writes_the_same_bytes(tmp_path: Path, snapshot: Callable[[Path], dict[str, str]]) -> None:
    root = Synthetic(tmp_path, episodes=3, videos=1).publish()
    write_gallery(root)
    first = snapshot(tmp_path)
    write_gallery(root)
    assert snapshot(tmp_path) == first


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tenth of their size: thousands of episodes take long to write."""
    assert figures.PIECE_NUMBERS == 1000
    monkeypatch.setattr(figures, "PIECE_NUMBERS", 100)


@pytest.mark.usefixtures("small_pieces")
def test_only_pieces_that_changed_are_written(tmp_path: Path) -> None:
    whole = Synthetic(tmp_path, episodes=210, videos=0, mean_length=3)
    root = whole.publish()
    for number in range(200, 210):
        (tmp_path / f"manifests/Synthetic/100000/{number}.json").unlink()
    assert write_gallery(root).pieces_written == 2
    assert [len(piece["n"]) for piece in pieces(tmp_path)] == [100, 100]
    before = data_files(tmp_path)
    assert write_gallery(root).pieces_written == 0
    assert data_files(tmp_path) == before
    replace(whole, episodes=210).publish()
    assert write_gallery(root).pieces_written == 1
    assert [len(piece["n"]) for piece in pieces(tmp_path)] == [100, 100, 10]
    assert before.items() <= data_files(tmp_path).items()
    (tmp_path / "manifests/Synthetic/100000/150.json").unlink()
    (tmp_path / "episodes/Synthetic/100000/3.npz").unlink()
    assert write_gallery(root).pieces_written == 2
    assert [len(piece["n"]) for piece in pieces(tmp_path)] == [100, 99, 10]
    assert pieces(tmp_path)[0]["flags"][3] == 0b10


@pytest.mark.usefixtures("small_pieces")
def test_manifests_of_pieces_that_are_there_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry's rows name the manifests: adding ten to many reads a piece, and the checkpoint's first."""
    whole = Synthetic(tmp_path, episodes=210, videos=0, mean_length=3)
    root = whole.publish()
    with indexed(tmp_path, whole, range(200)) as registry:
        for number in range(200, 210):
            (tmp_path / f"manifests/Synthetic/100000/{number}.json").unlink()
        write_gallery(root, registry=registry)
        replace(whole, episodes=210).publish()
        read: list[str] = []
        monkeypatch.setattr(
            collect, "read_many", lambda root, paths: (read.extend(paths := list(paths)), read_many(root, paths))[1]
        )
        assert write_gallery(root, registry=registry).pieces_written == 1
        assert len(read) == 11
        read.clear()
        assert write_gallery(root, registry=registry).pieces_written == 0
        assert len(read) == 11  # the ten have no rows


def test_registry_and_manifests_make_the_same_page(tmp_path: Path, snapshot: Callable[[Path], dict[str, str]]) -> None:
    whole = Synthetic(tmp_path, episodes=4, videos=1)
    root = whole.publish()
    write_gallery(root)
    first = snapshot(tmp_path)
    with indexed(tmp_path, whole, range(4)) as registry:
        assert write_gallery(root, registry=registry).pieces_written == 0
    assert snapshot(tmp_path) == first


def test_a_row_that_is_not_up_to_date_is_not_believed(tmp_path: Path) -> None:
    whole = Synthetic(tmp_path, episodes=3, videos=0)
    root = whole.publish()
    with indexed(tmp_path, whole, range(3)) as registry:
        replace(whole, level=7.0).publish()
        write_gallery(root, registry=registry)
        manifest = json.loads((tmp_path / "manifests/Synthetic/100000/2.json").read_text())
        assert pieces(tmp_path)[0]["return"][2] == manifest["episode_return"]
        assert page_data(tmp_path)["experiments"][0]["checkpoints"][0]["returns"][6] > 100


def test_a_root_that_is_no_folder_has_no_arrays_in_scripts(memory_root: DataRoot, tmp_path: Path) -> None:
    local = Synthetic(tmp_path, episodes=2, videos=0).publish()
    copied = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    publish_many_bytes(memory_root, copied)
    write_gallery(local)
    write_gallery(memory_root)
    here, there = set(data_files(tmp_path)), set(list_sizes(memory_root, "gallery/data"))
    assert there == {name for name in here if "-" not in name}


def test_only_the_wanted_experiments_are_shown_and_old_scripts_removed(tmp_path: Path) -> None:
    for name in ("A", "B"):
        root = Synthetic(tmp_path, experiment=name, episodes=1, videos=0, level=len(name) + ord(name)).publish()
    write_gallery(root)
    before = len(list((tmp_path / "gallery" / "data").iterdir()))
    write_gallery(root, ["B"])
    assert [shown["name"] for shown in page_data(tmp_path)["experiments"]] == ["B"]
    assert len(list((tmp_path / "gallery" / "data").iterdir())) == before // 2


def test_deleted_video_leaves_an_episode_without_one(tmp_path: Path) -> None:
    root = Synthetic(tmp_path, episodes=2, videos=2).publish()
    (tmp_path / "renders" / "Synthetic" / "100000" / "1.mp4").unlink()
    assert write_gallery(root).without_video == 1


def test_unknown_experiment_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    root = Synthetic(tmp_path, episodes=1, videos=0).publish()
    with pytest.raises(DataNotUsableError, match=r"'Other'\. There are: Synthetic\."):
        write_gallery(root, ["Other"])
    with pytest.raises(DataNotUsableError, match=r"has no episodes\. Make some with `python flows/generate\.py"):
        write_gallery(open_data_root(str(tmp_path / "empty")))


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    root = Synthetic(tmp_path, episodes=2, videos=0).publish()
    (tmp_path / "manifests/Synthetic/100000/1.json").write_text("{}")
    with pytest.raises(DataNotUsableError, match=r"1\.json is not a manifest"):
        write_gallery(root)


def test_nothing_in_the_data_becomes_code(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>\u2028{{script}}"
    write_gallery(Synthetic(tmp_path, episodes=1, videos=0, environment=evil).publish())
    page = (tmp_path / INDEX_PATH).read_text()
    assert "alert(1)</script>" not in page
    assert page.count("</script>") == 2
    assert page_data(tmp_path)["experiments"][0]["environment"] == evil
    assert json.loads(script_json({"<": evil})) == {"<": evil}


def test_episodes_laid_there_by_hand_are_named_with_the_command_that_takes_them_in(tmp_path: Path) -> None:
    root = Synthetic(tmp_path, episodes=1, videos=0).publish()
    by_hand = [f"episodes/Synthetic/100000/{n}.npz" for n in (5, 6)] + [
        "episodes/Theirs/a/0.npz",
        "episodes/-x/a/0.npz",
    ]
    for path in by_hand:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"theirs")
    report = write_gallery(root)
    assert report.episodes == 1
    ours, theirs = report.notes
    assert "2 episodes of 'Synthetic'" in ours
    assert "`python flows/import_data.py --exp Synthetic --env …`" in ours
    assert "1 episode of 'Theirs'" in theirs
    assert theirs in report.summary
    assert page_data(tmp_path)["notes"] == [ours, theirs]
    with pytest.raises(DataNotUsableError, match=r"1 episode of 'Theirs' .*--exp Theirs"):
        write_gallery(root, ["Theirs"])
    assert write_gallery(root, ["Synthetic"]).notes == (ours,)


@pytest.mark.parametrize(
    ("page", "line"),
    [
        ("data/gallery/index.html", "Open in a browser: data/gallery/index.html"),
        ("s3://b/gallery/index.html", "Open at the storage's web address: s3://b/gallery/index.html"),
    ],
)
def test_a_page_on_storage_has_another_address_in_a_browser(page: str, line: str) -> None:
    assert GalleryReport(page, 1, 1, 1, 0).summary.splitlines()[-1] == line
