"""Files that do what they can to run code, to change their reader, or to cost more than they weigh."""

import base64
import json
import pickle
import struct
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_TUPLE, _LIST, _EMPTY_LIST, _APPENDS, _MEMOIZE = b"\x85", b"l", b"]", b"e", b"\x94"


def unfolding_pickle(width: int = 20, depth: int = 7, leaf: bytes = b"K\x01") -> bytes:
    """A list of the same list, again and again: a few hundred bytes name ``width ** depth`` values."""
    opcodes = [b"\x80\x04", b"](", leaf * width, b"e", _MEMOIZE]
    for level in range(depth - 1):
        opcodes += [b"](", (b"h" + bytes([level])) * width, b"e", _MEMOIZE]
    return b"".join(opcodes) + b"."


def unfolding_key() -> bytes:
    """A dict whose one key is a tuple of the same tuple twice, forty times over: hashing it takes 2⁴⁰ steps."""
    pairs = b"".join(b"h" + bytes([level]) + b"h" + bytes([level]) + b"\x86\x94" for level in range(40))
    return b"\x80\x04}K\x01\x85\x94" + pairs + b"Ns."


def copying_pickle(size: int = 50_000, times: int = 20_000) -> bytes:
    """Gives one list to ``set`` again and again."""
    return (
        b"\x80\x04cbuiltins\nset\n\x94]("
        + b"".join(b"J" + struct.pack("<i", number) for number in range(size))
        + b"e\x85\x94"
        + b"h\x00h\x01R0" * times
        + b"N."
    )


def colliding_keys(count: int = 30_000) -> bytes:
    """A dict of numbers that all have the same hash."""
    step = 2**61 - 1
    return b"\x80\x04}(" + b"".join(pickle.dumps(number * step, 2)[2:-1] + b"N" for number in range(1, count)) + b"u."


def setting_state(name: str, state: bytes) -> bytes:
    """BUILD, applied to whatever the name stands for."""
    module, _, attribute = name.rpartition(".")
    return b"\x80\x02c" + module.encode() + b"\n" + attribute.encode() + b"\n" + state + b"b."


def with_data_field(source: Path, target: Path, field: str, content: bytes) -> Path:
    """A copy of a model with a field of its ``data`` replaced."""
    with zipfile.ZipFile(source) as archive:
        data = json.loads(archive.read("data"))
    data[field] = {":type:": "<class 'dict'>", ":serialized:": base64.b64encode(content).decode()}
    return with_members(source, target, data=json.dumps(data).encode())


def with_members(source: Path, target: Path, **members: bytes) -> Path:
    """A copy of a zip with some members replaced."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in {**dict.fromkeys(old.namelist()), **members}:
            new.writestr(name, members[name] if name in members else old.read(name))
    return target


def with_weights_pickle(weights: bytes, target: Path, content: bytes) -> bytes:
    """The bytes of a ``.pth`` file with another pickle in it."""
    target.write_bytes(weights)
    with zipfile.ZipFile(target) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
    changed = target.with_suffix(".changed")
    with_members(target, changed, **{name: content})
    return changed.read_bytes()


def npy_with_header(header: str, content: bytes = b"") -> bytes:
    """An array whose header is this text."""
    text = header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def long_npz(path: Path, steps: int) -> Path:
    """An episode of very many steps, all zeros, in a small file."""
    import numpy as np

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, code in (("obs", "|u1"), ("actions", "|u1"), ("rewards", "|u1"), ("dones", "|b1")):
            header = f"{{'descr': '{code}', 'fortran_order': False, 'shape': ({steps},), }}"
            with archive.open(f"{name}.npy", "w") as stream:
                stream.write(npy_with_header(header))
                for _ in range(steps // 1_000_000):
                    stream.write(np.zeros(1_000_000, np.uint8))
    return path


MERGING_YAML = "\n".join(
    ["a0: &a0 {k: 1}"] + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 10)]
)
ALIASED_YAML = "\n".join(
    ["a0: &a0 [1, 1]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    + ["env_kwargs: *a9"]
)  # fmt: skip
NESTED_YAML = "a: " + "[" * 30_000
CIRCULAR_YAML = "env_kwargs: &a {b: *a}"


#: Processor seconds.
_NEVER_S = 20.0


@contextmanager
def bounded(megabytes: int = 100) -> Iterator[None]:
    """Fails where the process grows more at any moment, or what is done within hardly ends at all.

    What is refused in time is so in less than a second on any machine; what isn't takes hours.
    """
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    before, start = _memory("VmRSS"), time.process_time()
    yield
    took, grown = time.process_time() - start, _memory("VmHWM") - before
    assert took < _NEVER_S, f"took {took:.1f} s"
    assert grown < megabytes * 2**10, f"took {grown >> 10} MiB"


def _memory(name: str) -> int:
    """Kilobytes of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def state_of_shared_classes() -> list[tuple[Any, ...]]:
    """What is shared between all that is ever read, to be compared before and after."""
    from rlhfblender_core.untrusted import weights
    from rlhfblender_core.untrusted.allow_list import ALLOWED

    return [
        (name, id(found), str(getattr(found, "__dict__", None)))
        for table in (ALLOWED, weights._NAMES)
        for name, found in sorted(table.items())
    ]
