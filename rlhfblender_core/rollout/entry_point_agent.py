"""An agent that a user's own code makes: ``--agent package.module:factory``."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym

from rlhfblender_core.dataset.manifests import PolicyRecord, canonical_digest
from rlhfblender_core.environments.packages import import_module
from rlhfblender_core.errors import CheckpointNotUsableError, InvalidParameterError, RLHFBlenderError, one_line
from rlhfblender_core.policies.own_agent import OwnPolicy, make_own_agent
from rlhfblender_core.policies.protocol import Policy
from rlhfblender_core.rollout.code_identity import code_digest, content_of
from rlhfblender_core.rollout.episode import RawRecorder, Stage
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.wording import did_you_mean
from rlhfblender_core.wrappers.masks import ActionMasks

#: Frameworks whose versions belong into the manifests, where the agent has imported them.
_FRAMEWORKS = ("torch", "jax", "flax", "tensorflow", "onnxruntime", "stable_baselines3")
_FLAG = "--agent"
#: What a factory may carry to say what its agents are; else their code and files are.
_VERSION = "version"


@dataclass(frozen=True)
class EntryPointAgent:
    """What a user's factory makes. The user's code runs where it acts; only the user's own flag names it.

    Attributes:
        entry_point: ``package.module:factory``.
        kwargs: for the factory.
        sha256: over what the agent is: what the factory's ``version`` says, else the code and the named files.
        distributions: Python packages whose versions belong into the manifests.
    """

    entry_point: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    distributions: tuple[str, ...] = ()

    label = "agent"
    step = None
    is_trained = True
    takes_masks = False
    advice = "Check its code against the environment's observations and actions; --verbose shows where it raised."

    @property
    def algorithm(self) -> str:
        """See :class:`~rlhfblender_core.rollout.agents.RolloutAgent`."""
        return self.entry_point

    @property
    def env_kwargs(self) -> Mapping[str, Any]:
        """See :class:`~rlhfblender_core.rollout.agents.RolloutAgent`."""
        return {}

    def identity(self) -> dict[str, Any]:
        """See :class:`~rlhfblender_core.rollout.agents.RolloutAgent`."""
        return {"entry_point": self.entry_point, "sha256": self.sha256}

    def policy_record(self, options: RolloutOptions) -> PolicyRecord:
        """See :class:`~rlhfblender_core.rollout.agents.RolloutAgent`."""
        return PolicyRecord(
            kind="agent",
            algorithm=self.entry_point,
            checkpoint_sha256=self.sha256,
            deterministic=options.deterministic,
        )

    def wrap(self, recorder: RawRecorder) -> gym.Env[Any, Any]:
        """See :class:`~rlhfblender_core.rollout.agents.RolloutAgent`."""
        return recorder

    def action_masks(self, env: gym.Env[Any, Any], options: RolloutOptions) -> ActionMasks | None:  # noqa: ARG002 (part of the protocol)
        """Nothing: the agent sees what it needs."""
        return None

    def make_policy(self, stage: Stage, options: RolloutOptions) -> Policy:
        """See :class:`~rlhfblender_core.rollout.agents.RolloutAgent`."""
        env_spaces = {"observation_space": stage.observation_space, "action_space": stage.action_space}
        target = load_agent_factory(self.entry_point)
        make = partial(make_own_agent, target, self.entry_point, self.kwargs, env_spaces)
        try:
            return OwnPolicy(make, stage.action_space, self.entry_point, deterministic=options.deterministic)
        except RLHFBlenderError:
            raise
        except (Exception, SystemExit) as error:
            raise CheckpointNotUsableError(f"{_FLAG} {self.entry_point} fails: {one_line(error)}") from error

    def __str__(self) -> str:
        return f"the agent {self.entry_point}"


def entry_point_agent(entry_point: str, kwargs: Mapping[str, Any]) -> EntryPointAgent:
    """The agent of that name; its module is imported.

    Args:
        entry_point: ``package.module:factory``.
        kwargs: for the factory.

    Raises:
        RequestError: there is no such module or factory, or it can't be imported.
    """
    target = load_agent_factory(entry_point)
    version = getattr(target, _VERSION, None)
    is_said = isinstance(version, str | int | float)
    what = {"version": version} if is_said else {"code": code_digest(entry_point.partition(":")[0])}
    sha256 = canonical_digest({**what, "kwargs": content_of(kwargs)})
    distributions = tuple(name.replace("_", "-") for name in _FRAMEWORKS if name in sys.modules)
    return EntryPointAgent(entry_point, dict(kwargs), sha256, distributions)


def load_agent_factory(entry_point: str) -> Any:
    """What the entry point names: a function or a class.

    Raises:
        RequestError: it isn't written ``module:name``, can't be imported, or isn't callable.
    """
    module_name, colon, attribute = entry_point.partition(":")
    names = [*module_name.replace("-", "_").split("."), attribute]  # a hyphen is explained where it is imported
    if not (colon and all(name.isidentifier() for name in names)):
        raise InvalidParameterError(
            f"{_FLAG} is written module:factory, not {entry_point!r}. Example: my_package.agents:make"
        )
    module = import_module(module_name, _FLAG)
    target = getattr(module, attribute, None)
    if not callable(target):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise InvalidParameterError(
            f"The module {module_name!r} has no function or class {attribute!r} ({_FLAG}). "
            f"{did_you_mean(attribute, known)}"
        )
    return target
