"""Commands that messages name: they parse, and they work where the command that names them did."""

import ast
import contextvars
import importlib
import re
import shlex
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.cli.arguments import make_parser
from rlhfblender_core.registry import EnvironmentRecord, ExperimentRecord, open_registry

REPOSITORY = Path(__file__).parents[3]
FLOWS = ("generate", "verify", "export", "import_data", "gallery", "delete", "register", "train", "watch")
NAMED = re.compile(r"`([^`]*flows/(\w+)\.py[^`]*)`")
#: What is put into the core's messages is one quoted word, or words with a flag before each.
FILLED = {"quote": "x", "join": "--env x", "_flags": "--env x"}
ENVIRONMENTS = "tests.support.environments_for_tests"
COUNTING = ("--env", "Mine-v0", "--env-gym-entrypoint", f"{ENVIRONMENTS}.counting:Counting")

Command = Callable[..., Any]


def parsed(line: str, flow: str) -> dict[str, Any]:
    """The command's arguments, as its own parser reads them."""
    function = getattr(importlib.import_module(f"flows.{flow}"), flow)
    words = shlex.split(line)
    file = next(number for number, word in enumerate(words) if word.endswith(f"{flow}.py"))
    parser = make_parser(getattr(function, "fn", function), "")
    return vars(contextvars.copy_context().run(parser.parse_args, words[file + 1 :]))


def texts(file: Path) -> Iterator[str]:
    """The texts of a module, but for docstrings; of what is put into them, how it is quoted."""
    tree = ast.parse(file.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(map(filled, node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts | docstrings:
            yield node.value


def filled(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    call = part.value if isinstance(part, ast.FormattedValue) else None
    name = call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else ""
    return FILLED.get(name, "`not quoted`")


def test_each_command_that_the_core_names_parses() -> None:
    found, others = [], []
    for file in sorted((REPOSITORY / "rlhfblender_core").rglob("*.py")):
        for text in texts(file):
            found += [(file, *match) for match in NAMED.findall(text)]
            rest = re.sub(r"`python flows/\w+\.py[^`]*`", "", text)
            others += [(file, text) for name in FLOWS if re.search(rf"(?<!\w){name}\.py\b|flows/", rest)]
    assert others == []  # in backticks, with the flow's folder and an interpreter, or the command line doesn't see it
    assert len(found) > 25
    for file, line, flow in found:
        try:
            parsed(line.replace("…", "x"), flow)
        except SystemExit:
            pytest.fail(f"{file}: {line}")


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    """A data root and a registry whose names a shell would take apart."""
    root = tmp_path / "it's  my $data"
    root.mkdir()
    return {"--data-root": str(root), "--database-url": f"sqlite:///{tmp_path}/a registry's.db"}


@pytest.fixture
def named(command_line: Command, place: dict[str, str]) -> Callable[..., list[str]]:
    """The commands that a command names which is given the place, each checked to lead there."""

    def run(flow: str, *arguments: object) -> list[str]:
        flags = {name: value for name, value in place.items() if (flow, name) != ("gallery", "--database-url")}
        result = command_line(flow, *arguments, *(word for flag in flags.items() for word in flag))
        assert result.code in (1, 2), result
        found = NAMED.findall(result.out + result.err)
        assert found, result
        for line, other in found:
            there = parsed(line, other)
            assert there["data_root"] == place["--data-root"], line
            if "gallery" not in (flow, other):
                assert there["database_url"] == place["--database-url"], line
        return [line for line, _ in found]

    return run


def fill(place: dict[str, str], **experiment: Any) -> None:
    with open_registry(place["--database-url"]) as registry:
        registry.ensure_environment(
            EnvironmentRecord(env_id="Mine-v0", entry_point=f"{ENVIRONMENTS}.counting:Counting")
        )
        values = {"name": "my study", "env_id": "Mine-v0", "kind": "random", **experiment}
        registry.ensure_experiment(ExperimentRecord(**values))


@pytest.mark.parametrize("flow", ["generate", "delete", "export", "register"])
def test_a_registry_that_somebody_has_tampered_with(
    flow: str, named: Callable[..., list[str]], place: dict[str, str]
) -> None:
    fill(place)
    with sqlite3.connect(place["--database-url"].removeprefix("sqlite:///")) as database:
        database.execute("CREATE VIEW v AS SELECT 1")
    (Path(place["--data-root"]) / "manifests" / "my study" / "random").mkdir(parents=True)
    flags = {
        "generate": (*COUNTING, "--random", "--exp", "my study"),
        "delete": ("--exp", "my study", "--yes"),
        "export": ("out",),
        "register": ("--exp", "my study", "--unfollow"),
    }
    assert all("--repair" in line for line in named(flow, *flags[flow]))


def test_what_is_not_registered(named: Callable[..., list[str]], place: dict[str, str]) -> None:
    assert "--env … --random" in named("register", "--exp", "my study", "--unfollow")[0]  # no registry at all
    fill(place)
    assert "--list" in named("register", "--exp", "yours", "--unfollow")[0]
    assert "--list" in named("register", "--exp", "yours", "--update", "--project", "p")[0]
    assert "delete.py --exp 'my study'" in named("register", "--delete-env", "Mine-v0")[0]
    assert "generate.py --exp 'my study' --model-path …" in named("register", "--exp", "my study", "--follow")[0]
    assert "generate.py --exp 'my study'" in named("export", "out", "--exp", "my study")[0]
    assert "--random" in named("export", "out")[0]
    assert "--random" in named("gallery")[0]
    assert "--random" in named("gallery", "--exp", "my study")[0]


def test_what_is_registered_otherwise(
    named: Callable[..., list[str]], place: dict[str, str], command_line: Command
) -> None:
    fill(place)
    other = ("--env", "Mine-v0", "--env-gym-entrypoint", f"{ENVIRONMENTS}.counting:Blind")
    line = named("generate", *other, "--random", "--no-render")[0]
    assert parsed(line, "register")["env_gym_entrypoint"] == other[-1]
    words = shlex.split(line)
    assert command_line("register", *words[words.index("--env") :]).code == 0  # as it was told
    with open_registry(place["--database-url"]) as registry:
        assert registry.list_environments()[0].entry_point == other[-1]


def test_what_only_a_registry_names_is_trusted_as_the_line_says(
    named: Callable[..., list[str]], place: dict[str, str], command_line: Command
) -> None:
    fill(place)
    update = ("--exp", "my study", "--env-kwargs", "length:5", "--update")
    words = shlex.split(named("register", *update)[0])
    assert command_line("register", *words[words.index("--env") :]).code == 0
    assert command_line("register", *update, *(word for flag in place.items() for word in flag)).code == 0


def test_what_lies_there_by_hand(named: Callable[..., list[str]], place: dict[str, str]) -> None:
    file = Path(place["--data-root"]) / "episodes" / "my study" / "random" / "0.npz"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"theirs")
    lines = named("generate", *COUNTING, "--random", "--exp", "my study")
    assert [parsed(line, flow)["data_root"] for line, flow in zip(lines, ("import_data", "verify"), strict=True)]
    assert "import_data.py --exp 'my study' --env …" in named("gallery")[0]


def test_models_of_somebody_else(named: Callable[..., list[str]], place: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "their models").mkdir()
    (tmp_path / "their models" / "rl_model_100_steps.zip").write_bytes(b"PK")
    line = named("train", *COUNTING, "--model-path", tmp_path / "their models")[0]
    assert parsed(line, "generate")["model_path"] == str(tmp_path / "their models")


@pytest.mark.usefixtures("prefect")
def test_what_verify_finds(named: Callable[..., list[str]], place: dict[str, str], command_line: Command) -> None:
    flags = tuple(word for flag in place.items() for word in flag)
    assert command_line("generate", *COUNTING, "--random", "--exp", "my study", "--num-episodes", 2, *flags).code == 0
    root = Path(place["--data-root"])
    (root / "episodes" / "my study" / "random" / "7.npz").write_bytes(b"theirs")
    (root / "episodes" / "my study" / "random" / "0.npz").write_bytes(b"broken")
    lines = named("verify")
    assert "import_data.py --exp 'my study' --env …" in lines[0]
    assert "verify.py --repair" in named("export", root.parent / "out", "--exp", "my study")[0]
