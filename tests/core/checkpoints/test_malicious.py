"""No file runs code. Each test's control shows that Stable-Baselines3's, torch's or PyYAML's own loader runs it."""

import base64
import contextlib
import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rlhfblender_core.checkpoints import CheckpointFile, Companions, fetch_checkpoint, load_agent
from rlhfblender_core.errors import CheckpointNotUsableError

NEEDED = ("policy_class", "policy_kwargs", "observation_space", "action_space")
NOT_NEEDED = ("lr_schedule", "ep_info_buffer", "clip_range", "_last_obs")


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.marker,)


class DictPayload(Payload):
    """Hides the call within an honest dict."""

    def hidden(self) -> dict[str, Any]:
        return {"net_arch": [4], "activation_fn": self}


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


def rewritten(source: Path, target: Path, **members: bytes) -> Path:
    """A copy of the zip with some members replaced."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in {*old.namelist(), *members}:
            new.writestr(name, members.get(name) or old.read(name))
    return target


def with_pickle(source: Path, target: Path, field: str, content: bytes) -> Path:
    with zipfile.ZipFile(source) as archive:
        data = json.loads(archive.read("data"))
    data[field] = {":type:": "<class 'dict'>", ":serialized:": base64.b64encode(content).decode()}
    return rewritten(source, target, data=json.dumps(data).encode())


def use(path: Path, model: Any, **kwargs: Any) -> Any:
    file = CheckpointFile("final", None, str(path), kwargs.pop("companions", Companions()))
    ref = fetch_checkpoint(file, path.parent / "cache", **kwargs)
    policy = load_agent(ref, model.observation_space, model.action_space, deterministic=True, **kwargs)
    policy.reset(0)
    return policy.act(model.observation_space.sample())


def refused(path: Path, model: Any, **kwargs: Any) -> str:
    with pytest.raises(CheckpointNotUsableError) as caught:
        use(path, model, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.filterwarnings("ignore")  # SB3's own about what can't be deserialised
def run_control(action: Any, marker: Path) -> None:
    """Runs somebody's own loader, whatever it raises, and checks that the payload ran."""
    with contextlib.suppress(Exception):  # it only matters that the payload ran
        action()
    assert marker.is_dir(), "the control didn't run the payload: this test shows nothing"
    marker.rmdir()


@pytest.mark.filterwarnings("ignore")  # SB3's own about what can't be deserialised
@pytest.mark.parametrize("field", [*NEEDED, *NOT_NEEDED])
def test_payload_in_a_pickled_field_never_runs(trained, tmp_path, marker, field):
    model = trained("PPO")
    path = with_pickle(model.path, tmp_path / "evil.zip", field, pickle.dumps(Payload(marker)))
    run_control(lambda: type(model.load_with_sb3()).load(path), marker)
    if field in NEEDED:
        message = refused(path, model)
        assert field in message
        assert "mkdir" in message
        assert "--trust-checkpoint" in message
    else:
        use(path, model)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore")
def test_payload_hidden_inside_policy_kwargs_never_runs(trained, tmp_path, marker):
    model = trained("PPO")
    content = pickle.dumps(DictPayload(marker).hidden())
    path = with_pickle(model.path, tmp_path / "evil.zip", "policy_kwargs", content)
    run_control(lambda: type(model.load_with_sb3()).load(path), marker)
    assert "policy_kwargs" in refused(path, model)
    assert not marker.exists()


@pytest.mark.parametrize("member", ["policy.pth", "pytorch_variables.pth"])
@pytest.mark.parametrize("legacy", [False, True])
def test_payload_in_weights_never_runs(trained, tmp_path, marker, member, legacy):
    model = trained("PPO")
    buffer = io.BytesIO()
    torch.save({"layer": Payload(marker)}, buffer, _use_new_zipfile_serialization=not legacy)
    run_control(lambda: torch.load(io.BytesIO(buffer.getvalue()), weights_only=False), marker)
    path = rewritten(model.path, tmp_path / "evil.zip", **{member: buffer.getvalue()})
    message = refused(path, model)
    assert member in message
    assert "mkdir" in message
    assert not marker.exists()


def test_payload_in_a_vecnormalize_file_never_runs(trained, tmp_path, marker):
    model = trained("PPO")
    file = tmp_path / "vecnormalize.pkl"
    file.write_bytes(pickle.dumps({"obs_rms": Payload(marker)}))
    run_control(lambda: pickle.loads(file.read_bytes()), marker)
    message = refused(model.path, model, companions=Companions(vecnormalize=str(file)))
    assert "vecnormalize.pkl" in message
    assert "mkdir" in message
    assert not marker.exists()


@pytest.mark.parametrize("name", ["args", "config", "env_kwargs"])
@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.mkdir [{0}]", "env_kwargs: !!python/object/apply:os.mkdir [{0}]"]
)
def test_payload_in_a_settings_file_never_runs(trained, tmp_path, marker, name, text):
    model = trained("PPO")
    file = tmp_path / f"{name}.yml"
    file.write_text(text.format(marker))
    run_control(lambda: yaml.load(file.read_text(), Loader=yaml.UnsafeLoader), marker)
    message = refused(model.path, model, companions=Companions(**{name: str(file)}))
    assert f"{name}.yml" in message
    assert "os.mkdir" in message
    assert not marker.exists()


def test_tag_in_a_setting_that_nobody_needs_is_passed_over(trained, tmp_path, marker):
    model = trained("PPO")
    file = tmp_path / "config.yml"
    file.write_text(f"policy: !!python/object/apply:os.mkdir [{marker}]\nn_timesteps: !!python/float 5.0\n")
    use(model.path, model, companions=Companions(config=str(file)))
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "evil.Wrapper",
        "rlhfblender_core.wrappers.zoo.FrameSkip",
        "subprocess.Popen",
        "gymnasium.wrappers.RecordVideo",
    ],
)
def test_wrapper_of_a_file_is_never_imported(name):
    import gymnasium as gym

    from rlhfblender_core.wrappers import WrapperSpec, wrap_environment

    env = gym.make("CartPole-v1")
    with pytest.raises(CheckpointNotUsableError, match="isn't known to be safe"):
        wrap_environment(env, [WrapperSpec(name)])


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("gymnasium.wrappers.ResizeObservation", {"shape": [200_000, 200_000]}),
        ("gymnasium.wrappers.FrameStackObservation", {"stack_size": 10**9}),
        ("gymnasium.wrappers.RepeatAction", {"num_repeats": 10**9}),
        ("minigrid.wrappers.RGBImgObsWrapper", {"tile_size": 10**5}),
        ("minigrid.wrappers.ViewSizeWrapper", {"agent_view_size": 99_999}),
        ("rl_zoo3.wrappers.HistoryWrapper", {"horizon": 10**9}),
        ("stable_baselines3.common.atari_wrappers.AtariWrapper", {"screen_size": 10**5}),
        ("stable_baselines3.common.atari_wrappers.MaxAndSkipEnv", {"skip": 1e9}),
    ],
)
def test_sizes_for_a_wrapper_are_bounded_before_memory_or_time_is_spent(name, kwargs):
    import gymnasium as gym

    from rlhfblender_core.wrappers import WrapperSpec, wrap_environment

    with pytest.raises(CheckpointNotUsableError, match="more than is taken from a file"):
        wrap_environment(gym.make("CartPole-v1"), [WrapperSpec(name, kwargs)])


def test_trust_is_the_way_out(trained, tmp_path, marker):
    """A file that needs code of its own loads when its user vouches for it, and only then."""
    model = trained("PPO")

    class Custom(dict):  # type: ignore[type-arg]
        def __reduce__(self) -> tuple[Any, ...]:
            return dict, ([("net_arch", {"pi": [8], "vf": [9]})],)

    path = with_pickle(model.path, tmp_path / "own.zip", "policy_kwargs", pickle.dumps(Custom()))
    assert "builtins.dict" in refused(path, model)
    assert use(path, model, trust=True).probs is not None


def test_unknown_optimizer_is_named_but_not_used(trained, tmp_path):
    """Inference needs no optimiser: a class that isn't known may be named there."""
    model = trained("PPO")
    # {"optimizer_class": no.such.name.Lion, "net_arch": {"pi": [8], "vf": [9]}}
    content = (
        b"\x80\x04}(\x8c\x0foptimizer_class\x8c\x0cno.such.name\x8c\x04Lion\x93"
        b"\x8c\x08net_arch}(\x8c\x02pi]K\x08a\x8c\x02vf]K\tauu."
    )
    use(with_pickle(model.path, tmp_path / "own.zip", "policy_kwargs", content), model)
