"""The wrappers that a settings file may name, and the classes that are used for them.

A name from a file is only ever looked up here. Targets are ``module:attribute``, imported when they are used.
"""

_OWN = "rlhfblender_core.wrappers"
_SB3_ATARI = "stable_baselines3.common.atari_wrappers"
#: Wrappers that only change rewards or write files: recorded rewards are the environment's own.
IDENTITY = ""

_ZOO = {
    "TimeFeatureWrapper": f"{_OWN}.zoo:TimeFeatureWrapper",
    "HistoryWrapper": f"{_OWN}.zoo:HistoryWrapper",
    "HistoryWrapperObsDict": f"{_OWN}.zoo:HistoryWrapperObsDict",
    "MaskVelocityWrapper": f"{_OWN}.zoo:MaskVelocityWrapper",
    "ActionNoiseWrapper": f"{_OWN}.zoo:ActionNoiseWrapper",
    "ActionSmoothingWrapper": f"{_OWN}.zoo:ActionSmoothingWrapper",
    "FrameSkip": f"{_OWN}.zoo:FrameSkip",
    "YAMLCompatResizeObservation": f"{_OWN}.images:ResizeObservation",
    "DelayedRewardWrapper": IDENTITY,
}

_SB3 = {
    # As a whole, so that an episode is a game and not a life.
    "AtariWrapper": f"{_OWN}.atari:atari_wrapper",
    "EpisodicLifeEnv": f"{_OWN}.atari:ContinueAfterLifeLoss",
    "NoopResetEnv": f"{_SB3_ATARI}:NoopResetEnv",
    "FireResetEnv": f"{_SB3_ATARI}:FireResetEnv",
    "MaxAndSkipEnv": f"{_SB3_ATARI}:MaxAndSkipEnv",
    "StickyActionEnv": f"{_SB3_ATARI}:StickyActionEnv",
    "WarpFrame": f"{_SB3_ATARI}:WarpFrame",
    "ClipRewardEnv": IDENTITY,
}

#: Gymnasium's wrappers that change what is observed or done and need no state of a training run.
_GYMNASIUM = (
    "AddRenderObservation", "AtariPreprocessing", "ClipAction", "DelayObservation", "DtypeObservation",
    "FilterObservation", "FlattenObservation", "FrameStackObservation", "GrayscaleObservation",
    "MaxAndSkipObservation", "RepeatAction", "RescaleAction", "RescaleObservation", "ReshapeObservation",
    "ResizeObservation", "StickyAction", "TimeAwareObservation", "TimeLimit",
)  # fmt: skip

#: Where Gymnasium defines them: RL Zoo names GrayscaleObservation by its module.
_GYMNASIUM_MODULES = (
    "atari_preprocessing.", "common.", "stateful_action.", "stateful_observation.", "transform_action.",
    "transform_observation.",
)  # fmt: skip

#: Classes of gym's time: (module of gym.wrappers, name) and what they are now.
_GYM = {
    ("resize_observation", "ResizeObservation"): f"{_OWN}.images:ResizeObservation",
    ("gray_scale_observation", "GrayScaleObservation"): f"{_OWN}.images:GrayScaleObservation",
    ("flatten_observation", "FlattenObservation"): "gymnasium.wrappers:FlattenObservation",
    ("filter_observation", "FilterObservation"): "gymnasium.wrappers:FilterObservation",
    ("clip_action", "ClipAction"): "gymnasium.wrappers:ClipAction",
    ("rescale_action", "RescaleAction"): "gymnasium.wrappers:RescaleAction",
    ("time_aware_observation", "TimeAwareObservation"): "gymnasium.wrappers:TimeAwareObservation",
    ("time_limit", "TimeLimit"): "gymnasium.wrappers:TimeLimit",
}

_MINIGRID = (
    "DictObservationSpaceWrapper", "FlatObsWrapper", "FullyObsWrapper", "ImgObsWrapper", "OneHotPartialObsWrapper",
    "RGBImgObsWrapper", "RGBImgPartialObsWrapper", "ReseedWrapper", "SymbolicObsWrapper", "ViewSizeWrapper",
)  # fmt: skip


def _table() -> dict[str, str]:
    table: dict[str, str] = {}
    for prefix in ("rl_zoo3.wrappers", "utils.wrappers", "sb3_contrib.common.wrappers"):
        table |= {f"{prefix}.{name}": target for name, target in _ZOO.items()}
    table["sb3_contrib.common.wrappers.time_feature.TimeFeatureWrapper"] = _ZOO["TimeFeatureWrapper"]
    table |= {f"{_SB3_ATARI}.{name}": target for name, target in _SB3.items()}
    for module in ("sb3_contrib.common.wrappers", "sb3_contrib.common.wrappers.action_masker"):
        table[f"{module}.ActionMasker"] = f"{_OWN}.masks:ActionMasker"
    table["stable_baselines3.common.monitor.Monitor"] = IDENTITY
    for module in ("", *_GYMNASIUM_MODULES):
        table |= {f"gymnasium.wrappers.{module}{name}": f"gymnasium.wrappers:{name}" for name in _GYMNASIUM}
    for (module, name), target in _GYM.items():
        table |= {f"gym.wrappers.{name}": target, f"gym.wrappers.{module}.{name}": target}
        table.setdefault(f"gymnasium.wrappers.{name}", target)
        table[f"gymnasium.wrappers.{module}.{name}"] = target
    for name in _MINIGRID:
        table |= {f"{old}.wrappers.{name}": f"minigrid.wrappers:{name}" for old in ("minigrid", "gym_minigrid")}
    # gym_minigrid knew no commas in missions: its one-hot text is 96 entries shorter.
    table["gym_minigrid.wrappers.FlatObsWrapper"] = f"{_OWN}.zoo:OldFlatObsWrapper"
    return table


#: Dotted name in a file -> ``module:attribute``, or :data:`IDENTITY`.
WRAPPERS: dict[str, str] = _table()

#: The same for training, where an Atari episode is a life and rewards are what the agent learns from.
TRAINING_WRAPPERS: dict[str, str] = (
    WRAPPERS
    | {f"{_SB3_ATARI}.{name}": f"{_SB3_ATARI}:{name}" for name in ("AtariWrapper", "EpisodicLifeEnv", "ClipRewardEnv")}
    | {"rl_zoo3.wrappers.DelayedRewardWrapper": "rl_zoo3.wrappers:DelayedRewardWrapper"}
)
