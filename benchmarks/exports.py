"""Growth of exports: processor seconds and peak memory of exporting, exporting again, and after ten more episodes.

    python benchmarks/exports.py --sizes 1000 10000 [--to rlhfblender hdf5 …]

Each step is a process of its own; a ratio of the last size to the first follows. Episodes are clones.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script


def processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(data: str, out: str, to: str) -> None:
    """Exports, and prints what that took."""
    from rlhfblender_core.export.run import export

    before = processor_seconds()
    report = export(out, to=to, data_root=data)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    made = sum(checkpoint.made for checkpoint in report.checkpoints)
    print(json.dumps({"made": made, "cpu_s": round(processor_seconds() - before, 2), "peak_mb": round(peak)}))


def grow(size: int, to: str, folder: Path) -> dict[str, dict[str, float]]:
    """What the steps took with so many episodes."""
    from benchmarks.clone_episodes import clone_episodes

    found = {}
    for step, episodes in (("export", size), ("again", size), ("ten more", size + 10)):
        clone_episodes(folder / f"{size}" / "data", episodes)
        arguments = ["--measure", str(folder / f"{size}" / "data"), str(folder / f"{size}" / to), to]
        done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
        found[step] = json.loads(done.stdout)
        print(f"{to:12} {size:>8,} {step:9} {found[step]}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs=2, default=(1000, 10_000))
    parser.add_argument("--to", nargs="+", default=["rlhfblender"])
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        for to in arguments.to:
            small, large = (grow(size, to, Path(folder) / to) for size in arguments.sizes)
            for step in small:
                ratios = {name: large[step][name] / max(0.1, small[step][name]) for name in ("cpu_s", "peak_mb")}
                print(f"{to:12} {step:9} " + ", ".join(f"{name} × {ratio:.1f}" for name, ratio in ratios.items()))


if __name__ == "__main__":
    main()
