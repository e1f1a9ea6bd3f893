"""The core on a real S3 server: the same bytes as on a local disk, and nothing half-published whatever happens."""

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhfblender_core.checkpoints.find import find_checkpoints
from rlhfblender_core.dataset.published import read_published
from rlhfblender_core.dataset.selection import parse_selection
from rlhfblender_core.delete import delete_all
from rlhfblender_core.errors import StorageNotUsableError, StorageUnavailableError, TransientError
from rlhfblender_core.import_data.run import import_all, import_request
from rlhfblender_core.step_runner import LocalRunner
from rlhfblender_core.storage import (
    DataRoot,
    list_sizes,
    open_data_root,
    publish_bytes,
    publish_files,
    publish_many_bytes,
    read_many,
    remove_files,
)
from rlhfblender_core.verify import verify_all
from tests.support import generating
from tests.support.fault_proxy import FaultProxy
from tests.support.generating import KEY, generate, locations_of, request
from tests.support.verifying import problems

Contents = Callable[[DataRoot], dict[str, str]]

pytestmark = pytest.mark.xdist_group("object-storage")  # one worker, so that each server starts once


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'registry.db'}"


def test_publishing_again_after_a_failure_half_way_skips_what_is_there(s3_root: DataRoot, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    publish_files(s3_root, {"a/x": tmp_path / "x"})
    (tmp_path / "y").write_bytes(b"y")
    publish_files(s3_root, {"a/x": tmp_path / "x", "a/y": tmp_path / "y"})
    assert list_sizes(s3_root, "a") == {"x": 1, "y": 1}


def test_the_bucket_is_never_listed_as_a_whole(
    s3_root: DataRoot, database: str, s3_endpoint: str, fault_proxy: FaultProxy
) -> None:
    root = open_data_root(s3_root.url, {"endpoint_url": fault_proxy.url})
    publish_bytes(root, "renders/OTHER/random/0.mp4", b"somebody else's")
    generate(root, database, request(1))
    lists = [path for _, path in fault_proxy.requests if "list-type" in path]
    assert lists
    assert all("delimiter=" in path and "prefix=team" in path and "OTHER" not in path for path in lists)


def test_each_file_is_one_request_and_what_is_finished_costs_its_listing(
    s3_root: DataRoot, database: str, fault_proxy: FaultProxy
) -> None:
    root = open_data_root(s3_root.url, {"endpoint_url": fault_proxy.url})
    episodes, listing = 12, 6
    generate(root, database, request(episodes))
    made = Counter(method for method, _ in fault_proxy.requests)
    assert made["PUT"] == episodes * 6
    assert made.total() <= episodes * 7
    fault_proxy.requests.clear()
    assert generate(root, database, request(episodes)) == 0
    assert len(fault_proxy.requests) <= listing + 1  # and one manifest
    fault_proxy.requests.clear()
    assert generate(root, database, request(episodes + 10)) == 10
    assert len(fault_proxy.requests) <= 10 * 6 + listing + 1


def test_what_repeats_costs_listings_and_what_is_new(s3_root: DataRoot, database: str, fault_proxy: FaultProxy) -> None:
    """Nothing grows with the number of episodes that are there but a check that reads each manifest."""
    root = open_data_root(s3_root.url, {"endpoint_url": fault_proxy.url})
    locations = locations_of(root, database)
    here, quietly, episodes = "E", {"max_steps_per_episode": 3, "no_render": True}, 4
    for name in (here, "F"):
        generate(root, database, request(episodes, exp=name, **quietly))

    def requests_of(work: Callable[[], object]) -> Counter[str]:
        fault_proxy.requests.clear()
        work()
        return Counter("LIST" if "list-type" in path else method for method, path in fault_proxy.requests)

    # Of a folder that isn't there, two: this request has no videos and no thumbnails.
    listing = 4 + 2 * 2
    for name in (here, "F"):
        again = requests_of(lambda name=name: generate(root, database, request(episodes, exp=name, **quietly)))
        assert again == {"LIST": listing, "GET": 1}
    checked = requests_of(lambda: verify_all(None, LocalRunner(), locations, quick=True))
    assert checked["GET"] == 2 * episodes
    assert set(checked) == {"LIST", "GET"}
    gone = requests_of(lambda: delete_all(here, [], LocalRunner(), locations, parse_selection("0-1")))
    assert (gone["HEAD"], gone["DELETE"], gone["PUT"], gone["GET"]) == (2 * 6, 2 * 6, 0, 0)


def test_files_are_read_and_written_side_by_side(s3_root: DataRoot, fault_proxy: FaultProxy) -> None:
    root = open_data_root(s3_root.url, {"endpoint_url": fault_proxy.url})
    paths = [f"a/{n}" for n in range(32)]
    fault_proxy.latency_s = 0.2
    publish_many_bytes(root, dict.fromkeys(paths, b"x"))
    assert _most_at_once(fault_proxy) > 3
    assert set(read_many(root, paths)) == set(paths)
    assert _most_at_once(fault_proxy) > 3
    remove_files(root, paths)


def _most_at_once(proxy: FaultProxy) -> int:
    """The highest number of simultaneous requests since this was asked last."""
    most, proxy.most_at_once = proxy.most_at_once, 0
    return most


def test_an_option_that_the_client_does_not_know_is_named(s3_root: DataRoot) -> None:
    wrong = open_data_root(s3_root.url, {"nonsense": 1})
    with pytest.raises(StorageNotUsableError, match=r"unexpected keyword argument 'nonsense'.*STORAGE_OPTIONS\.$"):
        list_sizes(wrong, "a")
    with pytest.raises(StorageNotUsableError, match="unexpected keyword argument 'nonsense'"):
        find_checkpoints(s3_root.url, "CartPole-v1", {"nonsense": 1})


def _failure_of(action: Callable[[], object]) -> str | None:
    try:
        action()
    except TransientError as error:
        return str(error)
    return None


_SOAK = pytest.mark.soak


@pytest.mark.parametrize(
    "kinds",
    [
        ("503", "reset", "late_reset", "cut"),
        *(pytest.param(kinds, marks=_SOAK) for kinds in [("503",), ("reset", "late_reset"), ("cut",)]),
    ],
)
def test_a_share_of_failing_requests_ends_well_or_with_a_clear_line(
    kinds: tuple[str, ...], s3_root: DataRoot, database: str, fault_proxy: FaultProxy, contents: Contents
) -> None:
    shaky = open_data_root(s3_root.url, {"endpoint_url": fault_proxy.url})
    fault_proxy.kinds, fault_proxy.share = kinds, 0.35
    for _ in range(5):
        failure = _failure_of(lambda: generate(shaky, database, request(2)))
        assert failure is None or re.search(r"^[^\n]* did not answer properly: [^\n]*$", failure)
        published = read_published(s3_root, KEY)  # whatever is visible is whole
        assert all(published.is_complete(n) for n in published.manifests)
        if failure is None:
            break
    fault_proxy.share = 0.0
    generate(shaky, database, request(2))
    assert fault_proxy.faults > 0
    assert problems(s3_root, database) == []
    assert len(contents(s3_root)) == 2 * 6


def test_a_server_that_stalls_is_given_up_with_a_clear_line(
    s3_root: DataRoot, fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    config = {"read_timeout": 1, "retries": {"mode": "standard", "total_max_attempts": 1}}
    root = open_data_root(s3_root.url, {"endpoint_url": fault_proxy.url, "config_kwargs": config})
    fault_proxy.kinds, fault_proxy.share, fault_proxy.stall_s = ("stall",), 1.0, 8.0
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(StorageUnavailableError, match="did not answer properly"):
        publish_files(root, {"a/x": tmp_path / "x"})
    assert (tmp_path / "x").exists()  # another try finds it
    assert list_sizes(s3_root, "a") == {}


def test_a_server_that_only_says_503_is_given_up_within_seconds(s3_root: DataRoot, fault_proxy: FaultProxy) -> None:
    root = open_data_root(s3_root.url, {"endpoint_url": fault_proxy.url})
    fault_proxy.kinds, fault_proxy.share = ("503",), 1.0
    started = time.monotonic()
    with pytest.raises(StorageUnavailableError):
        publish_bytes(root, "a/x", b"x")
    assert time.monotonic() - started < 40
    assert fault_proxy.faults <= 8


def test_no_bucket_no_server_and_no_credentials_are_told_apart(
    s3_root: DataRoot, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"x")
    missing = open_data_root("s3://no-such-bucket/data", {"endpoint_url": s3_endpoint})
    with pytest.raises(StorageNotUsableError, match="There is no bucket for s3://no-such-bucket/data"):
        publish_files(missing, {"a/x": tmp_path / "x"})
    nobody = open_data_root(s3_root.url, {"endpoint_url": "http://127.0.0.1:9"})
    with pytest.raises(StorageUnavailableError, match="did not answer properly"):
        publish_bytes(nobody, "a/x", b"x")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    unknown = open_data_root(s3_root.url, {"endpoint_url": s3_endpoint, "skip_instance_cache": True})
    with pytest.raises(StorageNotUsableError, match=r"refuses access.*Check the credentials"):
        publish_bytes(unknown, "a/x", b"x")


@_SOAK
@pytest.mark.parametrize("count", [2, 4])
def test_overlapping_runs_share_the_work(
    count: int, s3_root: DataRoot, database: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    driver = str(Path(generating.__file__))
    command = [sys.executable, driver, s3_root.url, database, "--episodes", "12", "--length", "5"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(count)]
    outputs = [run.communicate(timeout=240) for run in runs]
    assert [run.returncode for run in runs] == [0] * count, outputs
    made = [int(output.split()[-1]) for output, _ in outputs]
    assert sum(made) == 12
    assert problems(s3_root, database) == []


def test_a_data_set_is_merged_from_a_disk_and_back(
    s3_root: DataRoot, tmp_path: Path, contents: Contents, database: str
) -> None:
    there, here = (open_data_root(str(tmp_path / name), s3_root.options) for name in ("there", "here"))
    generate(there, f"{database}-there", request(3))
    for source, target, name in ((there, s3_root, "remote"), (s3_root, here, "here")):
        locations = generating.locations_of(target, f"{database}-{name}")
        merged = import_all(import_request(source.url, None, None, locations), LocalRunner(), locations)
        assert (merged.made, merged.faults) == (3, ())
        assert problems(target, f"{database}-{name}") == []
    made = {path: digest for path, digest in contents(there).items() if not path.startswith(".")}
    assert {path: digest for path, digest in contents(s3_root).items() if not path.startswith(".")} == made
    assert {path: digest for path, digest in contents(here).items() if not path.startswith(".")} == made
