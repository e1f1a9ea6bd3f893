"""Verify names exactly the objects that are damaged, and repair brings back the same bytes."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from rlhfblender_core.dataset.layout import ArtifactKind, EpisodeKey, artifact_path, manifest_path
from rlhfblender_core.storage import DataRoot, publish_bytes, read_bytes, remove_files
from tests.support.generating import KEY, generate, request
from tests.support.verifying import problems, repair, survey

pytestmark = [
    pytest.mark.soak,  # the commands' test has a sample
    pytest.mark.xdist_group("object-storage"),
    pytest.mark.parametrize(
        ("storage", "episodes"),
        [("moto", 30), ("seaweedfs", 30), ("azurite", 6), ("fake-gcs", 6)],
        indirect=["storage"],
    ),
]

Damage = Callable[[DataRoot, list[str]], object]


def change(how: Callable[[bytearray], object]) -> Damage:
    def damage(root: DataRoot, paths: Iterable[str]) -> None:
        for path in paths:
            content = bytearray(read_bytes(root, path))
            how(content)
            publish_bytes(root, path, bytes(content))

    return damage


def flip(content: bytearray) -> None:
    content[len(content) // 2] ^= 1


def rotate(root: DataRoot, paths: list[str]) -> None:
    """Each file in the place of the one before it."""
    contents = [read_bytes(root, path) for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        publish_bytes(root, path, content)


DAMAGES: dict[str, Damage] = {
    "flipped": change(flip),
    "truncated": change(lambda content: content.pop()),
    "empty": change(lambda content: content.clear()),
    "longer": change(lambda content: content.append(0)),
    "deleted": remove_files,
}


def one_file_per_episode(episodes: int, first_kind: int) -> list[str]:
    kinds: list[ArtifactKind | None] = [*ArtifactKind, None]
    paths = []
    for number in range(episodes):
        key = EpisodeKey(KEY.experiment, KEY.checkpoint, number)
        kind = kinds[(first_kind + number) % len(kinds)]
        paths.append(artifact_path(kind, key) if kind else manifest_path(key))
    return paths


def test_exactly_the_damaged_objects_are_named_and_made_again(
    root: DataRoot, episodes: int, tmp_path: Path, contents: Callable[[DataRoot], dict[str, str]]
) -> None:
    database = f"sqlite:///{tmp_path / 'registry.db'}"
    generate(root, database, request(episodes, env="CartPole-v1", env_gym_entrypoint=None, env_kwargs={}))
    made = contents(root)
    assert (len(made), problems(root, database)) == (6 * episodes, [])
    for first_kind, (name, damage) in enumerate(DAMAGES.items()):
        paths = one_file_per_episode(episodes, first_kind)
        damage(root, paths)
        assert sorted(problem.path for problem in survey(root, database).problems) == sorted(paths), name
        assert repair(root, database) == []
        assert contents(root) == made, name
    for kind in range(6):  # exchanged between episodes
        paths = [one_file_per_episode(episodes, kind - number)[number] for number in range(episodes)]
        rotate(root, paths)
        now = contents(root)
        # A random agent's uncertainty is the same in all episodes.
        wrong = [path for path in paths if now[path] != made[path]]
        assert wrong or paths[0].startswith("uncertainty/")
        assert sorted(problem.path for problem in survey(root, database).problems) == sorted(wrong)
        assert repair(root, database) == []
        assert contents(root) == made
    assert problems(root, database) == []
