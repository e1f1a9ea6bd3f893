"""``flows/export.py`` as a command: exit codes, what it prints, and that a wrong request is refused before Prefect."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.export import main
from rlhfblender_core.delete import delete_checkpoint, finish_deletion, plan_deletion
from rlhfblender_core.errors import RLHFBlenderError, one_line
from rlhfblender_core.registry import open_registry
from rlhfblender_core.storage import open_data_root
from tests.support import server_contract
from tests.support.exporting import DataSet


@dataclass(frozen=True)
class Result:
    code: object
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def data(data_root: Path, tmp_path: Path) -> DataSet:
    made = DataSet(open_data_root(str(data_root)), f"sqlite:///{data_root}/rlhfblender.db", tmp_path)
    made.counting("E")
    return made


@pytest.fixture
def export(data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("RLHFBLENDER_DATA_ROOT", str(data_root))

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["export.py", *map(str, arguments)])
        try:
            code: object = main()
        except SystemExit as exit_:
            code = exit_.code
        except RLHFBlenderError as error:  # as run_command does
            code = 2
            sys.stderr.write(f"error: {one_line(error)}\n")
        return Result(code, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "OUT"),
        (("--to", "rlhfblender"), "OUT"),
        (("--to", "zip", "out"), "zip"),
        (("--to", "rlhfblender", "s3://bucket/x"), "on this machine"),
        (("--to", "rlhfblender", "{data}/x"), "mix with"),
        (("--exp", "F", "--to", "rlhfblender", "out"), "no experiment 'F'"),
        (("--exp", "../x", "--to", "rlhfblender", "out"), "experiment name"),
        (("--rewards", "mean", "out"), "mean"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(
    data: DataSet, export: Command, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    given = [text.format(data=data.root.local_folder) if "{" in text else text for text in arguments]
    result = export(*(tmp_path / "out" if text == "out" else text for text in given))
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert says in result.err
    assert not (tmp_path / "out").exists()


def test_without_any_data_there_is_nothing_to_export(export: Command, data_root: Path, tmp_path: Path) -> None:
    result = export("--to", "rlhfblender", tmp_path / "out")
    assert result.code == 2
    assert "generate.py" in result.err
    assert not data_root.exists()


@pytest.mark.usefixtures("prefect")
def test_the_command_exports_and_says_what_to_do_with_it(data: DataSet, export: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = export("--exp", "E", "--to", "rlhfblender", out)
    assert result.code == 0, result.err
    assert result.out.splitlines()[0] == f"2 episodes exported, 0 there already, in {out}"
    assert len(server_contract.check_folder(out)) == 2
    data.counting("unseen", no_render=True)
    data.counting("gone")
    assert export("--to", "rlhfblender", out, "--exp", "gone").out.splitlines()[-1].startswith("Start RLHF-Blender")
    with open_registry(data.url) as registry:
        deletion = plan_deletion(data.root, registry, "gone")
        delete_checkpoint(data.root, registry, deletion.checkpoints[0])
        finish_deletion(registry, deletion)
    result = export("--to", "rlhfblender", out, "--exp", "E", "unseen")
    assert result.code == 1
    assert f"gone is in {out} from an earlier export and isn't registered any more; it stays there." in result.out
    assert result.out.splitlines()[0].startswith("left out: unseen at random, 2 episodes, each has no video")
    result = export("--to", "rlhfblender", tmp_path / "nothing", "--exp", "unseen")
    assert (result.code, len(result.out.splitlines())) == (1, 2), "no server could be started there"
    result = export("--exp", "E", "--to", "minari", tmp_path / "minari")
    assert result.code == 0
    assert 'minari.load_dataset("CountingMade-v0/E/random-v0")' in result.out
