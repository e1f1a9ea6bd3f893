"""Growth of the gallery: processor seconds and peak memory of writing it, again, and after ten more episodes.

    python benchmarks/gallery.py --sizes 1000 10000 [--data-root FOLDER]

Each step is a process of its own; a ratio of the last size to the one before follows. Episodes are clones, one data set
that grows; with ``--data-root`` it is kept.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script


def measure(data: str) -> None:
    """Writes the gallery, and prints what that took."""
    from rlhfblender_core.gallery.write import gallery

    started = resource.getrusage(resource.RUSAGE_SELF)
    report = gallery(data_root=data)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime - started.ru_utime - started.ru_stime
    print(json.dumps({"cpu_s": round(seconds, 2), "peak_mb": peak_mb(), "pieces": report.pieces_written}))


def peak_mb() -> int:
    """Of this process: what ``getrusage`` tells holds what its parent had when it was forked."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return round(int(status["VmHWM"].split()[0]) / 1024)


def grow(size: int, data: Path) -> dict[str, dict[str, float]]:
    """What the steps took with so many episodes."""
    from benchmarks.clone_episodes import clone_episodes

    found = {}
    for step, episodes in (("written", size), ("again", size), ("ten more", size + 10)):
        clone_episodes(data, episodes)
        command = [sys.executable, __file__, "--measure", str(data)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[step] = json.loads(done.stdout)
        print(f"{size:>8,} {step:9} {found[step]}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=(1000, 10_000))
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        data = (arguments.data_root or Path(folder) / "data").absolute()
        *_, small, large = (grow(size, data) for size in arguments.sizes)
        for step in small:
            ratios = {name: large[step][name] / max(0.1, small[step][name]) for name in ("cpu_s", "peak_mb")}
            print(f"{step:9} " + ", ".join(f"{name} × {ratio:.1f}" for name, ratio in ratios.items()))


if __name__ == "__main__":
    main()
