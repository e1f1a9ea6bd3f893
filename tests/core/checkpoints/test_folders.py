"""Folders of any trainer: what is a model is known by its content, its steps by the one number that varies."""

import io
import json
import shutil
import threading
import time
import zipfile
from pathlib import Path

import fsspec
import pytest

from rlhfblender_core.checkpoints import (
    choose_checkpoints,
    fetch_checkpoint,
    find_checkpoints,
    parse_wanted,
    select_checkpoints,
)
from rlhfblender_core.errors import CheckpointNotUsableError, InvalidParameterError
from rlhfblender_core.untrusted.file_kinds import FileKind, kind_of_bytes

ENV = "CartPole-v1"


@pytest.fixture
def fill(trained, tmp_path):
    """Puts copies of a model into a folder, under these names, beside what is always there."""

    def into(*names: str) -> Path:
        for name in names:
            shutil.copy(trained("PPO").path, tmp_path / name)
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / "progress.csv").write_text("a,b\n")
        (tmp_path / "events.out.tfevents.1").write_bytes(bytes(100_000))
        (tmp_path / "notes.txt").write_text("notes")
        with zipfile.ZipFile(tmp_path / "code_20000.zip", "w") as code:
            code.writestr("train.py", "print()")
        return tmp_path

    return into


def labels(path: object, **kwargs: object) -> list[str]:
    return [found.label for found in find_checkpoints(str(path), ENV, **kwargs)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10000.zip", "20000.zip"], ["10000", "20000"]),
        (["10000.zip"], ["10000"]),
        (["ppo_vec_10000.zip", "ppo_vec_20000.zip", "ppo_vec.zip"], ["10000", "20000", "final"]),
        (["model_step_2000.zip", "model_step_400.zip"], ["400", "2000"]),
        (["model_step_7.zip"], ["7"]),
        (["ppo_CartPole-v1_exp3_1.zip", "ppo_CartPole-v1_exp3_12.zip"], ["1", "12"]),
        (["ppo_CartPole-v1.zip"], ["final"]),
        (["agent_10000", "agent_20000"], ["10000", "20000"]),
        (["ppo_500k.zip", "ppo_1.5M.zip", "ppo_1M.zip"], ["500000", "1000000", "1500000"]),
        (["2024-01-05_ppo_3000.zip", "2024-01-05_ppo_9000.zip", "best.zip"], ["3000", "9000", "best"]),
        (["rl_model_100_steps.zip", "extra_5000.zip", "final_model.zip"], ["100", "5000", "final"]),
    ],
)
def test_names_of_other_trainers_give_their_steps(fill, names, expected):
    assert labels(fill(*names)) == expected


def test_names_that_differ_in_several_numbers_ask_for_a_pattern(fill):
    folder = fill("s1_100.zip", "s2_200.zip")
    with pytest.raises(CheckpointNotUsableError, match=r"--checkpoint-pattern.*'s\*_\{step\}\.zip'"):
        find_checkpoints(str(folder), ENV)
    assert labels(folder, pattern="s*_{step}.zip") == ["100", "200"]
    assert labels(folder, pattern="s2_{step}") == ["200"]
    with pytest.raises(InvalidParameterError, match="once"):
        find_checkpoints(str(folder), ENV, pattern="s2_.zip")


def test_the_pattern_that_is_named_for_runs_with_the_same_steps_is_that_of_one(fill):
    folder = fill("s1_100.zip", "s1_200.zip", "s2_100.zip")
    with pytest.raises(CheckpointNotUsableError, match=r"'s1_\{step\}\.zip'"):
        find_checkpoints(str(folder), ENV)
    assert labels(folder, pattern="s1_{step}.zip") == ["100", "200"]


def test_one_of_several_is_labelled_as_in_its_folder(fill):
    folder = fill("ppo_vec_10.zip", "ppo_vec_20.zip")
    assert labels(folder / "ppo_vec_10.zip") == ["10"]
    assert labels(folder / "ppo_vec_10") == ["10"]


@pytest.mark.parametrize(
    "name", ["CartPole-v1__ppo__1__1700000000/ppo.cleanrl_model", "policy.pth", "last.ckpt", "model.safetensors"]
)
def test_weights_of_other_frameworks_are_told_how_they_act(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"weights")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(CheckpointNotUsableError, match=r"another framework's agent.* --agent") as caught:
            find_checkpoints(str(path), ENV)
        assert "\n" not in str(caught.value)


def test_extension_in_capitals_may_be_left_out(fill):
    folder = fill("Model_100.ZIP")
    assert find_checkpoints(str(folder / "Model_100"), ENV)[0].url == str(folder / "Model_100.ZIP")


def test_missing_extension_is_added_and_a_near_name_suggested(fill):
    folder = fill("ppo_vec.zip")
    (found,) = find_checkpoints(str(folder / "ppo_vec"), ENV)
    assert found.url == str(folder / "ppo_vec.zip")
    with pytest.raises(CheckpointNotUsableError, match=r"Did you mean .*ppo_vec\.zip"):
        find_checkpoints(str(folder / "ppo_vex"), ENV)


def test_zipped_folders_and_unzipped_models_load_like_the_model(trained, tmp_path):
    model = trained("PPO").path
    with zipfile.ZipFile(model) as archive:
        archive.extractall(tmp_path / "a_100")
        with zipfile.ZipFile(tmp_path / "a_200.zip", "w", zipfile.ZIP_DEFLATED) as again:
            for name in archive.namelist():
                again.writestr(f"a/{name}", archive.read(name))
            again.writestr("__MACOSX/a/._data", b"fork")
    first, second = find_checkpoints(str(tmp_path), ENV)
    assert [first.label, second.label] == ["100", "200"]
    refs = [fetch_checkpoint(file, tmp_path / "cache") for file in (first, second)]
    assert {ref.algorithm for ref in refs} == {"PPO"}
    assert fetch_checkpoint(first, tmp_path / "other").sha256 == refs[0].sha256
    assert labels(tmp_path / "a_100") == ["100"]


@pytest.mark.parametrize(
    ("folders", "message"),
    [(("a/", "b/"), "unpack it and give the path of a"), (("a\\",), "backslashes, zip it again")],
)
def test_zips_of_folders_that_hold_no_one_model_say_what_to_do(folders, message, trained, tmp_path):
    with zipfile.ZipFile(trained("PPO").path) as archive, zipfile.ZipFile(tmp_path / "m.zip", "w") as again:
        for folder in folders:
            for name in archive.namelist():
                entry = zipfile.ZipInfo("named below, where separators stay")
                entry.filename = folder + name
                again.writestr(entry, archive.read(name))
    (found,) = find_checkpoints(str(tmp_path / "m.zip"), ENV)
    with pytest.raises(CheckpointNotUsableError, match=message):
        fetch_checkpoint(found, tmp_path / "cache")


def test_unzipped_models_of_pointers_name_the_command_that_fetches_them(trained, tmp_path):
    with zipfile.ZipFile(trained("PPO").path) as archive:
        archive.extractall(tmp_path / "m")
    (tmp_path / "m/policy.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 99\n")
    (found,) = find_checkpoints(str(tmp_path / "m"), ENV)
    with pytest.raises(CheckpointNotUsableError, match=r"m/policy\.pth.*git lfs pull"):
        fetch_checkpoint(found, tmp_path / "cache")


def test_model_zipped_and_unzipped_side_by_side_is_one(trained, tmp_path):
    shutil.copy(trained("PPO").path, tmp_path / "ppo-CartPole-v1.zip")
    with zipfile.ZipFile(trained("PPO").path) as archive:
        archive.extractall(tmp_path / "ppo-CartPole-v1")
    assert labels(tmp_path) == ["final"]


def test_two_models_named_after_the_environment_are_ambiguous(fill):
    with pytest.raises(CheckpointNotUsableError, match="Give the path of one"):
        find_checkpoints(str(fill("a2c-CartPole-v1.zip", "ppo-CartPole-v1.zip")), ENV)


def test_remote_folders_are_known_by_a_few_small_reads(trained, monkeypatch):
    storage = fsspec.filesystem("memory")
    content = trained("PPO").path.read_bytes()
    for step in (10, 20):
        storage.pipe(f"/remote/folder/m_{step}.zip", content)
    storage.pipe("/remote/folder/data_30.zip", bytes(50_000))
    read = []
    fetch = type(storage).cat_file

    def counted(self, path, start=None, end=None, **kwargs):
        read.append((end or 10**9) - (start or 0))
        return fetch(self, path, start=start, end=end, **kwargs)

    monkeypatch.setattr(type(storage), "cat_file", counted)
    assert labels("memory://remote/folder") == ["10", "20"]
    assert len(read) <= 6
    assert max(read) <= 16 * 1024
    storage.rm("/remote", recursive=True)


def truncated(path: Path, share: float) -> bytes:
    content = path.read_bytes()
    return content[: int(len(content) * share)]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.98])
def test_part_of_a_model_is_an_unfinished_one(trained, share):
    content = truncated(trained("PPO").path, share)
    assert kind_of_bytes(content[:512], content[-16384:], len(content)) is FileKind.INCOMPLETE


@pytest.mark.parametrize("wanted", ["all", "5:", -1])
def test_unfinished_checkpoint_is_left_out_with_a_word(fill, trained, wanted):
    folder = fill("m_10.zip", "m_20.zip")
    (folder / "m_30.zip").write_bytes(truncated(trained("PPO").path, 0.6))
    found = find_checkpoints(str(folder), ENV)
    assert [file.label for file in found] == ["10", "20", "30"]
    chosen, notes = choose_checkpoints(found, [wanted], patience=0.1)
    assert [file.label for file in chosen] == (["20"] if wanted == -1 else ["10", "20"])
    assert "30 is left out" in notes[0]
    named, _ = choose_checkpoints(found, [30], patience=0.1)
    assert [file.label for file in named] == ["30"]


def test_only_an_unfinished_checkpoint_is_refused(fill, trained):
    folder = fill()
    (folder / "m_3000.zip").write_bytes(truncated(trained("PPO").path, 0.6))
    with pytest.raises(CheckpointNotUsableError, match="still being written"):
        choose_checkpoints(find_checkpoints(str(folder), ENV), [-1], patience=0.1)


def test_checkpoint_being_written_is_waited_for(fill, trained):
    folder = fill("m_10.zip")
    content = trained("PPO").path.read_bytes()
    (folder / "m_20.zip").write_bytes(content[:2000])

    def finish() -> None:
        time.sleep(0.5)
        (folder / "m_20.zip").write_bytes(content)

    writer = threading.Thread(target=finish)
    writer.start()
    chosen, notes = choose_checkpoints(find_checkpoints(str(folder), ENV), ["all"])
    writer.join()
    assert [file.label for file in chosen] == ["10", "20"]
    assert notes == ()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["256,512"], (256, 512)),
        (["256", 512, "-1", "final"], (256, 512, -1, "final")),
        (["0:100:20", "best"], (0, "0:100:20", "best")),
        (["20:100:20"], ("20:100:20",)),
        (["all", 0], ("all", 0)),
    ],
)
def test_wanted_checkpoints_are_understood(values, expected):
    assert parse_wanted(values) == expected


@pytest.mark.parametrize("value", [-2, "-2", "5:1", "1:9:0"])
def test_wanted_checkpoints_that_can_not_be_are_refused(value):
    with pytest.raises(InvalidParameterError, match="--checkpoints"):
        parse_wanted([value])


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (["0:100:20"], ["20", "40", "60"]),
        (["30:"], ["40", "50", "60"]),
        ([":40"], ["20", "40"]),
        (["all"], ["20", "40", "50", "60", "final"]),
        (["50:60", -1, 20], ["50", "60", "final", "20"]),
    ],
)
def test_ranges_hold_both_ends(fill, wanted, chosen):
    found = find_checkpoints(str(fill("m_20.zip", "m_40.zip", "m_50.zip", "m_60.zip", "final.zip")), ENV)
    assert [file.label for file in select_checkpoints(found, wanted)] == chosen


def test_gaps_in_a_range_are_told(fill):
    found = find_checkpoints(str(fill("m_20.zip", "m_60.zip")), ENV)
    _, notes = choose_checkpoints(found, ["0:100:20"])
    assert notes == ("--checkpoints 0:100:20: there is no 40",)
    with pytest.raises(CheckpointNotUsableError, match=r"'70:90'.*20, 60"):
        select_checkpoints(found, ["70:90"])


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_pkl", ".pkl"), content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 99\n", "git lfs pull"),
        (zipped(data=b"{}", parameters=b"", parameter_list=b"[]"), "Stable Baselines 2"),
        (zipped(archive__data_pkl=b"", archive__version=b"3"), r"model\.save\(\)"),
        (zipped(runs__1_pkl=b""), "no Stable-Baselines3 model"),
    ],
    ids=["pointer", "baselines2", "policy", "other"],
)
def test_files_that_are_taken_for_models_say_the_way_out(tmp_path, content, said):
    (tmp_path / "CartPole-v1.zip").write_bytes(content)
    with pytest.raises(CheckpointNotUsableError, match=said):
        fetch_checkpoint(find_checkpoints(str(tmp_path / "CartPole-v1.zip"), ENV)[0], tmp_path / "cache")


def test_saved_policy_is_recognised(trained, tmp_path):
    trained("PPO").load_with_sb3().policy.save(tmp_path / "policy.zip")
    with pytest.raises(CheckpointNotUsableError, match="a policy alone"):
        fetch_checkpoint(find_checkpoints(str(tmp_path), ENV)[0], tmp_path / "cache")


def test_pointers_in_place_of_settings_are_refused(trained, tmp_path):
    shutil.copy(trained("PPO").path, tmp_path / "m.zip")
    (tmp_path / "config.yml").write_text("version https://git-lfs.github.com/spec/v1\noid: 1\n")
    with pytest.raises(CheckpointNotUsableError, match=r"config\.yml.*git lfs pull"):
        fetch_checkpoint(find_checkpoints(str(tmp_path / "m.zip"), ENV)[0], tmp_path / "cache")


def test_missing_package_of_the_hub_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    from rlhfblender_core.errors import StorageNotUsableError

    with pytest.raises(StorageNotUsableError, match=r"rlhfblender-data\[hf\]"):
        find_checkpoints("hf://sb3/ppo-CartPole-v1", ENV)


def test_found_checkpoints_are_json(trained, tmp_path):
    import dataclasses

    shutil.copy(trained("PPO").path, tmp_path / "m_10000.zip")
    ref = fetch_checkpoint(find_checkpoints(str(tmp_path), ENV)[0], tmp_path / "cache")
    assert json.loads(json.dumps(dataclasses.asdict(ref)))["step"] == 10000


def test_watched_folder_of_another_trainer_waits_by_its_steps(fill, trained, tmp_path_factory):
    from rlhfblender_core.planning.unfilled_checkpoints import find_waiting
    from rlhfblender_core.registry import ExperimentRecord
    from rlhfblender_core.storage import open_data_root

    folder = fill("s1_ppo_100.zip", "s2_ppo_200.zip")
    with zipfile.ZipFile(trained("PPO").path) as archive:
        archive.extractall(folder / "s3_ppo_300")
    settings = {"checkpoint_pattern": "s*_ppo_{step}.zip"}
    root = open_data_root(str(tmp_path_factory.mktemp("data")))
    record = ExperimentRecord(name="E", env_id=ENV, kind="trained", model_path=str(folder), settings=settings)
    assert find_waiting(record, 1, root, settle_seconds=0).ready == ("100", "200", "300")
    assert find_waiting(record, 1, root, settle_seconds=900).unsettled == ("100", "200", "300")
    unzipped = ExperimentRecord(name="E", env_id=ENV, kind="trained", model_path=str(folder / "s3_ppo_300"))
    assert find_waiting(unzipped, 1, root, settle_seconds=0).ready == ("final",)
