import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlhfblender_core.dataset.action_labels import load_pictures
from rlhfblender_core.environments import Trust
from rlhfblender_core.errors import (
    DataNotUsableError,
    EnvironmentNotUsableError,
    InvalidNameError,
    InvalidParameterError,
    RegistryConflictError,
)
from rlhfblender_core.register import (
    RegistrationRequest,
    dimensions_of,
    list_registered,
    register_environment,
)
from rlhfblender_core.registry import EnvironmentRecord, open_existing_registry, open_registry
from rlhfblender_core.storage import open_data_root

COUNTING = {"env": "Count_ing-v0", "env_gym_entrypoint": "tests.support.environments_for_tests.counting:Counting"}
Register = Callable[..., EnvironmentRecord]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/data/rlhfblender.db"


@pytest.fixture
def register(tmp_path: Path, url: str) -> Register:
    def run(**request: object) -> EnvironmentRecord:
        asked = RegistrationRequest(**{**COUNTING, **request})  # type: ignore[arg-type]
        trust = Trust("here", tmp_path / "state" / "trusted")
        return register_environment(asked, open_data_root(str(tmp_path / "data")), url, trust)

    return run


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.new(mode, size, 1).save(path)
    return path


@pytest.mark.parametrize(("actions", "dimensions"), [("discrete", 1), ("box", 2)])
def test_dimensions_are_those_of_an_action(register: Register, actions: str, dimensions: int) -> None:
    assert dimensions_of(register(env_kwargs={"actions": actions}, needs_dimensions=True)) == dimensions


@pytest.mark.parametrize("request_", [{"needs_dimensions": True}, {"action_labels": ["a", "b"]}])
def test_a_space_without_plain_dimensions_is_refused_and_not_registered(
    register: Register, url: str, request_: dict[str, object]
) -> None:
    with pytest.raises(InvalidParameterError, match="only Discrete and flat Box"):
        register(env_kwargs={"actions": "multi_binary"}, **request_)
    assert open_existing_registry(url) is None


def test_labels_are_set_again_and_again(register: Register) -> None:
    assert register().action_names is None
    assert register(action_labels=["a", "b", "c"]).action_names == ("a", "b", "c")
    assert register().action_names == ("a", "b", "c")
    assert register(action_labels=["x", "y", "z"]).action_names == ("x", "y", "z")


def test_a_registered_environment_needs_its_id_alone(register: Register) -> None:
    register(env_kwargs={"length": 9})
    again = register(env_gym_entrypoint=None, action_labels=["a", "b", "c"])
    assert again.entry_point == COUNTING["env_gym_entrypoint"]


def test_an_imported_environment_is_told_later_how_it_is_made(register: Register, url: str) -> None:
    imported = EnvironmentRecord(env_id="Imported-v0", description="came with episodes")
    with open_registry(url) as registry:
        registry.ensure_environment(imported)
    with pytest.raises(EnvironmentNotUsableError):
        register(env="Imported-v0", env_gym_entrypoint=None)
    told = register(env="Imported-v0")
    assert (told.entry_point, told.description) == (COUNTING["env_gym_entrypoint"], "came with episodes")
    assert told.action_space
    assert register(env="Imported-v0", env_gym_entrypoint=None) == told


def test_an_environment_that_is_found_as_it_is_registered_stays_that_one(register: Register) -> None:
    before = register(env="CartPole-v1", env_gym_entrypoint=None)
    for other in (
        {},
        {"env_gym_entrypoint": None, "additional_gym_packages": ["tests.support.environments_for_tests"]},
    ):
        with pytest.raises(RegistryConflictError, match="found without them"):
            register(env="CartPole-v1", **other)
    assert register(env="CartPole-v1", env_gym_entrypoint=None) == before


def test_a_wrong_number_of_labels_changes_nothing(register: Register) -> None:
    register(action_labels=["a", "b", "c"])
    with pytest.raises(InvalidParameterError, match="3 names"):
        register(action_labels=["a"])
    assert register().action_names == ("a", "b", "c")


def test_pictures_are_kept_as_arrays_under_the_labels(register: Register, tmp_path: Path) -> None:
    files = [f"a={picture(tmp_path / 'up.png')}", f"b={picture(tmp_path / 'icon.png', 'RGBA')}"]
    register(action_labels=["a", "b", "c"], action_images=files)
    stored = tmp_path / "data" / "action_labels" / "Count_ing-v0"
    assert sorted(path.name for path in stored.iterdir()) == ["a.npy", "b.npy"]
    shapes = {name: np.load(stored / f"{name}.npy", allow_pickle=False) for name in "ab"}
    assert {name: (array.shape, array.dtype) for name, array in shapes.items()} == {
        "a": ((4, 6, 3), np.uint8),
        "b": ((4, 6, 4), np.uint8),
    }
    pictures = load_pictures(open_data_root(str(tmp_path / "data")), "Count_ing-v0", ["c", "b", "a"])
    assert list(pictures) == ["b", "a"]


def test_pictures_come_from_a_folder_named_by_label_with_or_without_an_index(
    register: Register, tmp_path: Path
) -> None:
    for name in ("turn_left.png", "1_go.jpg"):
        picture(tmp_path / "icons" / name)
    (tmp_path / "icons" / "README.txt").write_text("mine")
    np.save(tmp_path / "icons" / "2_b.npy", np.zeros((3, 3, 3), np.uint8))
    register(action_labels=["turn_left", "go", "2_b"], action_images=[str(tmp_path / "icons")])
    stored = tmp_path / "data" / "action_labels" / "Count_ing-v0"
    assert sorted(path.name for path in stored.iterdir()) == ["2_b.npy", "go.npy", "turn_left.npy"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["z={folder}/a.png"], "no action label 'z'"),
        (["a={folder}/missing.png"], "no file"),
        (["{folder}/a.png"], "label=file.png"),
        (["a={folder}/a.png", "a={folder}/b.png"], "two pictures"),
        (["a={folder}/broken.png"], "no picture"),
        (["a={folder}/large.png"], "at most"),
        (["a={folder}/float.npy"], "uint8"),
        (["a={folder}/pickled.npy"], "without pickles"),
        (["{folder}/empty"], "no pictures"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(
    register: Register, tmp_path: Path, url: str, given: list[str], says: str
) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    picture(tmp_path / "large.png", size=(5000, 1))
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:20])
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "float.npy", np.zeros((3, 3, 3)))
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises((InvalidParameterError, DataNotUsableError), match=says):
        register(action_labels=["a", "b", "c"], action_images=[text.format(folder=tmp_path) for text in given])
    assert open_existing_registry(url) is None


def test_pictures_need_labels(register: Register, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="--set-action-labels"):
        register(action_images=[f"a={picture(tmp_path / 'a.png')}"])


@pytest.mark.parametrize(
    ("labels", "error"), [(["a/b", "a-b", "c"], InvalidParameterError), (["a?", "b", "c"], InvalidNameError)]
)
def test_labels_with_pictures_must_be_names_of_files(
    register: Register, tmp_path: Path, labels: list[str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        register(action_labels=labels, action_images=[f"{labels[0]}={picture(tmp_path / 'a.png')}"])


def test_labels_that_no_file_can_be_named_by_have_no_picture(register: Register, tmp_path: Path) -> None:
    labels = ["?", 'say "hi"', "b"]
    register(action_labels=labels, action_images=[f"b={picture(tmp_path / 'a.png')}"])
    assert list(load_pictures(open_data_root(str(tmp_path / "data")), "Count_ing-v0", labels)) == ["b"]


def test_a_damaged_stored_picture_is_named(tmp_path: Path) -> None:
    stored = tmp_path / "action_labels" / "E" / "a.npy"
    stored.parent.mkdir(parents=True)
    stream = io.BytesIO()
    np.save(stream, np.zeros((2, 2, 3), np.uint8))
    stored.write_bytes(stream.getvalue()[:-3])
    with pytest.raises(DataNotUsableError, match=r"action_labels/E/a\.npy"):
        load_pictures(open_data_root(str(tmp_path)), "E", ["a"])


def test_what_is_registered_is_listed(register: Register, url: str) -> None:
    register(project="Mine", action_labels=["a", "b", "c"])
    with open_registry(url) as registry:
        everything = list_registered(registry)
        assert [record.env_id for record in everything.environments] == ["Count_ing-v0"]
        assert [record.name for record in everything.projects] == ["Mine"]
        assert list_registered(registry, "Mine").environments == ()
