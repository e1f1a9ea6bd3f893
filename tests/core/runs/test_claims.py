"""Claims on episodes: each is one run's, those of dead runs are free at once here and soon elsewhere."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.registry import claims as claims_in_registry
from rlhfblender_core.registry import open_registry
from rlhfblender_core.runs import claims
from rlhfblender_core.runs.claims import claim, dead_claims, held_by_others, live_runs, release
from rlhfblender_core.storage import DataRoot, open_data_root
from tests.support.claiming import claim_and_die, under_way

KEY = CheckpointKey("E", "random")
_CLAIM_ALL = """
import sys, time
from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.runs.claims import claim, open_claims
from rlhfblender_core.runs.folders import open_run
from rlhfblender_core.storage import open_data_root
root, url = sys.argv[1:]
with open_run(open_data_root(root)) as run, open_claims(url, run, "E", {"random": "a request"}):
    mine = []
    for start in range(0, 200, 10):
        mine += claim(url, run.name, CheckpointKey("E", "random"), range(start, start + 10)).free
    print(*mine, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return open_data_root(str(tmp_path / "data"))


def test_what_one_run_has_claimed_another_gets_once_it_is_released(root: DataRoot, new_url: str) -> None:
    with under_way(root, new_url, "E") as one, under_way(root, new_url, "E") as two:
        assert claim(new_url, one.name, KEY, [0, 1]).free == (0, 1)
        assert claim(new_url, one.name, KEY, [0, 1]).free == (0, 1), "again, after a failure, is no error"
        second = claim(new_url, two.name, KEY, [0, 1, 2])
        assert (second.free, second.held, second.taken_over) == ((2,), (0, 1), ())
        assert held_by_others(new_url, "E", two.name) == {"random": {0, 1}}
        release(new_url, one.name, KEY, [0])
        assert claim(new_url, two.name, KEY, [0, 1]).free == (0,)
    with under_way(root, new_url, "E") as three:
        assert claim(new_url, three.name, KEY, [0, 1, 2]).taken_over == ()


def test_runs_on_other_experiments_and_checkpoints_are_no_concern(root: DataRoot, new_url: str) -> None:
    with under_way(root, new_url, "E") as one, under_way(root, new_url, "F") as two:
        claim(new_url, one.name, KEY, [0])
        assert claim(new_url, two.name, CheckpointKey("F", "random"), [0]).free == (0,)
        assert claim(new_url, two.name, CheckpointKey("E", "100"), [0]).free == (0,)
        assert held_by_others(new_url, "F", two.name) == {}


def test_two_hundred_episodes_claimed_by_four_processes_are_each_one_processs(root: DataRoot, new_url: str) -> None:
    open_registry(new_url).close()
    command = [sys.executable, "-c", _CLAIM_ALL, root.url, new_url]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) for _ in range(4)]
    lines = [run.stdout.readline() for run in runs if run.stdout is not None]
    for run in runs:
        run.communicate("")
    numbers = [int(number) for line in lines for number in line.split()]
    assert sorted(numbers) == list(range(200))


def test_what_a_killed_run_of_this_machine_had_is_free_at_once_and_known_as_ours(root: DataRoot, new_url: str) -> None:
    claim_and_die(root, new_url, KEY, [3, 4])
    with open_registry(new_url) as registry:
        assert dead_claims(registry, "E") == {"random": {3, 4}}
        assert live_runs(registry, "E") == []
    with under_way(root, new_url, "E") as run:
        claimed = claim(new_url, run.name, KEY, [2, 3, 4])
        assert (claimed.free, claimed.taken_over) == ((2, 3, 4), (3, 4))
        release(new_url, run.name, KEY, claimed.free)
    with open_registry(new_url) as registry:
        assert dead_claims(registry, "E") == {}


def test_a_run_of_another_machine_is_dead_once_its_heart_has_stopped_by_the_databases_clock(
    root: DataRoot, new_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "this_machine", lambda: "elsewhere")
    with under_way(root, new_url, "E") as other:
        claim(new_url, other.name, KEY, [0])
        monkeypatch.setattr(claims, "this_machine", lambda: "here")
        monkeypatch.setattr(time, "time", lambda: 0.0)  # this machine's clock decides nothing
        with under_way(root, new_url, "E") as own:
            assert claim(new_url, own.name, KEY, [0]).held == (0,)
            monkeypatch.setattr(claims_in_registry, "EXPIRY_S", -1.0)
            assert claim(new_url, own.name, KEY, [0]).taken_over == (0,)


def test_a_run_whose_row_was_removed_enters_again_with_its_next_heartbeat(
    root: DataRoot, new_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.05)
    with under_way(root, new_url, "E") as run, open_registry(new_url) as registry:
        registry.leave_run(run.name, "E")
        deadline = time.monotonic() + 20
        while not live_runs(registry, "E") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert [entry.id for entry in live_runs(registry, "E")] == [run.name]
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


def test_a_run_with_other_settings_than_a_live_one_is_refused_and_leaves_no_trace(root: DataRoot, new_url: str) -> None:
    with under_way(root, new_url, "E"):
        refusal = pytest.raises(InvalidParameterError, match="Another run is at work on experiment 'E' at random")
        with refusal, under_way(root, new_url, "E", digest="another request"):
            pass
        with open_registry(new_url) as registry:
            assert len(live_runs(registry, "E")) == 1
    with under_way(root, new_url, "E", digest="another request"):
        pass
