"""Names as RLHF-Blender's server builds them: of environments, folders and files. Only its layout is named here."""

import re
from collections.abc import Collection

from rlhfblender_core.names import path_segment

DATABASE = "rlhfblender.db"
DATA = "data"
RENDERS, THUMBNAILS, REWARDS, UNCERTAINTY, EPISODES = "renders", "thumbnails", "rewards", "uncertainty", "episodes"
ACTION_LABELS = "action_labels"
ENV_STATES, INITIAL_STATES = "env_states", "initial_states"


def environment_name(env_id: str, taken: Collection[str] = ()) -> str:
    """The ``env_name`` of an environment: no ``_``, at which the UI splits ids, and no ``/`` but in Atari's ids.

    Args:
        env_id: the registration id.
        taken: names of other environments; theirs and this one's folders differ.
    """
    plain = env_id.replace("_", "-") if env_id.startswith("ALE/") else re.sub("[/_]", "-", env_id)
    folders = {server_path(name) for name in taken}
    name, number = plain, 1
    while server_path(name) in folders:
        number += 1
        name = f"{plain}-{number}"
    return name


def server_path(name: str) -> str:
    """The server's ``process_env_name``: ``ALE/Pong-v5`` is the folder ``ALE-Pong-v5``."""
    return name.replace("/", "-") if "ALE" in name else name


def episode_folder(env_name: str, experiment_id: int, checkpoint: int) -> str:
    """``<env>/<env>_<id>_<checkpoint>``, below each kind's folder."""
    name = server_path(env_name)
    return f"{name}/{name}_{experiment_id}_{checkpoint}"


def projection_folder(env_id: str, experiment_id: int, checkpoint: int) -> str:
    """Where the server of 2026 looks for the arrays that it projects: built from the registration id."""
    name = re.sub("[/:]", "_", env_id)
    return f"{name}/{name}_{experiment_id}_{checkpoint}"


def states_folder(env_id: str, experiment_id: int, checkpoint: int) -> str:
    """Where the server of 2026 looks for states: the registration id as it stands, slashes included."""
    return f"{env_id}/{env_id}_{experiment_id}_{checkpoint}"


def initial_state_file(env_id: str, experiment_id: int) -> str:
    """The state that the server's own recorder begins all episodes of an experiment with, below the export."""
    return f"{DATA}/{INITIAL_STATES}/{server_path(env_id)}_{experiment_id}_initial_state.pkl"


def action_label_folder(env_name: str) -> str:
    """The folder of an environment's action pictures, below the export."""
    return f"{DATA}/{ACTION_LABELS}/{server_path(env_name)}"


def action_label_file(index: int, count: int, label: str) -> str:
    """``0_left.png``: the server lists the folder, so the order is in the name."""
    return f"{index:0{len(str(count - 1))}}_{path_segment(label, 'action label')}.png"
