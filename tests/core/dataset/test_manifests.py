import hashlib
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.dataset.layout import ArtifactKind
from rlhfblender_core.dataset.manifests import (
    FORMAT_VERSION,
    ArtifactRecord,
    EnvironmentRecordInManifest,
    Manifest,
    PolicyRecord,
    canonical_digest,
    file_digest,
    mean_and_std,
    parse_manifest,
)
from rlhfblender_core.errors import DataNotUsableError


def manifest(**fields: Any) -> Manifest:
    known = {
        "experiment": "e",
        "checkpoint": "random",
        "step": None,
        "episode": 0,
        "environment": EnvironmentRecordInManifest(id="Ü/x-v0", kwargs={"b": [1, None], "a": {"c": "d"}}),
        "policy": PolicyRecord(kind="random"),
        "request_digest": "0" * 64,
        "run_seed": 0,
        "seed": 7,
        "max_steps": None,
        "episode_return": 1.5,
        "episode_length": 3,
        "terminated": True,
        "truncated": False,
        "frames": 3,
        "fps": 30.0,
        "frame_height": 4,
        "frame_width": 6,
        "uncertainty_kind": "entropy",
        "versions": {"numpy": "2"},
        "artifacts": {ArtifactKind.EPISODES: ArtifactRecord(path="episodes/e/random/0.npz", size=1, sha256="f" * 64)},
    }
    return Manifest(**{**known, **fields})


@pytest.mark.parametrize("value", [1.5, float("inf"), float("-inf"), 1e308, 5])
def test_a_manifest_comes_back_as_it_was(value: float) -> None:
    before = manifest(episode_return=value)
    content = before.content
    assert parse_manifest(content, "m.json") == before
    assert parse_manifest(content, "m.json").content == content


def test_a_return_that_is_no_number_comes_back() -> None:
    content = manifest(episode_return=float("nan")).content
    assert repr(parse_manifest(content, "m.json").episode_return) == "nan"


def test_a_manifest_is_text_for_people() -> None:
    assert '"id": "Ü/x-v0"' in manifest().content.decode()


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"format_version": 1}', b'{"format_version": "x"}', b"[" * 100_000,
     manifest().content[:-20], manifest().content.replace(b'"seed": 7', b'"seed": 7, "extra": 1')],
)  # fmt: skip
def test_what_is_no_manifest_is_named_in_one_line(content: bytes) -> None:
    with pytest.raises(DataNotUsableError, match=r"^manifests/e/0\.json is not a manifest"):
        parse_manifest(content, "manifests/e/0.json")


def test_a_manifest_of_a_newer_format_says_so() -> None:
    content = manifest().content.replace(b'"format_version": 1', b'"format_version": 99')
    with pytest.raises(DataNotUsableError, match=f"format 99, newer than {FORMAT_VERSION}. Update"):
        parse_manifest(content, "m.json")


def test_a_digest_depends_on_the_content_and_not_on_its_order() -> None:
    assert canonical_digest({"a": 1, "b": [2]}) == canonical_digest({"b": [2], "a": 1})
    assert canonical_digest({"a": 1}) != canonical_digest({"a": 2})


def test_a_files_digest_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc" * 100_000)
    assert file_digest(tmp_path / "f") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_mean_and_std_of_nothing_are_missing_rather_than_zero() -> None:
    assert [str(value) for value in mean_and_std([])] == ["nan", "nan"]
    assert mean_and_std([1, 3]) == (2, 1)
