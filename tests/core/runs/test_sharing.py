"""What runs tell each other: which episodes they have in hand, and with which settings they make them."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rlhfblender_core.runs.sharing import Making, check_same_settings, in_hand_of_others, taken_in_hand

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.runs.folders import open_run, read_notices
from rlhfblender_core.storage import DataRoot, open_data_root

KEY = CheckpointKey("E", "random")
EPISODES = (0, 1, 2)


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return open_data_root(str(tmp_path))


def test_what_one_run_has_in_hand_is_left_out_by_another_until_it_lets_go(root: DataRoot) -> None:
    with open_run(root, "E") as one, open_run(root, "E") as two:
        with taken_in_hand(root, one, KEY, (0, 1), leave=True) as mine:
            assert mine == (0, 1)
            assert in_hand_of_others(root, KEY, EPISODES, one) == set()
            with taken_in_hand(root, two, KEY, EPISODES, leave=True) as others:
                assert others == (2,)
                assert in_hand_of_others(root, KEY, EPISODES, one) == {2}
            with taken_in_hand(root, two, KEY, EPISODES, leave=False) as all_of_them:
                assert all_of_them == EPISODES
        with taken_in_hand(root, two, KEY, EPISODES, leave=True) as others:
            assert others == EPISODES


def test_runs_on_other_experiments_and_checkpoints_are_no_hindrance(root: DataRoot) -> None:
    with open_run(root, "E") as one, open_run(root, "F") as two:
        another, elsewhere = CheckpointKey("E", "final"), CheckpointKey("F", "random")
        with taken_in_hand(root, one, another, EPISODES, leave=True):
            assert in_hand_of_others(root, KEY, EPISODES) == set()
        with taken_in_hand(root, two, elsewhere, EPISODES, leave=True):
            assert in_hand_of_others(root, KEY, EPISODES) == set()


def test_two_that_take_the_same_at_the_same_moment_both_leave_it(root: DataRoot) -> None:
    with open_run(root, "E") as one, open_run(root, "E") as two:
        one.notice.take("random", EPISODES)
        two.notice.take("random", EPISODES)
        assert in_hand_of_others(root, KEY, EPISODES, one) == in_hand_of_others(root, KEY, EPISODES, two) == {0, 1, 2}


@contextlib.contextmanager
def another_process(root: DataRoot) -> Iterator["subprocess.Popen[str]"]:
    """A run that has all episodes in hand."""
    script = (
        "import sys, time; from rlhfblender_core.runs.folders import open_run\n"
        "from rlhfblender_core.storage import open_data_root\n"
        "with open_run(open_data_root(sys.argv[1]), 'E') as run:\n"
        "    run.notice.make({'random': 'one request'}); run.notice.take('random', [0, 1, 2])\n"
        "    print('ready', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, root.url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_what_a_run_that_was_killed_had_in_hand_is_free(root: DataRoot) -> None:
    with another_process(root) as process:
        assert in_hand_of_others(root, KEY, EPISODES) == {0, 1, 2}
        process.kill()
        process.wait()
        assert len(read_notices(root, "E")) == 1
        assert in_hand_of_others(root, KEY, EPISODES) == set()
        check_same_settings(root, Making("E", {"random": "another request"}))


def test_a_run_with_other_settings_is_refused_while_one_is_under_way(root: DataRoot) -> None:
    with another_process(root), open_run(root, "E") as run:
        for making in (
            Making("E", {"random": "one request"}),
            Making("E", {"final": "another request"}),
            Making("F", {"random": "another request"}),
        ):
            check_same_settings(root, making, run)
        with pytest.raises(InvalidParameterError, match="is at work on experiment 'E' at random"):
            check_same_settings(root, Making("E", {"random": "another request"}), run)


@pytest.mark.parametrize("damage", [lambda _: b"", lambda _: b"\xff", lambda whole: whole[:-3], lambda _: b"[1]"])
def test_a_notice_that_makes_no_sense_says_nothing(root: DataRoot, damage: Callable[[bytes], bytes]) -> None:
    with open_run(root, "E") as run:
        run.notice.take("random", EPISODES)
        notice = run.folder / "notice"
        notice.write_bytes(damage(notice.read_bytes()))
        assert in_hand_of_others(root, KEY, EPISODES) == set()
