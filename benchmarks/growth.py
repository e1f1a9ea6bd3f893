"""What work on a finished data set costs at two sizes: processor seconds and peak memory of whole commands, and ratios.

    python benchmarks/growth.py [--sizes 1000 10000] [--no-render] [--data FOLDER]

Episodes are clones. Each step is a command as a user gives it, with all processes that it starts, Prefect's temporary
server among them; its peak is that of its largest process.
"""

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
FLOWS = HERE.parent / "flows"
sys.path.insert(0, str(HERE.parent))  # run as a script

#: ``prctl(PR_SET_CHILD_SUBREAPER, 1)``: what a command leaves behind becomes this process's child, and is counted.
_SUBREAPER = 36
_MORE = 10


def measure(command: list[str]) -> None:
    """Runs the command, and prints what it took."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    try:
        while True:
            os.wait()
    except ChildProcessError:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({"cpu_s": round(used.ru_utime + used.ru_stime, 2), "peak_mb": round(used.ru_maxrss / 1024)}))


def steps(data: Path, size: int, *, render: bool) -> Iterator[tuple[str, list[str]]]:
    """Names and commands, in their order; the data root has so many episodes before, and afterwards."""
    from benchmarks.clone_episodes import clone_episodes

    cloned = clone_episodes(data, size, render=render)
    name, at = cloned.experiments[0], ["--data-root", str(data)]
    generate = [str(FLOWS / "generate.py"), *cloned.command(name)]
    yield "re-run", generate
    yield "ten more", [*generate, "--num-episodes", str(size + _MORE)]
    yield "verify --quick", [str(FLOWS / "verify.py"), *at, "--quick"]
    for to in ("rlhfblender", "hdf5"):
        export = [str(FLOWS / "export.py"), *at, "--to", to, str(data.with_name(f"{data.name}-{to}"))]
        yield f"export {to}", export
        yield f"export {to} again", export
    yield "gallery", [str(FLOWS / "gallery.py"), *at]
    yield "gallery again", [str(FLOWS / "gallery.py"), *at]
    delete = [str(FLOWS / "delete.py"), *at, "--exp", name, "--episodes", f"{size}-{size + _MORE - 1}", "--yes"]
    yield "delete ten", delete


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs=2, default=(1000, 10_000))
    parser.add_argument("--no-render", action="store_true", help="no videos and no thumbnails")
    parser.add_argument("--only", nargs="+", help="beginnings of the names of steps")
    parser.add_argument("--data", type=Path, help="where clones are kept for another time (default: nowhere)")
    parser.add_argument("--measure", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.data or Path(temporary)
        found: dict[str, list[dict[str, float]]] = {}
        for size in arguments.sizes:
            for name, command in steps(folder / f"n{size}", size, render=not arguments.no_render):
                if arguments.only and not name.startswith(tuple(arguments.only)):
                    continue
                own = [sys.executable, __file__, "--measure", sys.executable, *command]
                took = json.loads(subprocess.run(own, check=True, stdout=subprocess.PIPE, text=True).stdout)
                found.setdefault(name, []).append(took)
                print(f"{size:>9,} {name:26} {took['cpu_s']:8.1f} s {took['peak_mb']:6,.0f} MB", flush=True)
    for name, (small, large) in found.items():
        ratios = " · ".join(f"{what} × {large[what] / small[what]:.2f}" for what in small)
        print(f"{name:36} ratio {ratios}")


if __name__ == "__main__":
    main()
