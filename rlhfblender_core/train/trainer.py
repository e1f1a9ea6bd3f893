"""The training itself: an agent learns, and its checkpoints are published as it goes.

Runs in a process of its own (:mod:`rlhfblender_core.train.process`). A training that was begun goes on from its last
checkpoint.
"""

import contextlib
import importlib.metadata
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger

from rlhfblender_core.checkpoints.fetch import sha256_of
from rlhfblender_core.errors import CheckpointNotUsableError
from rlhfblender_core.runs.folders import open_run
from rlhfblender_core.storage import fetch_file, list_sizes
from rlhfblender_core.train.agent import make_agent, restore_agent, save_agent
from rlhfblender_core.train.environments import make_environments
from rlhfblender_core.train.job import CheckpointWritten, CurvePoint, Event, Progress, Ready, Started, TrainingJob
from rlhfblender_core.train.model_folder import (
    TrainingRecord,
    buffer_name,
    checkpoint_steps,
    model_name,
    publish_checkpoint,
    statistics_name,
    write_record,
    write_settings,
)
from rlhfblender_core.train.replay_buffer import read_buffer, write_buffer

Tell = Callable[[Event], None]

_PACKAGES = ("gymnasium", "numpy", "sb3-contrib", "stable-baselines3", "torch")
_LOSSES = ("train/loss", "train/critic_loss", "train/policy_loss", "train/policy_objective")
#: Points of a learning curve.
_MOST_POINTS = 400
#: Progress is told this often at most.
_TELL_S = 0.5


def train_agent(job: TrainingJob, record: TrainingRecord, tell: Tell) -> None:
    """Trains to the end, from the last checkpoint if there is one.

    Args:
        job: what to train.
        record: of the training so far, with what is asked for now.
        tell: hears how it goes; returns from :class:`~rlhfblender_core.train.job.Ready` when files may be written.

    Raises:
        RLHFBlenderError: it can't be made, or its storage can't be written.
    """
    import torch

    torch.set_num_threads(job.threads)
    env = make_environments(job)
    try:
        agent = make_agent(job, env)
        tell(Ready())
        with open_run(job.folder) as run:
            steps = checkpoint_steps(job.folder)
            if steps:
                record = _resumed(job, record, agent, steps[-1], run.folder)
            else:
                record = replace(record, curve=(), checkpoints={}, resumed_at=())
            write_settings(job, run.folder)
            write_record(job.folder, record, run.folder)
            tell(Started(agent.num_timesteps, tuple(record.curve)))
            _Training(job, record, tell, run.folder).run(agent)
    finally:
        with contextlib.suppress(Exception):  # somebody's environment; the training is over
            env.close()


def _resumed(job: TrainingJob, record: TrainingRecord, agent: Any, step: int, staging: Path) -> TrainingRecord:
    """Restores the agent; the record says what isn't as it would have been."""
    files = list_sizes(job.folder, "")

    def fetched(name: str) -> Path | None:
        return fetch_file(job.folder, name, staging) if name in files else None

    model, buffer = fetched(model_name(step)), fetched(buffer_name(step))
    if model is None:
        raise CheckpointNotUsableError(
            f"{job.folder.display_url(model_name(step))} is gone. Run the same command again."
        )
    restore_agent(agent, model, fetched(statistics_name(step)))
    if agent.num_timesteps != step:
        raise CheckpointNotUsableError(f"{model} holds a checkpoint of step {agent.num_timesteps}. Move it away.")
    differs = ["environments start new episodes", "random generators are seeded anew, by seed and step"]
    if getattr(agent, "replay_buffer", None) is not None:
        if buffer is not None:
            read_buffer(agent.replay_buffer, buffer)
        else:
            differs.append("the replay buffer is filled anew before learning goes on")
            _learn_later(agent, step)
    else:
        differs.append("the rollout that was being collected is collected anew")
    agent.set_random_seed(int(np.random.SeedSequence([job.seed, step]).generate_state(1)[0]))
    entry = {"step": step, "at": datetime.now(UTC).isoformat(timespec="seconds"), "not_bit_equal": differs}
    curve = [point for point in record.curve if point.step <= step]
    checkpoints = {**record.checkpoints, str(step): sha256_of(model)}  # killed before the record of it was written
    resumed = [*record.resumed_at, entry]
    return replace(record, resumed_at=resumed, curve=curve, checkpoints=checkpoints, versions=_versions())


def _learn_later(agent: Any, step: int) -> None:
    """Has an agent without its replay buffer act, by what it has learned, until there is enough to learn from."""
    until = step + agent.learning_starts

    class Later(type(agent)):  # type: ignore[misc]  # its class is only known here
        def train(self, *args: Any, **kwargs: Any) -> None:
            if self.num_timesteps > until:
                super().train(*args, **kwargs)

    agent.__class__ = Later


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


class _Training(BaseCallback):
    """Publishes checkpoints as they are due, and tells how the training goes.

    Args:
        job: what is trained.
        record: so far.
        tell: hears how it goes.
        staging: folder for files that are written.
    """

    def __init__(self, job: TrainingJob, record: TrainingRecord, tell: Tell, staging: Path) -> None:
        super().__init__()
        self._job = job
        self._record = replace(record, versions=_versions())
        self._tell = tell
        self._staging = staging
        self._curve = list(record.curve)
        self._told = 0.0
        self._written = 0

    def run(self, agent: Any) -> None:
        """Trains the agent to the end."""
        self._written = agent.num_timesteps
        agent.set_logger(Logger(None, [_CurveWriter(self._add)]))
        left = self._job.total_timesteps - agent.num_timesteps
        if left > 0:
            agent.learn(left, callback=self, reset_num_timesteps=False)
        if self._written < agent.num_timesteps:  # ARS ends between two updates
            self._publish(agent)

    def _on_step(self) -> bool:
        step, total = self.model.num_timesteps, self._job.total_timesteps
        due = (self._written // self._job.checkpoint_every + 1) * self._job.checkpoint_every
        if step >= min(due, total) and self._written < min(step, total):
            self._publish(self.model)
        if time.monotonic() - self._told > _TELL_S:
            self._told = time.monotonic()
            self._tell(Progress(step))
        return step < total

    def _add(self, mean_return: float | None, loss: float | None, step: int) -> None:
        if self._curve and (step - self._curve[-1].step) * _MOST_POINTS < self._job.total_timesteps:
            return
        point = CurvePoint(step, mean_return, loss)
        self._curve.append(point)
        self._tell(Progress(step, point))

    def _publish(self, agent: Any) -> None:
        step, folder = agent.num_timesteps, self._job.folder
        names = [model_name(step), statistics_name(step), buffer_name(step)]
        model, statistics, buffer = (self._staging / name for name in names)
        files = {model.name: model}
        if save_agent(agent, model, statistics):
            files[statistics.name] = statistics
        if self._job.keep_replay_buffer and getattr(agent, "replay_buffer", None) is not None:
            write_buffer(agent.replay_buffer, buffer)
            files[buffer.name] = buffer
        digest = sha256_of(model)
        publish_checkpoint(folder, files, step)
        self._written = step
        checkpoints = {**self._record.checkpoints, str(step): digest}
        self._record = replace(self._record, checkpoints=checkpoints, curve=list(self._curve))
        write_record(folder, self._record, self._staging)
        self._tell(CheckpointWritten(step))


class _CurveWriter(KVWriter):
    """Takes what the algorithm logs."""

    def __init__(self, add: Callable[[float | None, float | None, int], None]) -> None:
        self._add = add

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:  # noqa: ARG002 (Stable-Baselines3's signature)
        loss = next((float(key_values[name]) for name in _LOSSES if name in key_values), None)
        mean = key_values.get("rollout/ep_rew_mean")
        if mean is not None or loss is not None:
            self._add(_finite(mean), _finite(loss), step)

    def close(self) -> None:
        """Nothing is open."""


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None
