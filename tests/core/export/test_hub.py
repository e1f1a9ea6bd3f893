"""Exports on the Hub: a stand-in server takes the commits, and what it got is loaded."""

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rlhfblender_core.errors import InvalidParameterError, StorageNotUsableError, StorageUnavailableError
from tests.support.exporting import DataSet
from tests.support.hub_server import TOKEN, Hub, running_hub

pytest.importorskip("huggingface_hub")
pytest.importorskip("pyarrow")
URL, REPO = "hf://datasets/me/episodes", "me/episodes"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running Hub that the package takes for its own, with somebody logged in."""
    from huggingface_hub import HfApi

    with running_hub() as found:
        made = HfApi(endpoint=found.endpoint, token=TOKEN)
        monkeypatch.setattr("huggingface_hub.HfApi", lambda: made)
        yield found


def written(hub: Hub, folder: Path) -> Path:
    """The repository's files in a folder."""
    for name, content in hub.repositories[REPO].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_one_data_set_is_the_repository(hub: Hub, data: DataSet, out: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    data.counting(episodes=3)
    (report,) = data.export(out, to="datasets", push_to=URL)
    assert hub.private == {REPO: True}
    files = hub.repositories[REPO]
    local = out / report.place
    for file in (path for path in local.rglob("*") if path.is_file() and path.name != "README.md"):
        assert files[file.relative_to(local).as_posix()] == file.read_bytes()
    card = files["README.md"].decode()
    assert f'datasets.load_dataset("{REPO}", split="train")' in card
    assert "| E | random | 3 | 15 |" in card
    assert "![The first episode](episode.gif)" in card
    assert "episode.gif" not in (local / "README.md").read_text(), "the export's own card stays what it is"
    with Image.open(io.BytesIO(files["episode.gif"])) as clip:
        assert clip.n_frames == 5
        first = np.asarray(clip.convert("RGB"))
    np.testing.assert_allclose(first, data_frame(data), atol=6)
    table = datasets.load_dataset(str(written(hub, tmp_path / "repo")), split="train", cache_dir=str(tmp_path / "c"))
    assert table["reward"][:] == [r for n in range(3) for r in data.arrays("E", "random", n)["rewards"].tolist()]


def data_frame(data: DataSet) -> Any:
    from rlhfblender_core import open_data_set

    return open_data_set(data.root.url)[0].frame(0)


def test_pushed_again_it_is_brought_up_to_date_and_other_files_stay(hub: Hub, data: DataSet, out: Path) -> None:
    data.counting(episodes=1)
    data.export(out, to="lerobot", push_to=URL)
    hub.repositories[REPO] |= {"data/chunk-000/file-009.parquet": b"of before", "notes.txt": b"mine"}
    data.counting(episodes=2)
    data.export(out, to="lerobot", push_to=URL)
    files = hub.repositories[REPO]
    assert "| E | random | 2 | 10 |" in files["README.md"].decode()
    assert "data/chunk-000/file-009.parquet" not in files
    assert (files["notes.txt"], ".gitattributes" in files) == (b"mine", True)
    assert "data_files: data/*/*.parquet" in files["README.md"].decode()


@pytest.mark.parametrize(
    "to", ["datasets", *(pytest.param(to, marks=pytest.mark.soak) for to in ("lerobot", "hdf5", "minari"))]
)
def test_several_data_sets_lie_side_by_side(hub: Hub, data: DataSet, out: Path, tmp_path: Path, to: str) -> None:
    pytest.importorskip({"hdf5": "h5py", "minari": "minari"}.get(to, "datasets"))
    data.counting(episodes=1, no_render=True)
    data.counting("F", episodes=2)
    reports = data.export(out, to=to, push_to=URL)
    files = hub.repositories[REPO]
    for report in reports:
        place = out / report.place
        for file in [place] if place.is_file() else (path for path in place.rglob("*") if path.is_file()):
            assert files[file.relative_to(out).as_posix()] == file.read_bytes()
    card = files["README.md"].decode()
    assert "| F | random | 2 | 10 |" in card
    assert "episode.gif" in files, "of the first that has a video"
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    compile(code, "README.md", "exec")
    if to == "datasets":
        import datasets

        place = str(written(hub, tmp_path / "repo"))
        table = datasets.load_dataset(place, "F-random", split="train", cache_dir=str(tmp_path / "cache"))
        assert len(table) == 10


def test_what_cant_be_pushed_is_one_line(hub: Hub, data: DataSet, out: Path) -> None:
    data.counting(episodes=1)
    for url in ("hf://me/model", "https://huggingface.co/me/x", "hf://datasets/me"):
        with pytest.raises(InvalidParameterError, match="--push-to takes hf://datasets/<user>/<name>"):
            data.export(out, to="datasets", push_to=url)
    with pytest.raises(InvalidParameterError, match="not with --to rlhfblender"):
        data.export(out, push_to=URL)
    assert not out.exists()
    assert hub.repositories == {}


def test_who_isnt_logged_in_is_told_so(
    data: DataSet, out: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from huggingface_hub import HfApi

    nowhere = HfApi(endpoint="http://127.0.0.1:9", token=TOKEN)
    hub = request.getfixturevalue("hub")
    stranger = HfApi(endpoint=hub.endpoint, token="hf_wrong")
    data.counting(episodes=1)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: stranger)
    with pytest.raises(StorageNotUsableError, match=r"refuses \(401\). Log in with `hf auth login`"):
        data.export(out, to="datasets", push_to=URL)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: nowhere)
    monkeypatch.setattr("time.sleep", lambda _: None)  # the package tries for half a minute
    with pytest.raises(StorageUnavailableError, match="can't be reached"):
        data.export(out, to="datasets", push_to=URL)


def test_the_package_is_only_imported_to_push() -> None:
    script = "import sys, rlhfblender_core.export.run; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
