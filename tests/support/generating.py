"""Random episodes of the environment that counts, made by the library: without Prefect, which takes seconds to start.

Also a command, for tests that kill it: ``python tests/support/generating.py ROOT DATABASE_URL --episodes 8``.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.errors import DiskFullError, RLHFBlenderError, TransientError, one_line
from rlhfblender_core.generate import carry_out
from rlhfblender_core.locations import Locations, locate
from rlhfblender_core.planning.request import GenerationRequest, request_from_flags
from rlhfblender_core.planning.work import plan_work
from rlhfblender_core.steps import LocalSteps
from rlhfblender_core.storage import DataRoot

ENTRY_POINT = "tests.support.environments_for_tests.counting:Counting"
KEY = CheckpointKey("E", "random")


def request(episodes: int, *, length: int = 6, register_only: bool = False, **others: object) -> GenerationRequest:
    """What the driver asks for: random episodes of the environment that counts."""
    asked = {
        "env": "Counting-v0",
        "exp": KEY.experiment,
        "random": True,
        "num_episodes": episodes,
        "env_gym_entrypoint": ENTRY_POINT,
        "env_kwargs": {"length": length},
        "register_only": register_only,
    }
    return request_from_flags({**asked, **others})


def locations_of(root: DataRoot, database_url: str) -> Locations:
    """A data root and a registry that tests know apart."""
    scratch = Path(tempfile.gettempdir()) / "rlhfblender-tests"
    located = locate(root.url, database_url, root.options, state_folder=scratch / "state", cache=scratch / "cache")
    return replace(located, trusted_packages=frozenset({"tests"}))


def generate(root: DataRoot, database_url: str, asked: GenerationRequest, workers: int = 0) -> int:
    """Makes the episodes that are missing; says how many those were."""
    locations = locations_of(root, database_url)
    return carry_out(plan_work(asked, locations), LocalSteps(locations, workers)).made


def main() -> int:
    """The command; exit codes as the flow's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("database_url")
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--length", type=int, default=6)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--register-only", action="store_true")
    given = parser.parse_args()
    asked = request(given.episodes, length=given.length, register_only=given.register_only)
    try:
        if not given.register_only:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
        made = generate(DataRoot(given.root), given.database_url, asked, given.workers)
        sys.stdout.write(f"made {made}\n")
    except RLHFBlenderError as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        return 1 if isinstance(error, TransientError | DiskFullError) else 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
