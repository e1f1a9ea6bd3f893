"""Sources that are damaged, by chance or on purpose: each fault is named with its file, and the rest is imported."""

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy_format
from PIL import Image

from rlhfblender_core.dataset.published import read_published
from rlhfblender_core.storage import open_data_root
from tests.core.import_data.conftest import ImportAll
from tests.support.making_sources import episode_arrays, make_documented, write_video


def break_archive(source: Path) -> None:
    file = source / "episodes/Theirs/5000/0.npz"
    file.write_bytes(file.read_bytes()[:200])


def shorten_rewards(source: Path) -> None:
    np.save(source / "rewards/Theirs/5000/0.npy", np.zeros(5))


def shorten_uncertainty(source: Path) -> None:
    np.save(source / "uncertainty/Theirs/5000/0.npy", np.zeros((5, 2)))


def shorten_actions(source: Path) -> None:
    np.savez(source / "episodes/Theirs/5000/0.npz", obs=np.zeros((3, 1)), rewards=np.zeros(3), actions=np.zeros(2))


def drop_actions(source: Path) -> None:
    np.savez(source / "episodes/Theirs/5000/0.npz", obs=np.zeros((3, 1)), rewards=np.zeros(3))


def cut_video(source: Path) -> None:
    file = source / "renders/Theirs/5000/0.mp4"
    file.write_bytes(file.read_bytes()[:900])


def lengthen_video(source: Path) -> None:
    write_video(source / "renders/Theirs/5000/0.mp4", 7)


def write_playlist(source: Path) -> None:
    (source / "renders/Theirs/5000/0.mp4").write_text("#EXTM3U\nfile:///etc/passwd\n")


def break_thumbnail(source: Path) -> None:
    (source / "thumbnails/Theirs/5000/0.png").write_bytes(b"GIF89a")


def drop_episode(source: Path) -> None:
    (source / "episodes/Theirs/5000/0.npz").unlink()


def encrypt(source: Path) -> None:
    file = source / "episodes/Theirs/5000/0.npz"
    content = bytearray(file.read_bytes())
    first = content.index(b"PK\x01\x02")  # the list of members; 8 bytes on are its flags
    content[first + 8] |= 1
    file.write_bytes(content)


def claim_much(source: Path) -> None:
    header = io.BytesIO()
    npy_format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    (source / "rewards/Theirs/5000/0.npy").write_bytes(header.getvalue() + bytes(80))


def inflate(source: Path) -> None:
    """An archive that says that an array in it has 2 GiB; making as many zeros would take seconds."""
    header = io.BytesIO()
    npy_format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 28,)})
    file = source / "episodes/Theirs/5000/0.npz"
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("obs", "actions", "rewards"):
            archive.writestr(f"{name}.npy", header.getvalue())
    content = bytearray(file.read_bytes())
    entry = content.rindex(b"PK\x01\x02")  # the last member in the list; its unpacked size is 24 bytes on
    content[entry + 24 : entry + 28] = (len(header.getvalue()) + (8 << 28)).to_bytes(4, "little")
    file.write_bytes(content)


def enlarge_thumbnail(source: Path) -> None:
    Image.new("1", (15_000, 15_000)).save(source / "thumbnails/Theirs/5000/0.png")


def leave_one_observation(source: Path) -> None:
    arrays = episode_arrays()
    np.savez(source / "episodes/Theirs/5000/0.npz", allow_pickle=True, **{**arrays, "obs": np.float64(1)})


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (break_archive, "episodes/Theirs/5000/0.npz: can't be read: BadZipFile"),
        (shorten_rewards, "rewards/Theirs/5000/0.npy: has 5 values, the episode has 6 steps"),
        (shorten_uncertainty, r"uncertainty/Theirs/5000/0.npy: is an array of shape (5, 2)"),
        (shorten_actions, "episodes/Theirs/5000/0.npz: actions has 2 rows, rewards has 3"),
        (drop_actions, "episodes/Theirs/5000/0.npz: has no actions"),
        (cut_video, "renders/Theirs/5000/0.mp4: "),
        (lengthen_video, "renders/Theirs/5000/0.mp4: has 7 frames, the episode has 6 steps"),
        (write_playlist, "renders/Theirs/5000/0.mp4: is no MP4 file"),
        (break_thumbnail, "thumbnails/Theirs/5000/0.png: is no picture that can be read"),
        (drop_episode, "episodes/Theirs/5000/0.npz: is missing"),
        (encrypt, "episodes/Theirs/5000/0.npz: can't be read: RuntimeError: File"),
        (claim_much, "rewards/Theirs/5000/0.npy: has -7,999,999,999,920 bytes compared with its shape"),
        (inflate, "episodes/Theirs/5000/0.npz: is a zip bomb: 692 bytes unpack to 2,147,484,032"),
        (enlarge_thumbnail, "thumbnails/Theirs/5000/0.png: "),
        (leave_one_observation, "episodes/Theirs/5000/0.npz: obs has one value and no rows, rewards has 6"),
    ],
)
def test_what_is_broken_is_named_and_the_rest_imported(
    damage: Callable[[Path], None], line: str, source: Path, target: Path, import_all: ImportAll
) -> None:
    make_documented(source)
    damage(source)
    (batch,) = import_all()
    (fault,) = batch.faults
    assert fault.startswith(line)
    assert "\n" not in fault
    assert batch.made == (1,)
    published = read_published(open_data_root(str(target)), batch.key)
    assert set(published.manifests) == {1}
    assert published.leftovers() == ()


class Payload:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.file), "w")


def test_malicious_pickles_are_refused_and_never_run(
    source: Path, target: Path, tmp_path: Path, import_all: ImportAll
) -> None:
    make_documented(source, episodes=4)
    canary = tmp_path / "canary"
    folder = source / "episodes/Theirs/5000"
    hidden = {**episode_arrays(), "infos": np.array([{"a": Payload(canary)}] + [{}] * 5, object)}
    np.savez(folder / "0.npz", allow_pickle=True, **hidden)
    np.savez(folder / "1.npz", allow_pickle=True, **{**episode_arrays(), "obs": np.array([Payload(canary)] * 6)})
    np.save(source / "rewards/Theirs/5000/2.npy", np.array([Payload(canary)] * 6), allow_pickle=True)
    (batch,) = import_all()
    assert not canary.exists()
    assert batch.made == (3,)
    assert len(batch.faults) == 3
    for fault, file in zip(
        batch.faults, ("episodes/Theirs/5000/0.npz", "episodes/Theirs/5000/1.npz", "rewards/"), strict=True
    ):
        assert fault.startswith(file)
        assert re.search(r"refused, its pickle uses _?io\.open, which is not on the list", fault)


def test_lying_headers_are_noticed(source: Path, import_all: ImportAll) -> None:
    make_documented(source, episodes=1)
    file = source / "episodes/Theirs/5000/0.npz"
    arrays = {name: array for name, array in episode_arrays().items() if name != "infos"}
    stream = io.BytesIO()
    np.save(stream, arrays["obs"])
    lying = stream.getvalue()[:-8]
    np.savez(file, **{name: array for name, array in arrays.items() if name != "obs"})
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("obs.npy", lying)
    (batch,) = import_all()
    assert batch.faults == ("episodes/Theirs/5000/0.npz: obs.npy has -8 bytes compared with its shape",)
