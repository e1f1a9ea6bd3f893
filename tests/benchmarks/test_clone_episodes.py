"""What the benchmarks' clones are worth: nothing tells them from episodes that a run has made."""

from pathlib import Path

import rlhfblender_core
from benchmarks.clone_episodes import clone_episodes


def test_clones_are_finished_and_sound(tmp_path: Path) -> None:
    clone_episodes(tmp_path / "data", 7)
    cloned = clone_episodes(tmp_path / "data", 9, experiments=2)  # adds to what is there
    for experiment in cloned.experiments:
        data_set = rlhfblender_core.generate(**cloned.flags(experiment), data_root=str(cloned.root), workers=0)
        report = data_set.report
        assert report is not None
        assert (report.made, report.wanted) == (0, 9)
    verification = rlhfblender_core.verify(data_root=str(cloned.root))
    assert (verification.left, verification.episodes) == ((), 18)
