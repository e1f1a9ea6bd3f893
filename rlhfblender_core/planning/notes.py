"""What a person should know about a request that can be carried out."""

from collections.abc import Sequence

from rlhfblender_core.checkpoints.fetch import CheckpointRef
from rlhfblender_core.checkpoints.find import CheckpointFile
from rlhfblender_core.credentials import without_credentials
from rlhfblender_core.dataset.layout import FINAL
from rlhfblender_core.environments import EnvironmentDescription
from rlhfblender_core.registry import ExperimentRecord
from rlhfblender_core.rollout.agents import RandomAgent, RolloutAgent
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.wrappers.masks import MASK_METHOD

#: What a method's name has besides, where its mask is one of actions and not of pixels.
_OF_ACTIONS = ("action", "valid", "legal", "allowed", "avail")


def moved_notes(registered: ExperimentRecord | None, experiment: ExperimentRecord) -> tuple[str, ...]:
    """That an experiment's checkpoints lie elsewhere now."""
    if registered is None or registered.model_path in (None, experiment.model_path):
        return ()
    line = f"the model path of {experiment.name} is {experiment.model_path} now, it was {registered.model_path}"
    return (without_credentials(line),)  # registries of before may hold some


def mask_notes(
    agents: Sequence[RolloutAgent], options: RolloutOptions, description: EnvironmentDescription
) -> tuple[str, ...]:
    """That random actions are drawn from all, though the environment may say which are allowed."""
    methods = [name for name in description.mask_methods if any(word in name.lower() for word in _OF_ACTIONS)]
    if options.action_mask_method is not None or MASK_METHOD in methods or not methods:
        return ()
    if not any(isinstance(agent, RandomAgent) for agent in agents):
        return ()
    return (
        f"the random agent takes any action; {description.env_id} has {methods[0]}(): if that says which are allowed, "
        f"give --action-mask-method {methods[0]}",
    )


def statistics_notes(
    files: Sequence[CheckpointFile],
    refs: Sequence[CheckpointRef],
    found: Sequence[CheckpointFile],
    options: RolloutOptions,
) -> tuple[str, ...]:
    """That several checkpoints see observations normalised by one file of statistics, mostly saved at the end.

    Args:
        files: the chosen checkpoints.
        refs: what is in them.
        found: all checkpoints there are.
        options: of the rollouts.
    """
    if options.vecnormalize is not None:
        return ()
    urls = [file.companions.vecnormalize for file in found]
    shared = [
        (file.label, file.companions.vecnormalize)
        for file, ref in zip(files, refs, strict=True)
        if ref.vecnormalize and file.label != FINAL and urls.count(file.companions.vecnormalize) > 1
    ]
    if not shared or shared[0][1] is None:
        return ()
    name = shared[0][1].rpartition("/")[2]
    which = shared[0][0] if len(shared) == 1 else f"{shared[0][0]} to {shared[-1][0]}"
    return (
        f"observations of {which} are normalised by {name!r}, which other checkpoints share: it is of one moment of "
        "the training",
    )
