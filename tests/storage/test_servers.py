"""One scenario on each kind of object storage, with real servers: Amazon's protocol twice, Azure's, Google's."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhfblender_core.dataset.listings import check_root
from rlhfblender_core.delete import delete_checkpoint, finish_deletion, plan_deletion
from rlhfblender_core.errors import StorageNotUsableError, TransientError
from rlhfblender_core.registry import open_existing_registry
from rlhfblender_core.storage import (
    DataRoot,
    list_folders,
    list_sizes,
    open_data_root,
    publish_bytes,
    publish_files,
    publish_many_bytes,
    read_bytes,
    read_many,
    remove_files,
)
from tests.storage.conftest import use
from tests.support.generating import KEY, generate, request
from tests.support.servers import ObjectStorage
from tests.support.verifying import problems, repair

pytestmark = pytest.mark.xdist_group("object-storage")

Contents = Callable[[DataRoot], dict[str, str]]


def test_files_are_published_read_listed_and_removed(root: DataRoot, tmp_path: Path) -> None:
    files = {f"renders/E/random/{n}.mp4": tmp_path / str(n) for n in range(20)}
    for file in files.values():
        file.write_bytes(file.name.encode() * 1000)
    publish_files(root, files)
    assert list(tmp_path.iterdir()) == []
    publish_many_bytes(root, {"manifests/E/random/0.json": b"{}", "gallery/index.html": b"<html>"})
    assert list_sizes(root, "renders/E/random") == {f"{n}.mp4": 1000 * len(str(n)) for n in range(20)}
    assert list_sizes(root, "renders/E") == {}
    assert list_folders(root, "renders/E") == ["random"]
    assert list_folders(root, "renders/F") == []
    assert read_bytes(root, "renders/E/random/3.mp4") == b"3" * 1000
    assert set(read_many(root, [*files, "renders/E/random/99.mp4"])) == set(files)
    publish_bytes(root, "renders/E/random/3.mp4", b"again")
    assert read_bytes(root, "renders/E/random/3.mp4") == b"again"
    remove_files(root, [*files, "renders/E/random/99.mp4"])
    assert list_sizes(root, "renders/E/random") == {}
    with pytest.raises(FileNotFoundError):
        read_bytes(root, "renders/E/random/3.mp4")


def test_no_more_is_read_of_a_file_than_it_may_have(root: DataRoot) -> None:
    """As on a local disk: what has more is taken for empty, and isn't downloaded; what is empty is there."""
    contents = {
        "a/empty": b"",
        "a/one": b"1",
        "a/most": b"x" * 1000,
        "a/more": b"x" * 1001,
        "a/large": b"x" * 90_000,
    }
    publish_many_bytes(root, contents)
    found = read_many(root, [*contents, "a/none"], most=1000)
    assert found == {**contents, "a/more": b"", "a/large": b""}
    assert read_many(root, ["a/more"]) == {"a/more": contents["a/more"]}


def test_a_folder_made_by_hand_is_no_file_in_it(root: DataRoot) -> None:
    if root.protocol == "az":
        pytest.skip("Azure's tools make folders in another way")
    publish_many_bytes(root, {"manifests/E/random/": b"", "manifests/E/random/0.json": b"{}"})
    assert list_sizes(root, "manifests/E/random") == {"0.json": 2}


def test_browsers_are_told_what_files_are(root: DataRoot, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"video")
    publish_files(root, {"renders/E/random/0.mp4": tmp_path / "file"})
    publish_many_bytes(root, {"gallery/index.html": b"<html>", "gallery/data/0.js": b"0"})
    told = {}
    for path in ("renders/E/random/0.mp4", "gallery/index.html", "gallery/data/0.js"):
        info = root.fs.info(root.full_path(path))
        settings = info.get("content_settings") or {}
        told[path.rpartition(".")[2]] = info.get("ContentType") or info.get("contentType") or settings["content_type"]
    assert told == {"mp4": "video/mp4", "html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8"}


def test_episodes_are_made_kept_mended_and_deleted(
    root: DataRoot,
    storage: ObjectStorage,
    tmp_path: Path,
    snapshot: Callable[[Path], dict[str, str]],
    contents: Contents,
) -> None:
    database = f"sqlite:///{tmp_path / 'registry.db'}"
    local = open_data_root(str(tmp_path / "local"))
    generate(local, f"sqlite:///{tmp_path / 'other.db'}", request(3))
    wanted = snapshot(local.local_folder)
    processes = 2 if storage.name == "moto" else 0  # they cost seconds to start
    assert generate(root, database, request(3), processes) == 3
    assert contents(root) == wanted
    assert generate(root, database, request(3)) == 0
    assert problems(root, database) == []
    remove_files(root, ["rewards/E/random/0.npy"])
    assert generate(root, database, request(3)) == 1
    assert contents(root) == wanted
    publish_bytes(root, "renders/E/random/1.mp4", b"not a video")
    remove_files(root, ["manifests/E/random/2.json"])
    found = [line.partition(":")[0] for line in problems(root, database)]
    assert sorted(found) == ["manifests/E/random/2.json", "renders/E/random/1.mp4"]
    assert repair(root, database) == []
    assert contents(root) == wanted
    registry = open_existing_registry(database)
    assert registry is not None
    with registry:
        deletion = plan_deletion(root, registry, KEY.experiment, [])
        for checkpoint in deletion.checkpoints:
            delete_checkpoint(root, registry, checkpoint)
        finish_deletion(registry, deletion)
    assert contents(root) == {}


def test_a_bucket_that_is_missing_is_named(storage: ObjectStorage, tmp_path: Path) -> None:
    if storage.name == "seaweedfs":
        pytest.skip("SeaweedFS makes buckets by itself")
    (tmp_path / "x").write_bytes(b"x")
    missing = open_data_root(f"{storage.protocol}://no-such-bucket/data")
    for write in (lambda: publish_files(missing, {"a/x": tmp_path / "x"}), lambda: publish_bytes(missing, "a/x", b"")):
        with pytest.raises(StorageNotUsableError, match=f"There is no bucket for {missing.url}"):
            write()
    assert list_sizes(missing, "a") == {}


def test_a_root_without_anything_is_not_taken_for_a_sound_one(root: DataRoot) -> None:
    with pytest.raises(StorageNotUsableError, match=f"There is no data in {root.url}"):
        check_root(root)
    publish_bytes(root, "manifests/E/random/0.json", b"{}")
    check_root(root)


def test_somebody_whom_the_server_does_not_know_is_told_so(
    root: DataRoot, storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    if storage.unknown_files is None:
        pytest.skip(f"{storage.name} lets everybody in")
    use(storage, monkeypatch, dict(storage.unknown_files))
    unknown = open_data_root(root.url)
    actions: list[Callable[[], object]] = [
        lambda: publish_bytes(unknown, "a/x", b"x"),
        lambda: list_sizes(unknown, "a"),
        lambda: read_bytes(unknown, "a/x"),
    ]
    for action in actions:
        with pytest.raises(StorageNotUsableError, match=r"refuses access.*Check the credentials") as refusal:
            action()
        line = str(refusal.value)
        assert "\n" not in line
        assert len(line) < 400
        assert not any(value in line for name, value in storage.environment.items() if "KEY" in name)


@pytest.mark.soak
def test_a_server_out_of_reach_is_given_up(
    root: DataRoot, storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(storage, monkeypatch, storage.behind("http://127.0.0.1:9"))
    started = time.monotonic()
    with pytest.raises(TransientError, match="did not answer properly"):
        list_sizes(open_data_root(root.url), "a")
    assert time.monotonic() - started < 100
