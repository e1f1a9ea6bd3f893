"""Runs that are under way, or died, as others see them in the registry."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.registry import open_registry
from rlhfblender_core.runs.claims import RunClaims, open_claims
from rlhfblender_core.runs.folders import open_run
from rlhfblender_core.storage import DataRoot

_KILLED = """
import os, sys
from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.runs.claims import open_claims
from rlhfblender_core.runs.folders import open_run
from rlhfblender_core.storage import open_data_root
root, url, experiment, checkpoint, *numbers = sys.argv[1:]
asked = {checkpoint: "a request"}
with open_run(open_data_root(root)) as run, open_claims(url, run.folder, experiment, asked) as claims:
    claims.claim(CheckpointKey(experiment, checkpoint), [int(number) for number in numbers])
    os.kill(os.getpid(), 9)
"""


@contextlib.contextmanager
def under_way(
    root: DataRoot, database_url: str, experiment: str, digest: str = "a request", checkpoint: str = "random"
) -> Iterator[RunClaims]:
    """A run of this process that makes a checkpoint's episodes."""
    open_registry(database_url).close()
    with open_run(root) as run, open_claims(database_url, run.folder, experiment, {checkpoint: digest}) as claims:
        yield claims


def claim_and_die(root: DataRoot, database_url: str, key: CheckpointKey, numbers: Sequence[int]) -> None:
    """Claims episodes in another process, which is killed."""
    arguments = [root.url, database_url, key.experiment, key.checkpoint, *map(str, numbers)]
    subprocess.run([sys.executable, "-c", _KILLED, *arguments], check=False)
