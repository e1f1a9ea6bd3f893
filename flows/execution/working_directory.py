"""Where a worker's runs start: the pull step of the deployments."""

import os
from pathlib import Path


def enter_project_folder() -> dict[str, str]:
    """Makes relative paths mean what they mean on the command line: they start at the project's folder.

    A worker starts each run in a temporary folder, where data would be lost. The folder differs from machine to
    machine, so it is found by each worker. Where the project is installed without its folder (in a container) it is
    the user's home.

    Returns:
        What Prefect expects of a pull step: the folder as ``directory``.
    """
    checkout = Path(__file__).resolve().parents[2]
    folder = checkout if (checkout / "pyproject.toml").is_file() else Path.home()
    os.chdir(folder)
    return {"directory": str(folder)}
