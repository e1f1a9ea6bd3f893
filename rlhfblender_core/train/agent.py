"""The agent that learns: made from its hyperparameters, saved as Stable-Baselines3 saves, restored without unpickling.

Stable-Baselines3's own ``load`` runs what a file holds. A training that goes on needs less: it makes the agent anew
from its hyperparameters and loads tensors (policy, optimisers, entropy coefficient), which torch's ``weights_only``
reads, and a few counters, which are JSON. So a data root may be anybody's.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

from rlhfblender_core.errors import (
    CheckpointNotUsableError,
    InvalidParameterError,
    RLHFBlenderError,
    SpacesDifferError,
    last_line,
)
from rlhfblender_core.train.arguments import algorithm_class, constructor_arguments
from rlhfblender_core.train.job import TrainingJob
from rlhfblender_core.untrusted.archives import DAMAGED_ARCHIVE, RefusedArchiveError, open_archive, read_member
from rlhfblender_core.untrusted.limits import MAX_WEIGHTS_BYTES
from rlhfblender_core.untrusted.model_zip import VARIABLES, read_archive, refusal
from rlhfblender_core.untrusted.vecnormalize import RunningMoments, read_training_statistics
from rlhfblender_core.untrusted.weights import scan_weights

#: Numbers that decide how an algorithm goes on: delays of updates, schedules, the number of steps.
_NUMBERS = ("num_timesteps", "_episode_num", "_n_updates", "_n_calls", "exploration_rate")


def make_agent(job: TrainingJob, env: Any) -> Any:
    """A new agent of Stable-Baselines3's in this environment.

    Raises:
        InvalidParameterError: its hyperparameters don't fit together, or not with the environment.
        SpacesDifferError: the algorithm can't act in the environment.
    """
    kind = algorithm_class(job.algorithm)
    arguments = constructor_arguments(job.algorithm, job.hyperparameters, env.observation_space, env.action_space)
    try:
        return kind(env=env, seed=job.seed, **arguments)
    except RLHFBlenderError:
        raise
    except AssertionError as error:
        raise SpacesDifferError(f"{job.algorithm} can't learn in {job.spec.env_id}: {last_line(error):.300}") from error
    except Exception as error:  # constructors refuse arguments by errors of all kinds
        raise InvalidParameterError(
            f"{job.algorithm} can't be made with these hyperparameters: {last_line(error):.300}"
        ) from error


def save_agent(agent: Any, model: Path, statistics: Path) -> bool:
    """Saves the agent, and the statistics of its observations and returns; says whether there are any."""
    agent.save(model)
    normalised = agent.get_vec_normalize_env()
    if normalised is None:
        return False
    normalised.save(str(statistics))
    return True


def restore_agent(agent: Any, model: Path, statistics: Path | None) -> None:
    """Gives a new agent what a saved one had learned: weights, optimisers, statistics, counters.

    Raises:
        CheckpointNotUsableError: the files are damaged, or another agent's.
    """
    archive = read_archive(model)
    names, variables = agent._get_torch_save_params()  # noqa: SLF001 (what each algorithm saves; nothing public tells it)
    try:
        with open_archive(model) as members:
            states = {name: _tensors(model, members, f"{name}.pth") for name in names}
            values = _tensors(model, members, VARIABLES) if variables else {}
        agent.set_parameters(states, exact_match=True, device=agent.device)
        for name in variables:
            getattr(agent, name).data = values[name].data.to(agent.device)
        for name in _NUMBERS:
            if hasattr(agent, name):
                setattr(agent, name, _number(archive.data[name], like=getattr(agent, name)))
        if hasattr(agent, "n_delta"):  # ARS learns on a copy of its policy's weights
            import torch

            agent.weights = torch.nn.utils.parameters_to_vector(agent.policy.parameters()).detach()
    except RLHFBlenderError:
        raise
    except RefusedArchiveError as error:
        raise refusal(model, str(error)) from error
    except (RuntimeError, AttributeError, *DAMAGED_ARCHIVE) as error:
        raise refusal(model, f"is no checkpoint of this training ({last_line(error)[:200]})") from error
    normalised = agent.get_vec_normalize_env()
    if normalised is not None:
        _restore_statistics(normalised, model, statistics)


def _tensors(model: Path, members: zipfile.ZipFile, name: str) -> Any:
    import torch

    content = read_member(members, name, MAX_WEIGHTS_BYTES)
    scan_weights(model, name, content)
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _number(value: Any, *, like: float) -> float:
    if type(value) is not type(like) or not value >= 0:  # NaN isn't, either
        raise ValueError(f"{value!r:.20} in the place of a number such as {like}")
    return float(value) if isinstance(like, float) else int(value)


def _restore_statistics(normalised: Any, model: Path, statistics: Path | None) -> None:
    if statistics is None:
        raise refusal(model, "has lost its VecNormalize statistics; put them beside it, or train under another --exp")
    held = read_training_statistics(statistics)
    if normalised.norm_obs:
        own = normalised.obs_rms if isinstance(normalised.obs_rms, dict) else {None: normalised.obs_rms}
        for key, moments in own.items():
            _restore_moments(moments, held.observations.get(key), statistics)
    _restore_moments(normalised.ret_rms, held.returns, statistics)


def _restore_moments(moments: Any, held: RunningMoments | None, file: Path) -> None:
    if held is None or held.mean.shape != moments.mean.shape:
        raise CheckpointNotUsableError(f"Statistics file {str(file)!r} is of other observations.")
    moments.mean, moments.var, moments.count = held.mean.copy(), held.variance.copy(), held.count
