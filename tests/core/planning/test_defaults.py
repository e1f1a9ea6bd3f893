"""The limit of steps that a deployment gives is a new experiment's default, and no conflict with a registered one."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhfblender_core.dataset.manifests import parse_manifest
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.storage import DataRoot, open_data_root
from tests.support.generating import generate, request
from tests.support.verifying import database

DEPLOYMENTS = Path(__file__).parents[3] / "deployments"
NAME = "default_max_steps_per_episode"


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return open_data_root(str(tmp_path / "data"))


def limits(root: DataRoot) -> list[int | None]:
    files = sorted((root.local_folder / "manifests").rglob("*.json"))
    return [parse_manifest(file.read_bytes(), str(file)).max_steps for file in files]


@pytest.mark.parametrize("exp", ["E", None])
def test_a_new_experiment_has_the_default_and_keeps_it(exp: str | None, root: DataRoot) -> None:
    asked: dict[str, Any] = {"exp": exp}
    assert generate(root, database(root), request(1, **asked, **{NAME: 4})) == 1
    assert generate(root, database(root), request(2, **asked)) == 1
    assert generate(root, database(root), request(3, **asked, **{NAME: 99})) == 1
    assert limits(root) == [4, 4, 4]


@pytest.mark.parametrize("exp", ["E", None])
@pytest.mark.parametrize("limit", [None, 3])
def test_a_registered_experiment_goes_on_as_it_is(exp: str | None, limit: int | None, root: DataRoot) -> None:
    generate(root, database(root), request(1, exp=exp, max_steps_per_episode=limit))
    assert generate(root, database(root), request(2, exp=exp, **{NAME: 4})) == 1
    assert limits(root) == [limit, limit]


def test_what_is_asked_for_wins(root: DataRoot) -> None:
    generate(root, database(root), request(1, max_steps_per_episode=2, **{NAME: 4}))
    assert limits(root) == [2]


def test_a_default_that_no_episode_can_have_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="--default-max-steps-per-episode must be 1 or more, not 0"):
        request(1, **{NAME: 0})


@pytest.mark.parametrize("file", ["prefect.yaml", "containers.yaml"])
def test_every_deployment_of_generate_has_a_default(file: str) -> None:
    deployments = yaml.safe_load((DEPLOYMENTS / file).read_text())["deployments"]
    generating = [each for each in deployments if each["entrypoint"] == "flows.generate.generate"]
    assert generating
    assert {each["parameters"][NAME] for each in generating} == {100_000}
