"""What runs on one registry know of each other: who makes which episodes, who is dead. On SQLite and on PostgreSQL."""

import contextlib
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.registry import (
    CheckpointRecord,
    EnvironmentRecord,
    EpisodeRecord,
    ExperimentRecord,
    Registry,
    open_registry,
)
from rlhfblender_core.runs import claims as runs_claims
from rlhfblender_core.runs.claims import (
    DELETED,
    EXPIRY_S,
    RunClaims,
    dead_claims,
    held_by_others,
    live_runs,
    open_claims,
)
from rlhfblender_core.runs.folders import open_scratch

KEY = CheckpointKey("E", "random")
RACE = Path(__file__).with_name("claim_race.py")
SAME = {"random": "one request"}


@pytest.fixture
def url(new_url: str) -> str:
    """Of a registry with its tables."""
    open_registry(new_url).close()
    return new_url


@contextlib.contextmanager
def reading(url: str) -> Iterator[Registry]:
    with open_registry(url, create=False) as registry:
        yield registry


def execute(url: str, statement: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)


def silence(url: str, run_id: str, seconds: float = EXPIRY_S + 1) -> None:
    """As if the database had heard nothing of the run for so long."""
    execute(url, f"UPDATE runs SET heartbeat = heartbeat - {seconds} WHERE id = '{run_id}'")


def test_what_one_run_has_claimed_is_held_from_another_until_it_is_released(url: str) -> None:
    with open_claims(url, None, "E", SAME) as one, open_claims(url, None, "E", SAME) as two:
        got = one.claim(KEY, (0, 1))
        assert (got.free, got.taken_over, got.held) == ((0, 1), frozenset(), frozenset())
        got = two.claim(KEY, (2, 1, 0))
        assert (got.free, got.taken_over, got.held) == ((2,), frozenset(), {0, 1})
        assert one.held_by_others("E") == {"random": {2}}
        assert two.held_by_others("E") == {"random": {0, 1}}
        with reading(url) as registry:
            assert held_by_others(registry, "E") == {"random": {0, 1, 2}}
        two.release(KEY, (0, 1))  # not its own
        one.release(KEY, (0,))
        assert two.claim(KEY, (0, 1)).free == (0,)


def test_claiming_what_is_ours_succeeds_again_and_is_known_as_claimed_before(url: str) -> None:
    with open_claims(url, None, "E", SAME) as run:
        assert run.claim(KEY, (0, 1)).taken_over == frozenset()
        again = run.claim(KEY, (0, 1, 2))
        assert (again.free, again.taken_over) == ((0, 1, 2), {0, 1})
        run.release(KEY, (0, 1, 2))
        run.release(KEY, (0, 1, 2))
        assert run.claim(KEY, range(3000)).free == tuple(range(3000))
        run.release(KEY, range(3000))
        assert run.claim(KEY, ()).free == ()


def test_other_experiments_and_checkpoints_are_no_hindrance(url: str) -> None:
    with open_claims(url, None, "E", SAME) as one, open_claims(url, None, "F", {"random": "another"}) as two:
        one.claim(KEY, (0,))
        assert one.claim(CheckpointKey("E", "final"), (0,)).free == (0,)
        assert two.claim(CheckpointKey("F", "random"), (0,)).free == (0,)


def test_a_task_elsewhere_claims_for_its_run_by_the_url_and_the_id_alone(url: str) -> None:
    with open_claims(url, None, "E", SAME) as run, open_claims(url, None, "E", SAME) as other:
        sent = pickle.loads(pickle.dumps(run))
        assert sent == RunClaims(url, run.run_id)
        assert sent.claim(KEY, (0,)).free == (0,)
        assert run.claim(KEY, (0,)).free == (0,)
        assert other.claim(KEY, (0,)).held == {0}


def test_eight_processes_that_claim_the_same_200_episodes_get_each_exactly_once(url: str) -> None:
    race = [sys.executable, str(RACE), url, "8", "200"]
    answers = subprocess.run(race, capture_output=True, text=True, timeout=120, check=False)
    assert answers.stderr == ""
    got = [int(number) for line in answers.stdout.splitlines() for number in line.split()]
    assert sorted(got) == list(range(200))


def test_a_run_that_the_database_has_not_heard_of_is_dead_and_its_claims_are_taken_over(url: str) -> None:
    with open_claims(url, None, "E", SAME) as one, open_claims(url, None, "E", SAME) as two, reading(url) as registry:
        one.claim(KEY, (0, 1))
        silence(url, one.run_id, EXPIRY_S - 5)
        assert two.claim(KEY, (0,)).held == {0}
        silence(url, one.run_id, 6)
        assert [run.id for run in live_runs(registry, "E")] == [two.run_id]
        assert dead_claims(registry, "E") == {"random": {0, 1}}
        got = two.claim(KEY, (0, 2))
        assert (got.free, got.taken_over, got.held) == ((0, 2), {0}, frozenset())
        assert dead_claims(registry, "E") == {"random": {1}}


def test_a_run_that_was_silent_and_comes_back_goes_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_claims, "HEARTBEAT_S", 0.2)
    with open_claims(url, None, "E", SAME) as one, reading(url) as registry:
        one.claim(KEY, (0, 1))
        silence(url, one.run_id, 1e6)
        with open_claims(url, None, "E", SAME) as two:  # removes the row of the dead
            taken = two.claim(KEY, (0,))
            deadline = time.monotonic() + 10
            while one.run_id not in [run.id for run in live_runs(registry, "E")]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            if taken.free:  # else its heart beat before
                assert one.claim(KEY, (0, 1, 2)).held == {0}
            one.release(KEY, (0, 1))
    with reading(url) as registry:
        assert live_runs(registry, "E") == []


def test_the_heart_beats_while_the_run_is_under_way_and_stops_with_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_claims, "HEARTBEAT_S", 0.05)
    with open_claims(url, None, "E", SAME) as run, reading(url) as registry:
        silence(url, run.run_id, 60)
        deadline = time.monotonic() + 10
        while registry.list_runs("E")[0].silent_s > 5:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert not [thread for thread in threading.enumerate() if thread.name == "run-heartbeat"]
    with reading(url) as registry:
        assert registry.list_runs("E") == []


def test_a_heart_that_cannot_reach_the_database_beats_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_claims, "HEARTBEAT_S", 0.05)
    with open_claims(url, None, "E", SAME), reading(url) as registry:
        execute(url, "ALTER TABLE runs RENAME TO hidden")
        time.sleep(0.3)
        execute(url, "ALTER TABLE hidden RENAME TO runs")
        execute(url, "UPDATE runs SET heartbeat = 0")
        deadline = time.monotonic() + 10
        while registry.list_runs("E")[0].silent_s > 5:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_run_that_works_on_two_experiments_is_alive_on_each(url: str) -> None:
    with open_scratch() as folder, open_claims(url, folder, "E", SAME) as run, reading(url) as registry:
        with open_claims(url, folder, "F", {"random": "another"}):
            assert [[one.id for one in live_runs(registry, name)] for name in "EF"] == [[run.run_id]] * 2
        assert [len(live_runs(registry, name)) for name in "EF"] == [1, 0]


@contextlib.contextmanager
def another_process(url: str) -> Iterator["subprocess.Popen[str]"]:
    """A run with a folder, which has claimed three episodes."""
    script = (
        "import sys, time; from rlhfblender_core.runs.folders import open_scratch\n"
        "from rlhfblender_core.runs.claims import open_claims\n"
        "from rlhfblender_core.dataset.layout import CheckpointKey\n"
        "with open_scratch() as folder, open_claims(sys.argv[1], folder, 'E', {'random': 'one request'}) as claims:\n"
        "    claims.claim(CheckpointKey('E', 'random'), [0, 1, 2]); print('ready', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.parametrize("is_swept", [False, True])
def test_a_run_that_was_killed_on_this_machine_is_dead_at_once(url: str, *, is_swept: bool) -> None:
    with another_process(url) as process, reading(url) as registry:
        with open_claims(url, None, "E", SAME) as run:
            assert run.claim(KEY, (0, 1, 2)).held == {0, 1, 2}
        process.kill()
        process.wait()
        if is_swept:
            with open_scratch():  # removes folders of the dead
                pass
        assert live_runs(registry, "E") == []
        assert dead_claims(registry, "E") == {"random": {0, 1, 2}}
        with open_claims(url, None, "E", {"random": "another request"}) as run:
            assert run.claim(KEY, (0, 1, 2)).taken_over == {0, 1, 2}


def test_of_a_run_elsewhere_only_the_heartbeat_tells(url: str, tmp_path: Path) -> None:
    with open_claims(url, None, "E", SAME) as run, reading(url) as registry:
        # Another machine's: that its folder isn't here means nothing.
        execute(url, f"UPDATE runs SET machine = 'elsewhere', staging = '{tmp_path}/gone'")
        assert [one.id for one in live_runs(registry, "E")] == [run.run_id]


def test_a_run_with_other_settings_is_refused_while_one_is_under_way(url: str) -> None:
    with open_claims(url, None, "E", SAME) as one:
        for experiment, digests in (("E", SAME), ("E", {"final": "another"}), ("F", {"random": "another"}), ("E", {})):
            with open_claims(url, None, experiment, digests):
                pass
        for digest in ("another request", DELETED):
            wanted = {"final": "x", "random": digest}
            refused = pytest.raises(InvalidParameterError, match="is at work on experiment 'E' at random, with other")
            with refused, open_claims(url, None, "E", wanted):
                pass
        silence(url, one.run_id)
        with open_claims(url, None, "E", {"random": "another request"}):
            pass
    with reading(url) as registry:
        assert registry.list_runs("E") == []


def test_what_a_run_had_not_released_when_it_ended_is_known_as_ours_until_it_is_cleaned_up(url: str) -> None:
    with open_claims(url, None, "E", SAME) as run:
        run.claim(KEY, (0, 1, 2))
        run.release(KEY, (0,))
    with reading(url) as registry:
        assert dead_claims(registry, "E") == {"random": {1, 2}}
        with open_claims(url, None, "E", SAME) as live:
            live.claim(KEY, (2, 3))
            assert held_by_others(registry, "E") == {"random": {2, 3}}
            assert dead_claims(registry, "E") == {"random": {1}}
            live.claim(KEY, (1,))
            live.release(KEY, (1,))
            assert dead_claims(registry, "E") == {}


def test_indexing_episodes_releases_the_claims_on_them_in_the_same_transaction(url: str) -> None:
    records = [
        EpisodeRecord(
            experiment="E",
            checkpoint="random",
            number=number,
            seed=1,
            episode_return=1.0,
            episode_length=1,
            terminated=True,
            truncated=False,
            request_digest="digest",
        )
        for number in (0, 1)
    ]
    with open_claims(url, None, "E", SAME) as run, reading(url) as registry:
        run.claim(KEY, (0, 1, 2))
        with pytest.raises(InvalidParameterError):  # not registered: nothing is indexed, nothing is released
            registry.record_episodes(records, claimed_by=run.run_id)
        assert held_by_others(registry, "E") == {"random": {0, 1, 2}}
        registry.ensure_environment(EnvironmentRecord(env_id="Some-v0"))
        registry.ensure_experiment(ExperimentRecord(name="E", env_id="Some-v0", kind="random"))
        registry.ensure_checkpoint(CheckpointRecord(experiment="E", label="random"))
        registry.record_episodes(records, claimed_by=run.run_id)
        assert held_by_others(registry, "E") == {"random": {2}}
        registry.forget_checkpoint("E", "random")
        assert held_by_others(registry, "E") == {}
