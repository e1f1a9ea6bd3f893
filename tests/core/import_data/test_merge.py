"""Another data set of this layout is merged: file by file as it is, and goes on here as it did there."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.dataset.manifests import parse_manifest
from rlhfblender_core.errors import DataNotUsableError, InvalidParameterError, RegistryConflictError
from rlhfblender_core.import_data.run import Imported, import_all, import_request
from rlhfblender_core.registry import open_registry
from rlhfblender_core.step_runner import LocalRunner
from rlhfblender_core.storage import open_data_root
from tests.support.exporting import DataSet
from tests.support.generating import locations_of
from tests.support.verifying import problems


def data_set(folder: Path) -> DataSet:
    return DataSet(open_data_root(str(folder)), f"sqlite:///{folder}/rlhfblender.db", folder)


@pytest.fixture
def there(tmp_path: Path) -> DataSet:
    return data_set(tmp_path / "there")


@pytest.fixture
def here(tmp_path: Path) -> DataSet:
    return data_set(tmp_path / "here")


def merge(here: DataSet, there: DataSet, exp: str | None = None, **flags: Any) -> Imported:
    trusts = flags.pop("trusts", True)
    locations = locations_of(here.root, here.url)
    locations = locations if trusts else replace(locations, trusted_packages=frozenset())
    request = import_request(there.root.url, exp, flags.pop("env", None), locations, **flags)
    return import_all(request, LocalRunner(), locations)


def files(data: DataSet, experiment: str = "") -> dict[str, bytes]:
    folder = data.root.local_folder
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("rlhfblender.db") and "/." not in path.as_posix()
        if experiment in path.as_posix()
    }


def test_every_experiment_comes_as_it_is_and_can_be_continued(
    here: DataSet, there: DataSet, trained_cartpole: Path
) -> None:
    trained = {"env": "CartPole-v1", "exp": "trained", "model_path": str(trained_cartpole), "num_episodes": 2}
    short = {"max_steps_per_episode": 8}
    there.generate(checkpoints=(0, 128, "final"), action_names=("left", "right"), **trained, **short)
    there.counting("structured", "Structured", no_render=True)
    here.counting("E")
    merged = merge(here, there)
    assert (merged.made, merged.existing, merged.faults) == (8, 0, ())
    assert merged.experiments == ("structured", "trained")
    mine = files(here)
    assert {path: mine[path] for path in files(there)} == files(there)
    assert problems(here.root, here.url) == []
    again = merge(here, there)
    assert (again.made, again.existing) == (0, 8)
    assert files(here) == mine
    # The registry goes on: the same request makes only what is new.
    here.generate(checkpoints=(0, 128, "final"), **{**trained, "num_episodes": 3}, **short)
    here.counting("structured", "Structured", episodes=3, no_render=True)
    assert {path: content for path, content in files(here).items() if path in mine} == mine
    assert problems(here.root, here.url) == []
    with open_registry(here.url) as registry:
        assert registry.find_environment("CartPole-v1").action_names == ("left", "right")


def test_numbers_that_are_missing_here_come_and_others_stay(here: DataSet, there: DataSet) -> None:
    there.counting(episodes=5)
    here.counting(episodes=2)
    before = files(here)
    merged = merge(here, there, "E")
    assert (merged.made, merged.existing) == (3, 2)
    assert {path: content for path, content in files(here).items() if path in before} == before
    assert files(here) == files(there)


def test_the_folder_that_has_the_data_root_will_do(here: DataSet, tmp_path: Path) -> None:
    inside = data_set(tmp_path / "study" / "data")
    inside.counting(episodes=1)
    assert merge(here, data_set(tmp_path / "study")).made == 1
    assert files(here) == files(inside)


def test_an_experiment_gets_another_name(here: DataSet, there: DataSet) -> None:
    there.counting(episodes=2)
    there.counting("F", episodes=1)
    here.counting(episodes=2, seed=5)
    with pytest.raises(InvalidParameterError, match=r"several experiments: E, F. Choose one with --source-exp"):
        merge(here, there, "theirs")
    merged = merge(here, there, "theirs", source_exp="E")
    assert (merged.made, merged.experiments) == (2, ("theirs",))
    renamed = files(here, "/theirs/")
    for path, content in files(there, "/E/").items():
        if path.endswith(".json"):
            own = parse_manifest(renamed[path.replace("/E/", "/theirs/")], path)
            before = parse_manifest(content, path)
            assert own.model_copy(update={"experiment": "E", "artifacts": before.artifacts}) == before
        else:
            assert renamed[path.replace("/E/", "/theirs/")] == content
    assert problems(here.root, here.url) == []


def test_episodes_of_other_seeds_are_not_mixed(here: DataSet, there: DataSet) -> None:
    there.counting(episodes=3)
    here.counting(episodes=1, seed=5)
    before = files(here)
    with pytest.raises(DataNotUsableError, match=r"made otherwise than E/random here \(seed\). Use another --exp"):
        merge(here, there)
    assert files(here) == before
    assert merge(here, there, overwrite=True).made == 3
    assert files(here) == files(there)
    assert problems(here.root, here.url) == []
    here.counting(episodes=3)
    assert files(here) == files(there)


def test_a_name_that_is_another_environment_s_is_refused(here: DataSet, there: DataSet) -> None:
    there.counting()
    here.counting(env="Structured")
    with pytest.raises(RegistryConflictError, match="environment"):
        merge(here, there)
    with pytest.raises(InvalidParameterError, match=r"is of CountingMade-v0, not of CartPole-v1"):
        merge(here, there, "other", env="CartPole-v1")
    with pytest.raises(InvalidParameterError, match="no experiment 'Z'"):
        merge(here, there, source_exp="Z")


def test_an_interrupted_merge_is_continued(here: DataSet, there: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    there.counting(episodes=5)
    module = import_module("rlhfblender_core.import_data.merge")
    published: list[Any] = []
    real = module.publish_shard

    def dies(root: Any, shard: Any) -> Any:
        published.append(shard)
        if len(published) == 3:
            raise KeyboardInterrupt
        return real(root, shard)

    monkeypatch.setattr(module, "publish_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        merge(here, there)
    monkeypatch.undo()
    merged = merge(here, there)
    assert (merged.made, merged.existing) == (3, 2)
    assert files(here) == files(there)
    assert problems(here.root, here.url) == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("renders/E/random/1.mp4", "damaged"),
        ("episodes/E/random/1.npz", "is missing"),
        ("manifests/E/random/1.json", "is not a manifest"),
    ],
)
def test_what_is_damaged_there_stays_there_and_is_named(here: DataSet, there: DataSet, path: str, said: str) -> None:
    there.counting(episodes=3)
    file = there.root.local_folder / path
    if said == "is missing":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[0] ^= 0xFF
        file.write_bytes(content)
    merged = merge(here, there)
    assert merged.made == 2
    (fault,) = merged.faults
    assert path.partition("/")[0] in fault
    assert said in fault
    assert not files(here, "random/1.")
    assert problems(here.root, here.url) == []


def test_what_only_the_other_data_set_names_is_not_made(here: DataSet, there: DataSet) -> None:
    there.counting(episodes=1)
    merged = merge(here, there, trusts=False)
    assert merged.made == 1
    assert "is registered without --env-gym-entrypoint tests.support" in merged.notes[0]
    with open_registry(here.url) as registry:
        environment = registry.find_environment("CountingMade-v0")
    assert environment.entry_point is None
    assert environment.observation_space["shape"] == [1]


def test_a_data_root_is_not_merged_into_itself(here: DataSet) -> None:
    here.counting()
    with pytest.raises(InvalidParameterError, match="--exp NAME --env ID"):
        merge(here, here)
