"""What a rollout records, row by row: everything is known in advance about the environments used here."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from rlhfblender_core.dataset.episode_writer import BLACK, CONSTANT, staged_path
from rlhfblender_core.dataset.layout import ArtifactKind
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.dataset.video import count_frames, even, read_frames
from rlhfblender_core.environments import make_environment, unflatten_observation
from rlhfblender_core.errors import StorageNotUsableError
from rlhfblender_core.rollout.episode import RawRecorder
from rlhfblender_core.rollout.shards import Shard, close_session, roll_out_shard
from tests.support.environments_for_tests.counting import reward_of

ShardMaker = Callable[..., Shard]
Arrays = dict[str, Any]
EVENTS = "ENVIRONMENTS_FOR_TESTS_EVENTS"


def roll_out(shard: Shard, staging: Path) -> tuple[Manifest, Arrays, Path]:
    """Manifest, arrays and folder of the first episode of a shard."""
    staged = roll_out_shard(shard, staging)
    assert staged.failures == {}
    episode = staged.episodes[0]
    with np.load(staged_path(episode.folder, ArtifactKind.EPISODES), allow_pickle=False) as archive:
        return episode.manifest, dict(archive), episode.folder


def failure(shard: Shard, staging: Path) -> str:
    staged = roll_out_shard(shard, staging)
    assert [episode.manifest.episode for episode in staged.episodes] == []
    (message,) = staged.failures.values()
    assert "\n" not in message
    return message


@pytest.mark.parametrize("actions", ["discrete", "box", "multi_discrete", "multi_binary"])
def test_reward_t_belongs_to_action_t(actions: str, shard: ShardMaker, staging: Path) -> None:
    _, arrays, folder = roll_out(shard(actions=actions, length=7), staging)
    expected = [reward_of(t, action) for t, action in enumerate(arrays["actions"])]
    assert arrays["rewards"].tolist() == pytest.approx(expected)
    assert arrays["rewards"].dtype == np.float64
    cumulative = np.load(staged_path(folder, ArtifactKind.REWARDS), allow_pickle=False)
    assert cumulative.tolist() == np.cumsum(arrays["rewards"]).tolist()
    assert arrays["episode_return"] == cumulative[-1]


@pytest.mark.parametrize("env", ["Counting", "Reusing"])
def test_observation_t_is_what_action_t_was_taken_on_and_the_last_one_is_no_row(
    env: str, shard: ShardMaker, staging: Path
) -> None:
    _, arrays, _ = roll_out(shard(env, length=5), staging)
    assert arrays["obs"].tolist() == [[0], [1], [2], [3], [4]]
    assert arrays["final_obs"].tolist() == [5]
    assert arrays["obs"].dtype == np.float32
    assert [json.loads(info)["count"] for info in arrays["infos"]] == [1, 2, 3, 4, 5]


def test_frame_t_shows_observation_t(shard: ShardMaker, staging: Path) -> None:
    manifest, arrays, folder = roll_out(shard(length=6, height=33, width=47), staging)
    video = staged_path(folder, ArtifactKind.RENDERS)
    assert count_frames(video) == len(arrays["rewards"]) == manifest.frames == 6
    found = [round(float(frame[:33, :47].mean()) / 20) for frame in read_frames(video, even(33), even(47))]
    assert found == [0, 1, 2, 3, 4, 5]
    assert (manifest.frame_height, manifest.frame_width, manifest.fps) == (33, 47, 20)


@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_truncation_is_not_termination(ends: str, shard: ShardMaker, staging: Path) -> None:
    manifest, arrays, _ = roll_out(shard(ends=ends, length=3), staging)
    other = {"terminated": "truncated", "truncated": "terminated"}[ends]
    assert arrays[ends].tolist() == [False, False, True]
    assert arrays[other].tolist() == [False, False, False]
    assert arrays["dones"].tolist() == [False, False, True]
    assert (manifest.terminated, manifest.truncated) == (ends == "terminated", ends == "truncated")


@pytest.mark.parametrize(
    ("max_steps", "length", "ended"),
    [(3, 3, (False, True)), (5, 5, (True, False)), (9, 5, (True, False)), (1, 1, (False, True))],
)
def test_a_cut_off_by_max_steps_is_truncated_unless_the_episode_ended_there(
    max_steps: int, length: int, ended: tuple[bool, bool], shard: ShardMaker, staging: Path
) -> None:
    manifest, arrays, _ = roll_out(shard(length=5, max_steps_per_episode=max_steps), staging)
    assert (manifest.episode_length, len(arrays["rewards"])) == (length, length)
    assert (bool(arrays["terminated"][-1]), bool(arrays["truncated"][-1])) == ended
    assert arrays["final_obs"].tolist() == [length]


def test_an_endless_environment_ends_at_max_steps(shard: ShardMaker, staging: Path) -> None:
    manifest, arrays, folder = roll_out(shard("Endless", max_steps_per_episode=1500), staging)
    assert manifest.truncated
    assert arrays["obs"][:, 0].tolist() == list(range(1500))
    assert count_frames(staged_path(folder, ArtifactKind.RENDERS)) == 1500


def test_observations_in_dictionaries_and_tuples_come_back_whole(shard: ShardMaker, staging: Path) -> None:
    made = shard("Structured", length=9)
    _, arrays, _ = roll_out(made, staging)
    assert {"obs.position", "obs.mission", "obs.inner.flags", "obs.inner.pair.0", "obs.inner.pair.1"} < set(arrays)
    assert "obs" not in arrays
    env = make_environment(made.settings.environment, render=False)
    names = [name for name in arrays if name.startswith("obs.")]
    for t in range(9):
        seen = unflatten_observation(env.observation_space, {name: arrays[name][t] for name in names})
        assert seen["mission"] == f"go {t}"
        assert seen["position"].tolist() == [t, 2 * t]
        assert seen["inner"]["pair"][0] == t
        assert seen["inner"]["pair"][1].tolist() == [t, t % 3]
    assert str(arrays["final_obs.mission"]) == "go 9"


@pytest.mark.parametrize("actions", ["discrete", "box", "multi_discrete", "multi_binary"])
def test_replaying_the_actions_from_the_seed_gives_the_same_rows(
    actions: str, shard: ShardMaker, staging: Path
) -> None:
    made = shard("Drawing", actions=actions, length=20)
    _, arrays, _ = roll_out(made, staging)
    env = make_environment(made.settings.environment, render=False)
    observation, _ = env.reset(seed=int(arrays["seed"]))
    for t, action in enumerate(arrays["actions"]):
        assert env.action_space.contains(action if action.shape else np.int64(action))
        np.testing.assert_array_equal(observation, arrays["obs"][t])
        observation, reward, *_ = env.step(action)
        assert reward == arrays["rewards"][t]
    np.testing.assert_array_equal(observation, arrays["final_obs"])


def test_the_keys_of_an_archive_are_those_that_the_docs_name(shard: ShardMaker, staging: Path) -> None:
    _, arrays, folder = roll_out(shard(length=4), staging)
    expected = {
        "obs": ((4, 1), np.float32), "final_obs": ((1,), np.float32), "actions": ((4,), np.int64),
        "rewards": ((4,), np.float64), "terminated": ((4,), np.bool_), "truncated": ((4,), np.bool_),
        "dones": ((4,), np.bool_), "probs": ((4, 3), np.float32), "log_probs": ((4,), np.float32),
        "entropy": ((4,), np.float32), "episode_return": ((), np.float64), "episode_length": ((), np.int64),
        "seed": ((), np.int64),
    }  # fmt: skip
    assert {name: (array.shape, array.dtype) for name, array in arrays.items() if name != "infos"} == expected
    assert arrays["infos"].dtype.kind == "U"
    np.testing.assert_allclose(arrays["probs"], 1 / 3)
    np.testing.assert_allclose(arrays["entropy"], np.log(3))
    uncertainty = np.load(staged_path(folder, ArtifactKind.UNCERTAINTY), allow_pickle=False)
    assert (uncertainty.dtype, uncertainty.shape) == (np.float32, (4,))
    np.testing.assert_allclose(uncertainty, np.log(3))


def test_without_rendering_there_is_no_picture_and_no_claim_of_one(shard: ShardMaker, staging: Path) -> None:
    manifest, _, folder = roll_out(shard("Blind", render=False), staging)
    assert (manifest.frames, manifest.fps, manifest.frame_width, manifest.warnings) == (0, None, None, ())
    assert set(manifest.artifacts) == {ArtifactKind.EPISODES, ArtifactKind.REWARDS, ArtifactKind.UNCERTAINTY}
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize(("env", "warnings"), [("Black", (BLACK,)), ("Constant", (CONSTANT,)), ("Counting", ())])
def test_a_video_that_shows_nothing_is_remarked_upon(
    env: str, warnings: tuple[str, ...], shard: ShardMaker, staging: Path
) -> None:
    manifest, _, _ = roll_out(shard(env), staging)
    assert manifest.warnings == warnings


def test_infos_of_any_kind_are_kept(shard: ShardMaker, staging: Path) -> None:
    _, arrays, _ = roll_out(shard("Telling"), staging)
    assert json.loads(arrays["infos"][0])["1"] == [0, 1]


def test_every_file_is_in_the_manifest_with_its_size(shard: ShardMaker, staging: Path) -> None:
    manifest, _, folder = roll_out(shard(episodes=(3,)), staging)
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert {staged_path(folder, kind).name: record.size for kind, record in manifest.artifacts.items()} == files
    assert manifest.artifacts[ArtifactKind.RENDERS].path == "renders/exp/random/3.mp4"


@pytest.mark.parametrize("env", ["Counting", "Drawing"])
def test_an_episode_is_the_same_whatever_was_rolled_out_before(env: str, shard: ShardMaker, staging: Path) -> None:
    alone = roll_out_shard(shard(env, episodes=(4,)), staging).episodes[0].manifest
    after = roll_out_shard(shard(env, episodes=(0, 1, 2, 3, 4)), staging).episodes[-1].manifest
    assert alone == after


def test_different_episodes_differ(shard: ShardMaker, staging: Path) -> None:
    staged = roll_out_shard(shard("Drawing", episodes=(0, 1, 2), length=30), staging)
    assert len({episode.manifest.artifacts[ArtifactKind.EPISODES].sha256 for episode in staged.episodes}) == 3


def seed_of(episode: int) -> int:
    from rlhfblender_core.rollout.seeding import episode_seed

    return episode_seed(0, episode)


@pytest.mark.parametrize("env", ["Counting", "FailsToClose"])
@pytest.mark.parametrize("what", ["raise", "exit"])
def test_an_episode_that_fails_leaves_nothing_and_the_others_are_made(
    env: str, what: str, shard: ShardMaker, staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EVENTS, f"{what}@{seed_of(1)}:2")
    staged = roll_out_shard(shard(env, episodes=(0, 1, 2)), staging)
    assert [episode.manifest.episode for episode in staged.episodes] == [0, 2]
    (message,) = staged.failures.values()
    assert message.startswith("episode 1 failed at step 2: ")
    assert {"raise": "RuntimeError: the floor is lava", "exit": "SystemExit: goodbye"}[what] in message
    assert sorted(path.name for path in (staging / "random").iterdir()) == ["0", "2"]


def test_a_picture_that_changes_its_size_fails_the_episode(shard: ShardMaker, staging: Path) -> None:
    message = failure(shard("Growing"), staging)
    assert message.startswith("episode 0 failed at step 3: ")
    assert "(18, 16, 3)" in message


def test_an_observation_that_doesnt_fit_its_space_fails_the_episode(shard: ShardMaker, staging: Path) -> None:
    message = failure(shard("Misfitting"), staging)
    assert message.startswith("episode 0 failed at step 2: ")
    assert "the space says shape (1,), it returned shape (3,)" in message
    assert list(staging.rglob("*.np*")) == []


@pytest.mark.parametrize("reward", ["array", "scalar", "zero_dimensions"])
def test_rewards_may_be_arrays_of_one_number(reward: str, shard: ShardMaker, staging: Path) -> None:
    _, arrays, _ = roll_out(shard("Rewarding", reward=reward), staging)
    assert arrays["rewards"].tolist() == [1.5] * 5


@pytest.mark.parametrize(
    ("reward", "shown"), [("two", "array([1., 2.])"), ("none", "None"), ("text", "'1.5'"), ("complex", "(1.5+0j)")]
)
def test_a_reward_that_is_no_number_fails_the_episode(
    reward: str, shown: str, shard: ShardMaker, staging: Path
) -> None:
    assert f"the reward {shown}, which is no number" in failure(shard("Rewarding", reward=reward), staging)


@pytest.mark.parametrize("end", ["flag", "number", "array"])
def test_flags_may_be_numbers_and_arrays_of_one(end: str, shard: ShardMaker, staging: Path) -> None:
    _, arrays, _ = roll_out(shard("Ending", end=end), staging)
    assert arrays["terminated"].tolist() == [False, False, False, False, True]


@pytest.mark.parametrize("end", ["text", "none", "NaN", "several", "dict"])
def test_a_last_step_that_says_neither_true_nor_false_fails_the_episode(
    end: str, shard: ShardMaker, staging: Path
) -> None:
    message = failure(shard("Ending", end=end), staging)
    assert message.startswith("episode 0 failed at step 4: TypeError: step() returned terminated ")
    assert "which is neither True nor False" in message


def test_environments_that_draw_from_the_global_generators_are_reproducible(shard: ShardMaker, staging: Path) -> None:
    def observed(*numbers: int) -> Any:
        close_session()  # as in another process
        random.seed(len(numbers))
        np.random.seed(len(numbers))
        state = random.getstate()
        staged = roll_out_shard(shard("DrawingGlobally", episodes=numbers), staging)
        assert random.getstate() == state, "nobody else's numbers change"
        return np.load(staged_path(staged.episodes[-1].folder, ArtifactKind.EPISODES))["obs"]

    np.testing.assert_array_equal(observed(1), observed(0, 1))
    assert not np.array_equal(observed(1)[:, 1:], observed(2)[:, 1:])


def test_infos_that_are_no_dictionaries_are_kept_in_one(shard: ShardMaker, staging: Path) -> None:
    _, arrays, _ = roll_out(shard("Listing", length=3), staging)
    assert [json.loads(info) for info in arrays["infos"]] == [{}, {"info": [2]}, {"info": [3]}]


def test_a_full_disk_is_no_episodes_fault(shard: ShardMaker, staging: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from tests.support.environments_for_tests.counting import Counting

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Counting, "step", no_space)
    with pytest.raises(StorageNotUsableError, match="Free some space"):
        roll_out_shard(shard(), staging)


def test_wrappers_that_repeat_actions_give_one_row_per_decision() -> None:
    from tests.support.environments_for_tests.counting import Counting

    class Twice(gymnasium.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            self.env.step(action)
            return self.env.step(action)

    recorder = RawRecorder(Counting())
    env = Twice(recorder)
    env.reset(seed=0)
    env.step(1)
    assert recorder.take_reward() == reward_of(0, 1) + reward_of(1, 1)
    assert recorder.take_reward() == 0
    assert recorder.observation.tolist() == [2]
