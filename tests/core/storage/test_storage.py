import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhfblender_core.errors import StorageNotUsableError, StorageUnavailableError
from rlhfblender_core.storage import (
    DataRoot,
    check_writable,
    list_folders,
    list_names,
    list_sizes,
    open_data_root,
    publish_bytes,
    publish_files,
    publish_many_bytes,
    read_bytes,
    read_each,
    read_many,
    remove_files,
    sizes_of,
    translated,
)
from tests.support.hostile_files import bounded


@pytest.fixture(params=["local", "file-url", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DataRoot]:
    urls = {"local": str(tmp_path / "data"), "file-url": f"file://{tmp_path}/data", "memory": "memory://data"}
    opened = open_data_root(urls[request.param])
    yield opened
    if request.param == "memory":
        opened.fs.store.clear()


def test_what_is_published_can_be_read_and_listed(root: DataRoot, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"video")
    publish_files(root, {"renders/e/random/0.mp4": tmp_path / "local"})
    publish_many_bytes(root, {"manifests/e/random/0.json": b"{}", "manifests/e/random/1.json": b"[]"})
    publish_bytes(root, "manifests/e/2000/0.json", b"x")
    assert read_bytes(root, "renders/e/random/0.mp4") == b"video"
    assert list_sizes(root, "manifests/e/random") == {"0.json": 2, "1.json": 2}
    assert list_sizes(root, "manifests/e") == {}
    assert list_folders(root, "manifests/e") == ["2000", "random"]
    paths = ["manifests/e/random/0.json", "manifests/e/random/7.json"]
    assert read_many(root, paths) == {"manifests/e/random/0.json": b"{}"}


def test_asking_for_what_isnt_there_writes_nothing(root: DataRoot, tmp_path: Path) -> None:
    assert list_sizes(root, "manifests/e/random") == {}
    assert list_folders(root, "manifests") == []
    assert read_many(root, ["a"]) == {}
    assert read_many(root, []) == {}
    remove_files(root, ["a", "b/c"])
    with pytest.raises(FileNotFoundError):
        read_bytes(root, "a")
    assert list(tmp_path.iterdir()) == []


def test_publishing_again_replaces(root: DataRoot, tmp_path: Path) -> None:
    for content in (b"old", b"newer"):
        (tmp_path / "local").write_bytes(content)
        publish_files(root, {"a/b": tmp_path / "local"})
        publish_bytes(root, "a/c", content)
    assert read_bytes(root, "a/b") == read_bytes(root, "a/c") == b"newer"
    remove_files(root, ["a/b"])
    assert list_sizes(root, "a") == {"c": 5}


def test_a_root_travels_to_other_processes_and_keeps_its_options_to_itself(root: DataRoot) -> None:
    _ = root.fs
    assert pickle.loads(pickle.dumps(root)) == root
    assert "secret" not in repr(DataRoot("s3://b", {"secret": "k"}))


def test_publishing_local_files_half_done_before_goes_on(tmp_path: Path) -> None:
    root = open_data_root(str(tmp_path / "data"))
    for name in ("x", "y"):
        (tmp_path / name).write_text(name)
    publish_files(root, {"a/x": tmp_path / "x"})
    publish_files(root, {"a/x": tmp_path / "x", "a/y": tmp_path / "y"})
    assert list_sizes(root, "a") == {"x": 1, "y": 1}


def test_an_interrupted_write_is_invisible(tmp_path: Path) -> None:
    root = open_data_root(str(tmp_path / "data"))
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "b").mkdir()  # a folder where the file shall go: the last step fails
    with pytest.raises(StorageNotUsableError):
        publish_bytes(root, "a/b", b"content")
    assert [path.name for path in (tmp_path / "data" / "a").iterdir()] == ["b"]


def test_a_listing_is_whole_while_others_write(tmp_path: Path) -> None:
    root = open_data_root(str(tmp_path))
    publish_bytes(root, "m/0.json", b"{}")
    stop = threading.Event()

    def write(writer: int) -> None:
        while not stop.is_set():
            for name in range(20):
                (tmp_path / "m" / f".{name}.{writer}.part").touch()
            for name in range(20):
                (tmp_path / "m" / f".{name}.{writer}.part").unlink()

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(2)]
    for writer in writers:
        writer.start()
    try:
        assert all("0.json" in list_sizes(root, "m") for _ in range(1000))
    finally:
        stop.set()
        for writer in writers:
            writer.join()


@pytest.mark.parametrize(
    "url", ["", "  ", "nosuchprotocol://x", "s3x://bucket", "sftp://host/data", "smb://host/data", "zip://"]
)
def test_a_url_that_no_file_system_understands_is_refused(url: str) -> None:
    with pytest.raises(StorageNotUsableError, match="data root"):
        open_data_root(url)


def test_a_url_with_a_password_is_refused_and_not_shown() -> None:
    for url in ("sftp://user:s3cret@host/data", "simplecache::sftp://user:s3cret@host/data"):
        with pytest.raises(StorageNotUsableError, match="holds a password") as refusal:
            open_data_root(url)
        assert "s3cret" not in str(refusal.value)


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(open_data_root(str(tmp_path / "a" / "b")))
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cant_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    too_long = tmp_path / ("x" * 300)
    for place in (tmp_path / "file", tmp_path / "file" / "below", too_long, too_long / "below"):
        with pytest.raises(StorageNotUsableError, match="--data-root"):
            check_writable(open_data_root(str(place)))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0)
    try:
        for place in (closed, closed / "below"):
            with pytest.raises(StorageNotUsableError, match="Permission denied"):
                check_writable(open_data_root(str(place)))
    finally:
        closed.chmod(0o700)


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT"])
def test_a_full_disk_is_the_users_to_mend(code: str) -> None:
    import errno

    error = translated(DataRoot("data"), OSError(getattr(errno, code), "full"))
    assert isinstance(error, StorageNotUsableError)
    assert "Free some space" in str(error)


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), TimeoutError("slow"), OSError("throttled")])
def test_a_network_hiccup_is_worth_another_try(error: OSError) -> None:
    assert isinstance(translated(DataRoot("s3://b"), error), StorageUnavailableError)


def test_only_files_are_read(tmp_path: Path) -> None:
    """A pipe or a link to a device in a file's place would be read for ever."""
    root = open_data_root(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "circle").symlink_to("circle")
    publish_bytes(root, "file", b"x")
    names = ["pipe", "folder", "device", "file", "gone"]
    assert read_many(root, names) == {"file": b"x"}
    assert list_sizes(root, ".") == {"file": 1}
    assert sizes_of(root, [*names, "circle"]) == {"file": 1}
    assert list(list_names(root, ".")) == ["file"]
    with (tmp_path / "terabyte").open("wb") as sparse:
        sparse.truncate(2**40)
    with bounded():
        assert read_many(root, ["terabyte"]) == {"terabyte": b""}
    found = read_each(root, [*names, "circle"])
    assert found["file"] == b"x"
    assert str(found["circle"]).startswith("can't be read: Too many levels")


def test_an_empty_folder_in_a_files_place_gives_way_and_a_full_one_is_refused(tmp_path: Path) -> None:
    root = open_data_root(str(tmp_path / "data"))
    (tmp_path / "new").write_bytes(b"video")
    (tmp_path / "data/a/empty").mkdir(parents=True)
    (tmp_path / "data/a/full/kept").mkdir(parents=True)
    with pytest.raises(StorageNotUsableError, match=r"not empty.*a/full"):
        publish_files(root, {"a/full": tmp_path / "new"})
    with pytest.raises(StorageNotUsableError, match=r"not empty.*a/full"):
        remove_files(root, ["a/full"])
    publish_files(root, {"a/empty": tmp_path / "new"})
    assert read_bytes(root, "a/empty") == b"video"


def test_nothing_is_made_where_a_data_root_was_unmounted(tmp_path: Path) -> None:
    root = open_data_root(str(tmp_path / "mount"))
    with pytest.raises(StorageNotUsableError, match="is gone: was the data root unmounted"):
        publish_files(root, {"renders/e/random/0.mp4": tmp_path / "mount/.runs/1/renders.mp4"})
    assert list(tmp_path.iterdir()) == []


def test_no_more_is_read_of_a_file_than_it_may_have_anywhere(root: DataRoot) -> None:
    contents = {"a/empty": b"", "a/most": b"x" * 100, "a/more": b"x" * 101}
    publish_many_bytes(root, contents)
    assert read_many(root, contents, most=100) == {**contents, "a/more": b""}
    assert read_many(root, contents) == contents


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file that fails when it is read")
def test_a_disk_that_fails_is_named_and_not_asked_again(tmp_path: Path) -> None:
    """Its first page can't be read: an input/output error, as a failing disk gives it."""
    root = open_data_root(str(tmp_path))
    publish_bytes(root, "manifests/E/random/0.json", b"{}")
    (tmp_path / "manifests/E/random/1.json").symlink_to("/proc/self/mem")
    paths = [f"manifests/E/random/{number}.json" for number in (0, 1)]
    with pytest.raises(StorageNotUsableError, match=r"Input/output error: .*manifests/E/random/1\.json"):
        read_many(root, paths)
    assert read_each(root, paths) == {paths[0]: b"{}", paths[1]: "can't be read: Input/output error"}


@pytest.mark.parametrize("where", ["episodes", "episodes/E", "episodes/E/random"])
def test_nothing_is_written_or_removed_behind_a_link(where: str, tmp_path: Path) -> None:
    root, own = open_data_root(str(tmp_path / "data")), "episodes/E/random/0.npz"
    theirs = tmp_path / "theirs" / own
    link = tmp_path / "data" / where
    for folder in (theirs.parent, link.parent):
        folder.mkdir(parents=True, exist_ok=True)
    theirs.write_text("theirs")
    link.symlink_to(tmp_path / "theirs" / where)
    staged = tmp_path / "staged"
    staged.write_text("new")
    for change in (
        lambda: publish_files(root, {own: staged}),
        lambda: publish_bytes(root, own, b"new"),
        lambda: remove_files(root, [own]),
    ):
        with pytest.raises(
            StorageNotUsableError, match=f"{where} is a link to .*theirs/{where}, and nothing is written"
        ):
            change()
    assert [file.read_text() for file in (tmp_path / "theirs").rglob("*") if file.is_file()] == ["theirs"]


def test_a_data_root_may_itself_be_a_link_and_have_linked_files(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "real")
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "real" / "file").symlink_to(tmp_path / "theirs")
    root = open_data_root(str(tmp_path / "data"))
    publish_bytes(root, "file", b"new")
    publish_bytes(root, "folder/other", b"new")
    remove_files(root, ["file", "folder/other"])
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert [file.name for file in (tmp_path / "real").iterdir()] == ["folder"]
