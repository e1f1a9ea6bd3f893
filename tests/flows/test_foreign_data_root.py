"""A data root of somebody else: what its registry and manifests name isn't run before this user has named it."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.dataset.manifests import Manifest, parse_manifest
from rlhfblender_core.environments import ONLY_DECLARED, EnvironmentSpec, describe_environment
from rlhfblender_core.errors import EnvironmentNotTrustedError
from rlhfblender_core.export.minari.dataset import plan_minari_export
from rlhfblender_core.export.request import find_experiments
from rlhfblender_core.registry import EnvironmentRecord, ExperimentRecord, open_registry
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.storage import open_data_root
from rlhfblender_core.verification.remakes import Sources, plan_remakes, rebuild_index
from tests.support.generating import KEY, request
from tests.support.generating import generate as generate_episodes
from tests.support.verifying import survey

Command = Callable[..., Any]
ENTRY_POINT = "tests.support.environments_for_tests.counting:Counting"


def foreign(data_root: Path, **environment: Any) -> str:
    """Makes a registry as somebody else may have sent it: experiment ``h`` of an environment; gives its URL."""
    spaces = describe_environment(EnvironmentSpec("CartPole-v1"))
    kwargs = environment.pop("kwargs", {})
    record = EnvironmentRecord(
        **{
            "env_id": "Theirs-v0",
            "observation_space": spaces.observation_space,
            "action_space": spaces.action_space,
            **environment,
        }
    )
    data_root.mkdir(exist_ok=True)
    url = f"sqlite:///{data_root / 'rlhfblender.db'}"
    with open_registry(url) as registry:
        registry.ensure_environment(record)
        registry.ensure_experiment(
            ExperimentRecord(
                name="h",
                env_id=record.env_id,
                kind="random",
                settings=RolloutOptions(render=False).to_json(),
                env_kwargs=kwargs,
            )
        )
    return url


def named_in(line: str) -> list[str]:
    """The flags of the command that a refusal names."""
    words = shlex.split(line.partition("`")[2].partition("`")[0])
    assert words[1].endswith("flows/register.py")
    return words[2:]


@pytest.mark.parametrize("name", ["entry point", "package", "id", "import by entry point"])
def test_generate_runs_nothing_that_a_foreign_registry_names(
    name: str, owned: Path, data_root: Path, generate: Command
) -> None:
    named = {
        "entry point": {"entry_point": "os:mkdir", "kwargs": {"path": str(owned)}},
        "package": {"env_id": "CartPole-v1", "additional_packages": ("payload",)},
        "id": {"env_id": "payload:CartPole-v1"},
        "import by entry point": {"entry_point": "payload:Env"},
    }[name]
    foreign(data_root, **named)
    result = generate("--exp", "h")
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert "--env " in result.err
    assert not owned.exists()


def test_control_entry_point_on_the_command_line_is_run(owned: Path, data_root: Path, generate: Command) -> None:
    foreign(data_root, entry_point="os:mkdir", kwargs={"path": str(owned)})
    refused = generate("--exp", "h")
    result = generate("--exp", "h", *named_in(refused.err))  # the very flags that it says
    assert result.code == 2
    assert owned.exists(), (refused, result)


def test_repair_runs_nothing_that_a_foreign_manifest_names(owned: Path, data_root: Path) -> None:
    root = open_data_root(str(data_root))
    url = f"sqlite:///{data_root / 'rlhfblender.db'}"
    generate_episodes(root, url, request(1))
    for file in data_root.glob("rlhfblender.db*"):
        file.unlink()
    path = data_root / "manifests/E/random/0.json"
    manifest = parse_manifest(path.read_bytes(), str(path))
    environment = manifest.environment.model_copy(
        update={"id": "Theirs-v0", "entry_point": "os:mkdir", "kwargs": {"path": str(owned)}}
    )
    path.write_bytes(Manifest(**manifest.model_dump() | {"environment": environment}).content)
    (data_root / "thumbnails/E/random/0.png").unlink()
    findings = survey(root, url)
    assert "thumbnails/E/random/0.png" in {problem.path for problem in findings.problems}
    with open_registry(url) as registry:
        remakes, refusals = plan_remakes(findings, Sources(root, registry, data_root / "cache", {}))
        assert not remakes
        assert "os:mkdir" in "".join(refusal.why for refusal in refusals)
        with pytest.raises(EnvironmentNotTrustedError):
            rebuild_index(root, registry, findings.problems, findings.records)
        assert registry.find_experiment(KEY.experiment) is None
    assert not owned.exists()


def test_export_writes_no_spec_of_a_foreign_environment(owned: Path, data_root: Path) -> None:
    pytest.importorskip("minari")
    root = open_data_root(str(data_root))
    url = f"sqlite:///{data_root / 'rlhfblender.db'}"
    generate_episodes(root, url, request(1))
    with open_registry(url) as registry:
        sources = find_experiments(root, registry, None)
        assert plan_minari_export(sources, ONLY_DECLARED)[0].env_spec is None


def test_what_was_named_once_is_made_by_the_experiment_alone(
    data_root: Path, generate: Command, command_line: Command, prefect: None
) -> None:
    kwargs = ("--env-kwargs", "length:3")
    assert (
        generate(
            "--env",
            "Mine-v0",
            "--env-gym-entrypoint",
            ENTRY_POINT,
            *kwargs,
            "--random",
            "--exp",
            "mine",
            "--num-episodes",
            "1",
            "--no-render",
        ).code
        == 0
    )
    assert generate("--exp", "mine", "--num-episodes", "2").code == 0
    # The same registry at another place is another one: somebody may have copied it, id and all.
    elsewhere = data_root.with_name("elsewhere")
    data_root.rename(elsewhere)
    refused = generate("--exp", "mine", "--num-episodes", "3", "--data-root", elsewhere)
    assert refused.code == 2
    assert command_line("register", *named_in(refused.err)).code == 0
    assert generate("--exp", "mine", "--num-episodes", "3", "--data-root", elsewhere).code == 0


def test_worker_of_a_deployment_trusts_listed_packages(
    data_root: Path, generate: Command, monkeypatch: pytest.MonkeyPatch, prefect: None
) -> None:
    foreign(data_root, entry_point=ENTRY_POINT, kwargs={"length": 3})
    assert generate("--exp", "h", "--num-episodes", "1", "--no-render").code == 2
    monkeypatch.setenv("RLHFBLENDER_TRUSTED_PACKAGES", "numpy, tests.support")
    assert generate("--exp", "h", "--num-episodes", "1", "--no-render").code == 0
    monkeypatch.delenv("RLHFBLENDER_TRUSTED_PACKAGES")
    assert generate("--exp", "h", "--num-episodes", "2", "--no-render").code == 2
