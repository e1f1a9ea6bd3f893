"""What a check that was cut short had found sound, so that the next one within a day goes on from there."""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.locations import Locations
from rlhfblender_core.verification.checks import Findings

#: What was sound longer ago is looked at again.
_SECONDS = 24 * 3600


@contextlib.contextmanager
def open_journal(locations: Locations, *, quick: bool) -> Iterator[Path]:
    """The file for what is found sound; removed when the check is through, and kept when it is cut short.

    It lies among the user's own notes: what lies in a data root may be somebody else's. Where it can't be written, the
    next check starts from the beginning.
    """
    of = json.dumps([locations.data_root, locations.database_url, quick])
    journal = locations.state_folder / "verify" / f"{hashlib.sha256(of.encode()).hexdigest()[:32]}.jsonl"
    with contextlib.suppress(OSError):
        journal.parent.mkdir(parents=True, exist_ok=True)
        if time.time() - journal.stat().st_mtime > _SECONDS:
            journal.unlink()
    yield journal
    with contextlib.suppress(OSError):
        journal.unlink()


def note_sound(journal: Path, digest: str, findings: Findings) -> None:
    """Appends a part that was checked and is sound, in one write: several threads do."""
    sound = [[key.experiment, key.checkpoint, number] for key, number in findings.sound.items()]
    line = json.dumps({"part": digest, "files": findings.files, "sound": sound}) + "\n"
    with contextlib.suppress(OSError), journal.open("ab", buffering=0) as stream:
        stream.write(line.encode())


def read_sound(journal: Path) -> Mapping[str, Findings]:
    """What was found sound, by the parts' digests. A line that a kill cut short is no line."""
    found = {}
    with contextlib.suppress(OSError):
        for line in journal.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                noted = json.loads(line)
                sound = {
                    CheckpointKey(experiment, checkpoint): number for experiment, checkpoint, number in noted["sound"]
                }
                found[noted["part"]] = Findings(files=noted["files"], sound=sound, earlier=sum(sound.values()))
    return found
