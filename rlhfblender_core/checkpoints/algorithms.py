"""Which algorithm trained a model, from the names of what its zip holds."""

from collections.abc import Container
from enum import StrEnum

from rlhfblender_core.errors import InvalidParameterError


class Algorithm(StrEnum):
    """Stable-Baselines3's and sb3-contrib's algorithms, by the names of their classes.

    Attributes:
        policy: the class below :mod:`rlhfblender_core.policies` that acts as its policies do.
        family: name of the algorithm that stands for all whose policies are used in the same way.
        is_contrib: whether its class is in sb3-contrib.
    """

    policy: str
    family: str
    is_contrib: bool

    def __new__(cls, name: str, policy: str, family: str = "", is_contrib: bool = False) -> "Algorithm":  # noqa: FBT001, FBT002 (a table)
        """A row of the table."""
        row = str.__new__(cls, name)
        row._value_, row.policy, row.family, row.is_contrib = name, policy, family or name, is_contrib
        return row

    A2C = "A2C", "actor_critic.ActorCriticPolicy", "PPO"
    ARS = "ARS", "continuous.BareActionPolicy", "", True
    CROSSQ = "CrossQ", "continuous.SquashedGaussianPolicy", "", True
    DDPG = "DDPG", "continuous.DeterministicActorPolicy", "TD3"
    DQN = "DQN", "q_learning.QPolicy"
    MASKABLE_PPO = "MaskablePPO", "actor_critic.MaskableActorCriticPolicy", "PPO", True
    PPO = "PPO", "actor_critic.ActorCriticPolicy"
    QRDQN = "QRDQN", "q_learning.QuantilePolicy", "", True
    RECURRENT_PPO = "RecurrentPPO", "actor_critic.RecurrentActorCriticPolicy", "", True
    SAC = "SAC", "continuous.SquashedGaussianPolicy"
    TD3 = "TD3", "continuous.DeterministicActorPolicy"
    TQC = "TQC", "continuous.QuantileCriticPolicy", "", True
    TRPO = "TRPO", "actor_critic.ActorCriticPolicy", "PPO", True


#: RL Zoo's names where they are more than another spelling.
_ALIASES = {"ppolstm": Algorithm.RECURRENT_PPO, "ppomask": Algorithm.MASKABLE_PPO}


def parse_algorithm(name: str) -> Algorithm:
    """The algorithm of that name, in Stable-Baselines3's or RL Zoo's spelling: ``QR-DQN``, ``qrdqn``, ``ppo_lstm``.

    Raises:
        InvalidParameterError: there is none.
    """
    plain = "".join(char for char in name.lower() if char.isalnum())
    found = {algorithm.lower(): algorithm for algorithm in Algorithm} | _ALIASES
    if plain not in found:
        raise InvalidParameterError(f"Unknown algorithm {name[:40]!r}. Use one of {', '.join(sorted(Algorithm))}.")
    return found[plain]


def recognised_algorithm(  # noqa: PLR0911 - a decision list
    keys: Container[str], policy_class: str, *, single_critic: bool, delay: int | None
) -> Algorithm | None:
    """The algorithm whose models have these entries, None if no algorithm has; the first match decides.

    Args:
        keys: of the zip's ``data``.
        policy_class: dotted name of the policy's class, "" where it isn't known.
        single_critic: whether ``policy_kwargs`` says ``n_critics=1``.
        delay: the entry ``policy_delay``, None where there is none.
    """
    if "n_delta" in keys:
        return Algorithm.ARS
    if "cg_max_steps" in keys:
        return Algorithm.TRPO
    if "top_quantiles_to_drop_per_net" in keys:
        return Algorithm.TQC
    if "exploration_fraction" in keys:
        quantiles = "n_quantiles" in keys or policy_class.startswith("sb3_contrib.qrdqn.")
        return Algorithm.QRDQN if quantiles else Algorithm.DQN
    if "target_policy_noise" in keys:
        return Algorithm.DDPG if delay == 1 and single_critic else Algorithm.TD3
    if "target_entropy" in keys or "ent_coef_optimizer" in keys:
        crossed = delay is not None or policy_class.startswith("sb3_contrib.crossq.")
        return Algorithm.CROSSQ if crossed else Algorithm.SAC
    return _on_policy(keys, policy_class.lower())


def _on_policy(keys: Container[str], policy_class: str) -> Algorithm | None:
    if "n_epochs" in keys and "clip_range" in keys:
        if "_last_lstm_states" in keys or "recurrent" in policy_class:
            return Algorithm.RECURRENT_PPO
        return Algorithm.MASKABLE_PPO if "mask" in policy_class else Algorithm.PPO
    return Algorithm.A2C if "gae_lambda" in keys and "n_steps" in keys else None
