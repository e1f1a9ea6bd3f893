"""Watching while the registry is out of reach: what can be done later is said, and done later."""

import shutil
from pathlib import Path

import pytest

from rlhfblender_core import generate
from rlhfblender_core.locations import Locations, locate
from rlhfblender_core.watch import Finding, each_look, find_experiments, look_after
from tests.support.databases import postgres_server


@pytest.fixture
def models(tmp_path: Path, trained_cartpole: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(trained_cartpole / "rl_model_128_steps.zip", folder)
    return folder


def followed(models: Path, locations: Locations) -> None:
    generate(
        env="CartPole-v1", exp="study", model_path=str(models), register_only=True, follow=True,
        data_root=locations.data_root, database_url=locations.database_url,
    )  # fmt: skip


def nothing(*_: object) -> None:
    """Would fill."""


def test_a_registry_that_is_gone_is_a_problem_and_is_not_made_anew(models: Path, tmp_path: Path) -> None:
    locations = locate(str(tmp_path / "data"), None)
    followed(models, locations)
    (study,) = find_experiments((), locations)
    file = tmp_path / "data" / "rlhfblender.db"
    file.rename(tmp_path / "elsewhere.db")
    (row,) = [row for row in look_after(study, 1, 0, locations, nothing) if row.is_problem]
    assert "is gone" in row.reason
    assert not file.exists()


def test_a_training_that_has_just_begun_is_no_problem(models: Path, tmp_path: Path) -> None:
    locations = locate(str(tmp_path / "data"), None)
    followed(models, locations)
    (study,) = find_experiments((), locations)
    (models / "rl_model_128_steps.zip").rename(models / "training.json")
    assert look_after(study, 1, 0, locations, nothing) == []
    (models / "training.json").unlink()
    assert [row.finding for row in look_after(study, 1, 0, locations, nothing)] == [Finding.UNUSABLE]


@pytest.mark.soak
def test_a_database_that_starts_again_is_waited_for(models: Path, tmp_path: Path, trained_cartpole: Path) -> None:
    with postgres_server() as server:
        locations = locate(str(tmp_path / "data"), server.get_uri(driver="psycopg"))
        followed(models, locations)
        looks = each_look((), 0, locations)
        assert [record.name for record in next(looks)] == ["study"]
        server.stop()
        shutil.copy(trained_cartpole / "rl_model_256_steps.zip", models)
        (study,) = next(looks)
        (row,) = look_after(study, 1, 0, locations, nothing)
        assert row.finding is Finding.FAILED
        server.start()
        shutil.copy(trained_cartpole / "rl_model_256_steps.zip", models)
        (study,) = next(looks)
        rows = look_after(study, 1, 0, locations, nothing)
        assert [row.label for row in rows if row.is_filled] == ["128", "256"]
