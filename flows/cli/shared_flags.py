"""Flags that several flows take: their type and what ``--help`` and a deployment's form say of them."""

from typing import Annotated, Any

from pydantic import Field

from flows.cli.next_commands import note_flag
from flows.cli.secret_parameters import Noted
from rlhfblender_core.credentials import without_credentials
from rlhfblender_core.registry import DEFAULT_PROJECT


def _keep(data_root: str) -> str:
    note_flag("--data-root", without_credentials(data_root))
    return data_root


DataRoot = Annotated[
    str | None,
    Field(description="folder or fsspec URL (default RLHFBLENDER_DATA_ROOT, else data)"),
    Noted(_keep),
]
RegisteredEnv = Annotated[
    str | None, Field(description="Gymnasium id, e.g. CartPole-v1; left out with a registered experiment")
]
Project = Annotated[str, Field(description=f"project (default {DEFAULT_PROJECT})")]
NumEpisodes = Annotated[
    int | None,
    Field(ge=1, description="episodes per checkpoint (default as many as the experiment has, 10 of a new one)"),
]

EnvGymEntrypoint = Annotated[
    str | None, Field(description="module:Class of a custom environment, registered as that id")
]
AdditionalGymPackages = Annotated[list[str], Field(description="packages to import before the environment is made")]
EnvDisplayName = Annotated[str | None, Field(description="how people call the environment")]
EnvDescription = Annotated[str | None, Field(description="a sentence about the environment")]
EnvKwargs = Annotated[
    dict[str, Any],
    Field(
        description="keyword arguments of the environment, e.g. max_episode_steps:1000 "
        '(in a form {"max_episode_steps": 1000})'
    ),
]
ActionNames = Annotated[list[str] | None, Field(description="labels of the actions")]

Fps = Annotated[
    float | None,
    Field(gt=0, le=1000, description="frames per second of videos (default the environment's, else 30)"),
]
NoRender = Annotated[bool | None, Field(description="no videos and no thumbnails")]
