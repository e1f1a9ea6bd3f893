from pathlib import Path

import pytest

from rlhfblender_core.errors import DataNotUsableError, InvalidNameError, InvalidParameterError, RegistryConflictError
from rlhfblender_core.import_data import ImportPlan, ImportRequest, plan_import
from rlhfblender_core.import_data.plan import check_locations
from rlhfblender_core.import_data.run import import_request
from rlhfblender_core.import_data.sources import source_folder
from rlhfblender_core.locations import locate
from rlhfblender_core.registry import EnvironmentRecord, ExperimentRecord, open_registry
from tests.support.making_sources import ENV, make_database, make_documented, make_server


def plan(source: Path, **options: str) -> ImportPlan:
    return plan_import(ImportRequest(**{"folder": source, "exp": "Mine", "env": ENV, **options}), None)


def test_environment_is_described_by_the_sources_database_without_making_it(source: Path) -> None:
    make_server(source, episodes=1)
    make_database(source)
    planned = plan(source)
    environment = planned.environment
    assert environment.action_space == {"type": "Discrete", "shape": [], "dtype": "int64", "n": 2, "start": 0}
    assert environment.observation_space["shape"] == [3]
    assert environment.action_names == ("left", "right")
    ((_, target),) = planned.work
    assert (target.algorithm, target.environment.kwargs) == ("PPO", {"camera_name": "corner"})
    assert planned.experiment.env_kwargs == {"camera_name": "corner"}, (
        "episodes of one's own are made as the imported ones were"
    )


@pytest.mark.parametrize(("dtype", "high"), [("uint8", 255), ("int64", 2**63 - 1), ("float32", "inf")])
def test_bounds_that_the_source_says_nothing_of_are_those_of_the_dtype(source: Path, dtype: str, high: object) -> None:
    make_server(source, episodes=1)
    make_database(source, observation_space_info=f"{{'label': 'Box((3,))', 'shape': (3,), 'dtype': {dtype!r}}}")
    assert plan(source).environment.observation_space["high"] == high


@pytest.mark.parametrize(
    "info",
    [
        "{'label': 'Box((3,))', 'shape': (3,), 'dtype': 'nope'}",
        "{'label': 'Box', 'shape': 7}",
        "{'label': 'Box', 'shape': (10000000000,), 'dtype': 'float32'}",
        "{'label': 'Box', 'shape': (-4,), 'dtype': 'float32'}",
    ],
)
def test_a_space_that_is_none_is_taken_from_the_arrays(source: Path, info: str) -> None:
    make_server(source, episodes=1)
    make_database(source, observation_space_info=info)
    assert plan(source).environment.observation_space["dtype"] == "float64"


def test_actions_are_counted_from_the_lowest_that_has_a_label(source: Path) -> None:
    make_server(source, episodes=1)
    labels = "{'-1': 'back', '0': 'stay', '1': 'on'}"
    space = f"{{'label': 'Discrete((3,))', 'shape': (3,), 'dtype': 'int64', 'labels': {labels}}}"
    make_database(source, action_space_info=space)
    environment = plan(source).environment
    assert (environment.action_space["start"], environment.action_names) == (-1, ("back", "stay", "on"))


def test_what_the_source_would_run_is_not_registered(source: Path) -> None:
    make_server(source, episodes=1)
    make_database(source)
    planned = plan(source)
    assert planned.environment.entry_point is None
    assert planned.environment.additional_packages == ()
    assert "--env-gym-entrypoint os:abort --additional-gym-packages antigravity" in planned.notes[0]


def test_texts_in_the_database_are_literals_and_not_evaluated(source: Path, tmp_path: Path) -> None:
    make_server(source, episodes=1)
    canary = tmp_path / "canary"
    code = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    make_database(source, observation_space_info=code, environment_config=code, action_space_info="{'label': 3}")
    planned = plan(source)
    assert not canary.exists()
    assert planned.environment.observation_space["shape"] == [3]  # from the arrays


def test_spaces_come_from_the_arrays_where_nothing_else_tells(source: Path) -> None:
    make_documented(source, episodes=1)
    environment = plan(source).environment
    assert environment.observation_space["shape"] == [3]
    assert environment.action_space["n"] == 2


def test_installed_environments_describe_themselves(source: Path) -> None:
    make_documented(source, episodes=1)
    assert plan(source, env="CartPole-v1").environment.observation_space["shape"] == [4]


def test_data_folder_beside_a_database_is_found(source: Path) -> None:
    make_server(source / "data", episodes=1)
    make_database(source)
    assert plan(source).folder == source / "data"
    assert plan(source).database == source / "rlhfblender.db"


def test_experiment_is_chosen_by_name_where_there_are_several(source: Path) -> None:
    make_server(source, episodes=1)
    make_server(source, episodes=1, experiment_id=2)
    make_database(source)
    with pytest.raises(InvalidParameterError, match="several experiments: Made-v0_1, Made-v0_2"):
        plan(source)
    for name in ("Made-v0_1", "Their-Experiment"):
        assert plan(source, source_exp=name).work[0][0].path == "Made-v0/Made-v0_1_5000"
    assert plan(source, exp="Their-Experiment").work[0][0].path == "Made-v0/Made-v0_1_5000"
    with pytest.raises(InvalidParameterError, match=r"no experiment 'x'\. There are: Made-v0_1, Made-v0_2"):
        plan(source, source_exp="x")


def test_a_number_that_no_database_holds_is_a_name(source: Path) -> None:
    make_documented(source, subfolder="9" * 30, episodes=1)
    ((_, target),) = plan(source).work
    assert (target.key.checkpoint, target.step) == ("9" * 30, None)


def test_random_agents_and_last_checkpoints_get_our_labels(source: Path) -> None:
    make_server(source, episodes=1, checkpoint="-1")
    assert [record.label for record in plan(source).checkpoint_records()] == ["final"]
    make_database(source, framework="random")
    assert [record.label for record in plan(source).checkpoint_records()] == ["random"]
    assert plan(source).experiment.kind == "random"


def test_a_folder_that_is_not_there_is_said_before_names_are_asked_for(source: Path, tmp_path: Path) -> None:
    locations = locate(str(tmp_path / "root"), None, None)
    with pytest.raises(DataNotUsableError, match="There is no folder"):
        import_request(str(source), None, None, locations)
    make_server(source, episodes=1)
    with pytest.raises(InvalidParameterError, match="Name the experiment"):
        import_request(str(source), None, None, locations)


def test_wrong_requests_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="Copy it here first"):
        source_folder("s3://bucket/x")
    assert source_folder(f"file://{source}") == source
    with pytest.raises(DataNotUsableError, match="There is no folder"):
        plan(source)
    source.mkdir()
    with pytest.raises(DataNotUsableError, match="has none of episodes/"):
        plan(source)
    (source / "episodes").mkdir()
    with pytest.raises(DataNotUsableError, match="has no episodes"):
        plan(source)
    make_server(source, episodes=1)
    with pytest.raises(InvalidParameterError, match=r"no episodes of Other-v0\. It has those of Made-v0"):
        plan(source, env="Other-v0")
    with pytest.raises(InvalidNameError):
        plan(source, exp="../x")


def test_registered_experiment_of_another_environment_is_a_conflict(source: Path, tmp_path: Path) -> None:
    make_documented(source, episodes=1)
    with open_registry(f"sqlite:///{tmp_path / 'registry.db'}") as registry:
        registry.ensure_environment(EnvironmentRecord(env_id="Other-v0"))
        registry.ensure_experiment(ExperimentRecord(name="Mine", env_id="Other-v0", kind="trained"))
        with pytest.raises(RegistryConflictError, match="environment"):
            plan_import(ImportRequest(source, "Mine", ENV), registry)


def test_registered_environment_stays_as_it_is(source: Path, tmp_path: Path) -> None:
    make_server(source, episodes=1)
    make_database(source)
    with open_registry(f"sqlite:///{tmp_path / 'registry.db'}") as registry:
        known = registry.ensure_environment(EnvironmentRecord(env_id=ENV, entry_point="mine:Env"))
        planned = plan_import(ImportRequest(source, "Mine", ENV), registry)
        assert planned.environment == known
        assert planned.notes == ()
        assert planned.experiment.env_kwargs == {"camera_name": "corner"}


def test_keyword_arguments_that_an_environment_cant_be_registered_with_are_left_out(source: Path) -> None:
    make_server(source, episodes=1)
    given = {
        "render_mode": "human",
        "max_episode_steps": 50,
        "reward_threshold": "high",
        "config": {"lanes": [1, 2]},
        "not a name": 1,
        "size": {1},
    }
    make_database(source, environment_config=repr({"env_kwargs": given}))
    planned = plan(source)
    assert planned.experiment.env_kwargs == {"config": {"lanes": [1, 2]}, "max_episode_steps": 50}
    ((_, target),) = planned.work
    assert {**target.environment.kwargs, **target.environment.spec_kwargs} == planned.experiment.env_kwargs


def test_keyword_arguments_that_an_installed_environment_doesnt_take_are_left_out(source: Path) -> None:
    make_server(source, env="CartPole-v1", episodes=1)
    make_database(source, env_name="CartPole-v1", registration_id="CartPole-v1", env_id="CartPole-v1")
    planned = plan(source, env="CartPole-v1")
    assert planned.experiment.env_kwargs == {}
    assert 'doesn\'t take {"camera_name": "corner"}' in planned.notes[-1]


def test_files_that_are_no_episodes_are_named(source: Path) -> None:
    make_server(source, episodes=1)
    folder = source / "episodes" / ENV / f"{ENV}_1_5000"
    for name in ("benchmark_-1.npz", "benchmark_007.npz", "benchmark_0 copy.npz", f"benchmark_{10**30}.npz", "x.NPZ"):
        (folder / name).touch()
    for name in ("._benchmark_0.npz", ".DS_Store"):  # what file managers leave everywhere
        (folder / name).touch()
    planned = plan(source)
    assert [len(found.numbers()) for found, _ in planned.work] == [1]
    assert len(planned.notes) == 5
    assert f"episodes/{ENV}/{ENV}_1_5000/benchmark_007.npz: left out" in " ".join(planned.notes)
    for number in range(40):
        (folder / f"{number}.txt").touch()
    assert planned.notes != (notes := plan(source).notes)
    assert notes[-1].startswith("25 more files")


@pytest.mark.parametrize("keep", [50, 1500])
def test_a_database_that_cant_be_read_is_told_and_done_without(source: Path, keep: int) -> None:
    make_server(source, episodes=1)
    database = make_database(source)
    content = database.read_bytes()
    database.write_bytes(content[:keep] + bytes(255 - byte for byte in content[keep:]))
    planned = plan(source)
    assert planned.environment.observation_space["shape"] == [3]  # from the arrays
    assert planned.notes[0].startswith("rlhfblender.db: can't be read in full (")


def test_sources_own_database_is_never_the_registry(source: Path, tmp_path: Path) -> None:
    make_server(source, episodes=1)
    database = make_database(source)
    with pytest.raises(DataNotUsableError, match="RLHF-Blender's own database"):
        check_locations(plan(source), f"sqlite:///{database}")
    check_locations(plan(source), f"sqlite:///{tmp_path / 'other.db'}")


def test_folders_of_other_kinds_are_named_with_their_numbers(tmp_path: Path) -> None:
    make_documented(tmp_path / "source")
    for path in ("env_states/a/0.npy", "env_states/a/1.npy", "generated_demos/E/exp-1/demo.npz"):
        (tmp_path / "source" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / path).write_bytes(b"x")
    request = ImportRequest(tmp_path / "source", "Imported", ENV)
    left_out = [line for line in plan_import(request, None).notes if "left out" in line]
    assert [line.partition(" files")[0] for line in left_out] == ["env_states/: 2", "generated_demos/: 1"]
