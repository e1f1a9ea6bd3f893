import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.gallery import INDEX_PATH, write_gallery
from rlhfblender_core.gallery.escape import link, script_json
from rlhfblender_core.storage import open_data_root
from tests.support.synthetic import Synthetic


def page_data(root: Path) -> dict:
    page = (root / INDEX_PATH).read_text()
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)[1])


def script(root: Path, name: str) -> dict:
    text = (root / "gallery" / "data" / f"{name}.js").read_text()
    assert text.startswith(f'galleryData("{name}",')
    return json.loads(text.partition(",")[2].removesuffix(");\n"))


def test_page_shows_every_episode_with_links_to_its_files(tmp_path: Path) -> None:
    report = write_gallery(Synthetic(tmp_path, episodes=3, videos=2).publish())
    assert (report.experiments, report.checkpoints, report.episodes, report.without_video) == (1, 1, 3, 1)
    (experiment,) = page_data(tmp_path)["experiments"]
    (checkpoint,) = experiment["checkpoints"]
    loaded = script(tmp_path, checkpoint["script"])
    rows = loaded["episodes"]
    assert [row["n"] for row in rows] == [0, 1, 2]
    for row in rows[:2]:
        for name in ("video", "thumbnail", "arrays"):
            assert (tmp_path / "gallery" / row[name]).is_file()
    assert rows[2]["video"] is rows[2]["thumbnail"] is None
    assert set(script(tmp_path, loaded["chunks"][0])) == {"0", "1", "2"}


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
    with pytest.raises(DataNotUsableError, match=r"has no episodes\. Run generate\.py first"):
        write_gallery(open_data_root(str(tmp_path / "empty")))


def test_nothing_in_the_data_becomes_code(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>\u2028{{script}}"
    write_gallery(Synthetic(tmp_path, episodes=1, videos=0, environment=evil).publish())
    page = (tmp_path / INDEX_PATH).read_text()
    assert "alert(1)</script>" not in page
    assert page.count("</script>") == 2
    assert page_data(tmp_path)["experiments"][0]["environment"] == evil
    assert json.loads(script_json({"<": evil})) == {"<": evil}


def test_links_escape_what_has_a_meaning_in_addresses() -> None:
    assert link("renders/a b/100%?#1/0.mp4") == "../renders/a%20b/100%25%3F%231/0.mp4"


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
    with pytest.raises(DataNotUsableError, match=r"1 episode of 'Theirs' .*--exp Theirs"):
        write_gallery(root, ["Theirs"])
    assert write_gallery(root, ["Synthetic"]).notes == (ours,)
