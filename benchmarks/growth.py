"""What work on a finished data set costs as it grows: processor seconds and peak memory at two sizes, and ratios.

    python benchmarks/growth.py [--episodes 1000 10000] [--checkpoints 100 400] [--experiments 75 300]
        [--to hdf5 rlhfblender] [--no-render] [--commands] [--only re-run gallery] [--data FOLDER]

Data sets are clones: of one checkpoint with so many episodes, of so many checkpoints with 4 episodes each, of so many
experiments with 2 each; a size of 0 leaves one out. Each step is a fresh process that calls the library, or with
``--commands`` a command as a user gives it, with Prefect and its temporary server. All processes that it starts are
counted; its peak is that of its largest process.
"""

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FLOWS = HERE.parent / "flows"
sys.path.insert(0, str(HERE.parent))  # run as a script

#: ``prctl(PR_SET_CHILD_SUBREAPER, 1)``: what a command leaves behind becomes this process's child, and is counted.
_SUBREAPER = 36
_MORE = 10

#: A step's name, the library's function and its arguments.
Step = tuple[str, str, Mapping[str, Any]]


def of_episodes(data: Path, size: int, formats: Sequence[str], *, render: bool) -> Iterator[Step]:
    """Steps on one checkpoint; the data set has so many episodes before, and afterwards."""
    from benchmarks.clone_episodes import clone_episodes

    cloned = clone_episodes(data, size, render=render)
    name, at = cloned.experiments[0], {"data_root": str(data)}
    exports = {to: {**at, "to": to, "out": str(data.with_name(f"{data.name}-{to}"))} for to in formats}
    yield "re-run", "generate", cloned.flags(name) | at
    for to, export in exports.items():
        yield f"export {to}", "export", export
        yield f"export {to} again", "export", export
    yield "gallery", "gallery", at
    yield "gallery again", "gallery", at
    yield "ten more", "generate", cloned.flags(name) | at | {"num_episodes": size + _MORE}
    for to, export in exports.items():
        yield f"export {to} after ten more", "export", export
    yield "gallery after ten more", "gallery", at
    yield "verify --quick", "verify", at | {"quick": True}
    yield "delete ten", "delete", at | {"exp": name, "episodes": f"{size}-{size + _MORE - 1}"}


def of_checkpoints(data: Path, size: int, formats: Sequence[str], *, render: bool) -> Iterator[Step]:
    """Steps on one experiment; one of its checkpoints comes and goes."""
    from benchmarks.clone_episodes import clone_episodes, clone_models

    cloned = clone_episodes(data, 4, checkpoints=size, render=render)
    name, at = cloned.experiments[0], {"data_root": str(data)}
    yield "re-run", "generate", cloned.flags(name) | at
    yield "watch, nothing new", "watch", at | {"exp": [name]}
    yield "verify --quick", "verify", at | {"quick": True}
    yield "gallery", "gallery", at
    yield from exports(data, formats)
    yield "register --list", "register --list", at
    *_, newest = sorted(clone_models(data, size + 1).iterdir(), key=lambda file: int(file.stem.split("_")[2]))
    yield "one more checkpoint", "generate", cloned.flags(name) | at
    yield "gallery after one more", "gallery", at
    newest.unlink()
    yield "delete one checkpoint", "delete", at | {"exp": name, "checkpoints": [newest.stem.split("_")[2]]}


def exports(data: Path, formats: Sequence[str]) -> Iterator[Step]:
    """Everything, first and again."""
    for to in formats:
        export = {"data_root": str(data), "to": to, "out": str(data.with_name(f"{data.name}-{to}"))}
        yield f"export {to}", "export", export
        yield f"export {to} again", "export", export


def of_experiments(data: Path, size: int, formats: Sequence[str], *, render: bool) -> Iterator[Step]:
    """Steps on many experiments; the last of them goes."""
    from benchmarks.clone_episodes import clone_episodes

    cloned = clone_episodes(data, 2, experiments=size, render=render)
    name, at = cloned.experiments[-1], {"data_root": str(data)}
    yield "re-run of one", "generate", cloned.flags(name) | at
    yield "verify --quick", "verify", at | {"quick": True}
    yield "gallery", "gallery", at
    yield "gallery again", "gallery", at
    yield from exports(data, formats)
    yield "register --list", "register --list", at
    yield "delete one experiment", "delete", at | {"exp": name}


SHAPES = {"episodes": of_episodes, "checkpoints": of_checkpoints, "experiments": of_experiments}


def call(function: str, arguments: Mapping[str, Any]) -> None:
    """Calls the library."""
    import rlhfblender_core

    if function == "register --list":
        from rlhfblender_core.locations import locate
        from rlhfblender_core.register import list_registered
        from rlhfblender_core.registry import open_registry

        with open_registry(locate(**arguments).database_url) as registry:
            list_registered(registry)
    else:
        getattr(rlhfblender_core, function)(**arguments)


def command_of(function: str, arguments: Mapping[str, Any]) -> list[str]:
    """The command line that does the same as the library's function."""
    flow, *flags = function.split()
    words = [arguments["out"]] if "out" in arguments else []
    for name, value in arguments.items():
        values = value if isinstance(value, list) else [] if value is True else [value]
        if name != "out" and value is not False:
            words += [f"--{name.replace('_', '-')}", *values]
    return [str(FLOWS / f"{flow}.py"), *flags, *map(str, words), *["--yes"] * (flow == "delete")]


def measured(function: str, arguments: Mapping[str, Any], *, commands: bool) -> dict[str, float]:
    """Processor seconds and peak memory of a step."""
    given = command_of(function, arguments) if commands else [__file__, "--call", json.dumps([function, arguments])]
    own = [sys.executable, __file__, "--measure", json.dumps([sys.executable, *given])]
    took: dict[str, float] = json.loads(subprocess.run(own, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return took


def measure(command: list[str]) -> None:
    """Runs the command, and prints what all its processes took, and the peak of the largest of them.

    It has a process to itself, a small one: of a child, getrusage tells also what its parent had when it was forked.
    """
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


def grow(shape: str, sizes: Sequence[int], folder: Path, given: argparse.Namespace) -> None:
    """Prints what the steps took at both sizes, and ratios."""
    found: dict[str, list[dict[str, float]]] = {}
    for size in sizes:
        data = folder / f"{shape}-{size}"
        for name, function, arguments in SHAPES[shape](data, size, given.to, render=not given.no_render):
            if given.only and name not in given.only:
                continue
            took = measured(function, arguments, commands=given.commands)
            found.setdefault(name, []).append(took)
            print(f"{size:>9,} {shape:12} {name:34} {took['cpu_s']:8.2f} s {took['peak_mb']:6,.0f} MB", flush=True)
    for name, (small, large) in found.items():
        ratios = " · ".join(f"{what} × {large[what] / max(small[what], 0.01):.2f}" for what in small)
        print(f"{shape:12} {name:34} from {sizes[0]:,} to {sizes[1]:,}: ratio {ratios}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, nargs=2, default=(1000, 10_000))
    parser.add_argument("--checkpoints", type=int, nargs=2, default=(100, 400))
    parser.add_argument("--experiments", type=int, nargs=2, default=(75, 300))
    parser.add_argument("--to", nargs="*", default=["hdf5"], help="formats of export")
    parser.add_argument("--no-render", action="store_true", help="no videos and no thumbnails")
    parser.add_argument("--commands", action="store_true", help="whole commands, with Prefect")
    parser.add_argument("--only", nargs="+", help="names of steps")
    parser.add_argument("--data", type=Path, help="where clones are kept for another time (default: nowhere)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--call", help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else this project is compiled at every start, and no other
    if given.call:
        call(*json.loads(given.call))
    elif given.measure:
        measure(json.loads(given.measure))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            folder = (given.data or Path(temporary)).absolute()
            for shape in SHAPES:
                if all(sizes := getattr(given, shape)):
                    grow(shape, sizes, folder, given)


if __name__ == "__main__":
    main()
