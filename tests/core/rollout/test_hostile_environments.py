"""What environments do to their process, and what each gets: its own episode fails or is made, the others are made."""

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.environments import EnvironmentSpec
from rlhfblender_core.rollout.agents import RandomAgent
from rlhfblender_core.rollout.check_in_workers import check_in_workers
from rlhfblender_core.rollout.lost_workers import roll_out_in_workers
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.rollout.seeding import episode_seed
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import Shard, roll_out_shard
from rlhfblender_core.workers.pool import Workers
from tests.support.soak import sampled

MADE = None
#: What becomes of the episode in which it is done: made, or a part of the line about its failure.
EXPECTED = {
    "nothing": MADE,
    # Ends of the process: refused, or known by the process that ended.
    "os._exit(0)": "step 2: SystemExit: the environment called os._exit",
    "os._exit(7)": "the environment called os._exit",
    "os.abort": "the environment called os.abort",
    "os.execv": "the environment called os.execv",
    "os.execlp": "the environment called os.execv",
    "sys.exit()": "step 2: SystemExit",
    "sys.exit(0)": "step 2: SystemExit: 0",
    "sys.exit text": "step 2: SystemExit: bye",
    "libc _exit": "Hostile-v0 ended its process (exit code 0)",
    "libc exit": "Hostile-v0 ended its process (exit code 3)",
    "segmentation fault": "Hostile-v0 ended its process (SIGSEGV)",
    "SIGKILL": "Hostile-v0 ended its process (SIGKILL)",
    "SIGTERM": "Hostile-v0 ended its process (SIGTERM)",
    "SIGINT": MADE,
    # Its group is a worker's own; its parent is the template that workers are forked from, and is started again.
    "killpg SIGKILL": "Hostile-v0 ended its process (SIGKILL)",
    "killpg SIGTERM": "Hostile-v0 ended its process (SIGTERM)",
    "killpg SIGINT": MADE,
    "kill of the group": "Hostile-v0 ended its process (SIGKILL)",
    "kill of the parent": "",
    "SIGHUP": MADE,
    "SIGALRM": "Hostile-v0 ended its process (SIGALRM)",
    "SIGPIPE": "Hostile-v0 ended its process (SIGPIPE)",
    # Whatever is raised is that episode's.
    "Exception": "step 2: Exception: x",
    "no message": "step 2: RuntimeError",
    "KeyboardInterrupt": "step 2: KeyboardInterrupt",
    "GeneratorExit": "step 2: GeneratorExit",
    "StopIteration": "step 2: StopIteration",
    "CancelledError": "step 2: CancelledError",
    "BaseException": "step 2: OwnBase: base",
    "MemoryError": "step 2: MemoryError",
    "RecursionError": "step 2: RecursionError",
    "AssertionError": "step 2: AssertionError",
    "BrokenPipeError": "step 2: BrokenPipeError",
    "error without text": "its message can't be read",
    "error with escapes": r"\x1b[2J",
    "endless error": "xxx…",
    "error of an odd class": r"Lies\x1b[2J\n: lost",
    "error of bytes": "step 2: ValueError",
    "huge allocation": "step 2: ",
    "memory limit": "step 2: ",
    "no more files": "",
    "small stacks": "",
    # What it leaves behind in the process.
    "fork": MADE,
    "fork that stays": MADE,
    "thread": MADE,
    "daemon thread": MADE,
    "thread that raises": MADE,
    "subprocess": MADE,
    "close standard streams": MADE,
    "print escapes": MADE,
    "print escapes to stderr": MADE,
    "write to descriptor 1": MADE,
    "stdout is None": MADE,
    "stdout is closed": MADE,
    "stderr is no stream": MADE,
    "chdir": MADE,
    "removed folder": MADE,
    "ignores SIGTERM": MADE,
    "SIGTERM raises": MADE,
    "changes umask": MADE,
    "clears variables": MADE,
    "warns": MADE,
    "warnings as errors": MADE,
    "no garbage collection": MADE,
    "priority": MADE,
    "new session": MADE,
    "recursion limit": MADE,
    "seeds global generators": MADE,
    "numpy raises": MADE,
    "excepthook": MADE,
}


def shard(deed: str, episodes: tuple[int, ...] = (0, 1), at: str = "step", *, every: bool = False) -> Shard:
    kwargs = {"deed": deed, "at": at, "of_seed": None if every else episode_seed(0, 0)}
    spec = EnvironmentSpec("Hostile-v0", "tests.support.environments_for_tests.hostile:Hostile", kwargs=kwargs)
    settings = RolloutSettings(spec, RandomAgent(), RolloutOptions(fps=20.0))
    return Shard(CheckpointKey(f"exp-{deed}", "random"), settings, episodes)


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with Workers(1, tmp_path_factory.mktemp("progress")) as made:
        yield made


@pytest.mark.parametrize("deed", EXPECTED)
def test_hostile_episode_gets_its_own_end_and_the_other_is_made(deed: str, workers: Workers, staging: Path) -> None:
    made = roll_out_in_workers(workers, shard(deed), staging)
    numbers = [episode.manifest.episode for episode in made.episodes]
    expected = EXPECTED[deed]
    if expected is MADE:
        assert (numbers, made.failures) == ([0, 1], {})
        assert {episode.manifest.frames for episode in made.episodes} == {5}
    elif expected:
        assert (numbers, list(made.failures)) == ([1], [0])
        assert expected in made.failures[0]
        assert len(made.failures[0]) < 2000
        assert made.failures[0].isprintable()
        assert [path.name for path in (staging / "random").iterdir()] == ["1"]
    else:  # made or not, as the system has it; the other one is made
        assert 1 in numbers
        assert sorted([*numbers, *made.failures]) == [0, 1]


@pytest.mark.parametrize("at", ["reset", "render"])
def test_environment_that_ends_its_process_always_fails_each_episode_by_name(
    at: str, workers: Workers, staging: Path
) -> None:
    made = roll_out_in_workers(workers, shard("libc _exit", (0, 1, 2), at, every=True), staging)
    assert list(made.failures) == [0, 1, 2]
    assert all("Hostile-v0 ended its process (exit code 0)" in line for line in made.failures.values())
    assert list((staging / "random").iterdir()) == []


@pytest.mark.parametrize(
    ("at", "used"),
    sampled(itertools.product(["reset", "step", "render", "close"], [0, 2]), ("step", 0), ("close", 2)),
)
def test_environment_that_closes_the_workers_pipes_fails_and_the_run_goes_on(
    at: str, used: int, staging: Path, tmp_path: Path
) -> None:
    with Workers(1, tmp_path) as workers:
        for _ in range(used):
            assert not roll_out_in_workers(workers, shard("nothing"), staging).failures
        made = roll_out_in_workers(workers, shard("close descriptors", at=at), staging)
        assert ([episode.manifest.episode for episode in made.episodes], list(made.failures)) == ([1], [0])
        assert "Hostile-v0 ended its process (exit code 1)" in made.failures[0]
        # While it is tried out, too: which of its episodes do that is told by each of them.
        check_in_workers(workers, shard("close descriptors", at=at, every=True).settings)
        assert not roll_out_in_workers(workers, shard("nothing"), staging).failures


@pytest.mark.parametrize("deed", ["os._exit(0)", "GeneratorExit", "os.abort", "KeyboardInterrupt", "sys.exit()"])
def test_in_this_process_an_end_of_it_is_the_episodes_failure(deed: str, staging: Path, tmp_path: Path) -> None:
    with Workers(0, tmp_path) as here:
        made = roll_out_in_workers(here, shard(deed), staging)
    assert ([episode.manifest.episode for episode in made.episodes], list(made.failures)) == ([1], [0])


def test_workers_whose_environment_ignores_signals_end_all_the_same(staging: Path, tmp_path: Path) -> None:
    workers = Workers(1, tmp_path)
    roll_out_in_workers(workers, shard("ignores SIGTERM", every=True), staging)
    started = time.monotonic()
    workers.close()
    assert time.monotonic() - started < 10


def test_what_is_made_after_an_environment_changed_the_umask_can_be_read(workers: Workers, staging: Path) -> None:
    made = roll_out_in_workers(workers, shard("changes umask"), staging)
    assert [episode.manifest.episode for episode in made.episodes] == [0, 1]
    files = [file for file in (staging / "random" / "1").rglob("*") if file.is_file()]
    assert files
    assert all(file.stat().st_mode & 0o400 for file in files)


def test_a_real_interrupt_in_the_main_thread_stops_the_work(staging: Path) -> None:
    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(KeyboardInterrupt):
        roll_out_shard(shard("KeyboardInterrupt"), staging)
