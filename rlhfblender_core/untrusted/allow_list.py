"""The names that a pickle in a checkpoint may use, and what stands for each: exact (module, name) pairs.

Found by going through 174 models of others and freshly trained ones of every algorithm.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from rlhfblender_core.untrusted.placeholders import (
    ENCODED_BYTES,
    ORDERED_DICT,
    SET,
    Array,
    BufferArray,
    Dtype,
    Placeholder,
    Scalar,
    Unresolved,
)

Name = tuple[str, str]

_SPACES = ("Box", "Discrete", "Dict", "MultiDiscrete", "MultiBinary", "Tuple")
_SPACE_MODULES = {
    "Box": "box",
    "Discrete": "discrete",
    "Dict": "dict",
    "MultiDiscrete": "multi_discrete",
    "MultiBinary": "multi_binary",
    "Tuple": "tuple",
}

#: Activation functions and the like: classes that ``policy_kwargs`` may name, resolved from this table by their name.
ACTIVATIONS: frozenset[Name] = frozenset(
    ("torch.nn.modules.activation", name)
    for name in (
        "CELU", "ELU", "GELU", "GLU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid",
        "Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softshrink", "Softsign",
        "Tanh", "Tanhshrink",
    )
) | {("torch.nn.modules.linear", "Identity")}  # fmt: skip

EXTRACTORS: frozenset[Name] = frozenset(
    ("stable_baselines3.common.torch_layers", name) for name in ("CombinedExtractor", "FlattenExtractor", "NatureCNN")
)


def _policies() -> Iterable[Name]:  # noqa: C901 - a list, written shorter
    actor_critic = ("ActorCriticPolicy", "ActorCriticCnnPolicy", "MultiInputActorCriticPolicy")
    aliases = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy")
    for name in actor_critic:
        yield "stable_baselines3.common.policies", name
    for algorithm in ("a2c", "ppo", "dqn", "sac", "td3", "ddpg"):
        own = {"dqn": "DQNPolicy", "sac": "SACPolicy", "td3": "TD3Policy"}.get(algorithm)
        for name in (*aliases, *([own] if own else [])):
            yield f"stable_baselines3.{algorithm}.policies", name
    for algorithm, own in (("tqc", "TQCPolicy"), ("qrdqn", "QRDQNPolicy"), ("crossq", "CrossQPolicy")):
        for name in (*aliases, own):
            yield f"sb3_contrib.{algorithm}.policies", name
    for name in ("ARSPolicy", "ARSLinearPolicy", "MlpPolicy", "LinearPolicy"):
        yield "sb3_contrib.ars.policies", name
    for algorithm in ("trpo", "ppo_mask", "ppo_recurrent"):
        for name in aliases:
            yield f"sb3_contrib.{algorithm}.policies", name
    for name in ("MaskableActorCriticPolicy", "MaskableActorCriticCnnPolicy", "MaskableMultiInputActorCriticPolicy"):
        yield "sb3_contrib.common.maskable.policies", name
    for name in ("RecurrentActorCriticPolicy", "RecurrentActorCriticCnnPolicy", "RecurrentMultiInputActorCriticPolicy"):
        yield "sb3_contrib.common.recurrent.policies", name


POLICIES: frozenset[Name] = frozenset(_policies())

_OPTIMIZERS = frozenset(
    (f"torch.optim.{name.lower()}", name)
    for name in ("Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD")
) | {("stable_baselines3.common.sb2_compat.rmsprop_tf_like", "RMSpropTFLike")}

_RANDOM = frozenset(
    {
        ("numpy.random._pickle", "__randomstate_ctor"),
        ("numpy.random._pickle", "__generator_ctor"),
        ("numpy.random._pickle", "__bit_generator_ctor"),
        ("numpy.random._pcg64", "PCG64"),
        ("numpy.random._mt19937", "MT19937"),
        ("numpy.random.bit_generator", "SeedSequence"),
        ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"),
        # gym's own generator, a subclass of numpy's.
        ("gym.utils.seeding", "RandomNumberGenerator"),
        ("gym.utils.seeding", "RandomNumberGenerator._generator_ctor"),
    }
)

SPACE_NAMES: frozenset[Name] = frozenset(
    (f"{package}.spaces.{_SPACE_MODULES[name]}", name) for package in ("gym", "gymnasium") for name in _SPACES
)

_VECNORMALIZE = frozenset(
    {
        ("stable_baselines3.common.vec_env.vec_normalize", "VecNormalize"),
        ("stable_baselines3.common.running_mean_std", "RunningMeanStd"),
    }
)

_INERT = (
    ACTIVATIONS | EXTRACTORS | POLICIES | _OPTIMIZERS | _RANDOM | SPACE_NAMES | _VECNORMALIZE
    | {("torch", "device"), ("numpy", "ndarray")}
)  # fmt: skip


def placeholder(name: Name, base: type[Placeholder] = Placeholder) -> type[Placeholder]:
    """A new class that stands for the named one and does nothing."""
    made: type[Placeholder] = type(name[1] or "unnamed", (base,), {"origin": name, "__slots__": ()})
    return made


#: Read only: it is shared by all that is ever read.
ALLOWED: Mapping[Name, Any] = MappingProxyType(
    {
        **{name: placeholder(name) for name in _INERT},
        ("numpy", "dtype"): placeholder(("numpy", "dtype"), Dtype),
        **{
            (f"numpy.{core}.{module}", name): placeholder((f"numpy.{core}.{module}", name), base)
            for core in ("core", "_core")
            for module, name, base in (
                ("multiarray", "_reconstruct", Array),
                ("multiarray", "scalar", Scalar),
                ("numeric", "_frombuffer", BufferArray),
            )
        },
        ("_codecs", "encode"): ENCODED_BYTES,
        ("collections", "OrderedDict"): ORDERED_DICT,
        ("builtins", "set"): SET,
    }
)


def unresolved(name: Name) -> type[Placeholder]:
    """What stands for a name that isn't on the list: using it raises, naming it doesn't."""
    return placeholder(name, Unresolved)
