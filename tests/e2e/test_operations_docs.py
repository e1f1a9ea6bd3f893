"""Commands in docs/operations.md: their flags, targets, deployments and subcommands exist."""

import re
import subprocess
import sys

import pytest
import yaml

from tests.support.documented import REPOSITORY, of

DOCUMENT = "docs/operations.md"
TEXT = (REPOSITORY / DOCUMENT).read_text(encoding="utf-8")


def flags(arguments: list[str]) -> set[str]:
    return {argument for argument in arguments if argument.startswith("--")}


@pytest.mark.parametrize("arguments", of("make", DOCUMENT), ids=" ".join)
def test_make_has_the_target(arguments: list[str]) -> None:
    targets = [argument for argument in arguments if "=" not in argument]
    shown = subprocess.run(["make", "--dry-run", *targets], cwd=REPOSITORY, capture_output=True, check=False)
    assert shown.returncode == 0, shown.stderr


@pytest.mark.soak
def test_prefect_has_the_workers_options() -> None:
    """The others are run by test_deployments.py."""
    (arguments,) = [words for words in of("prefect", DOCUMENT) if words[:2] == ["worker", "start"]]
    command = [sys.executable, "-m", "prefect", "worker", "start", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(flag in shown for flag in flags(arguments))


def test_deployments_are_the_ones_in_the_file() -> None:
    deployed = yaml.safe_load((REPOSITORY / "deployments" / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    names = {f"{entry['entrypoint'].rsplit('.')[-1].replace('_', '-')}/{entry['name']}" for entry in deployed}
    assert set(re.findall(r"^\| `([a-z-]+/[a-z0-9-]+)`", TEXT, re.MULTILINE)) == names
    assert set(re.findall(r"'([a-z-]+/[a-z0-9-]+)'", TEXT)) <= names
    for entry in deployed:
        module, _, flow = entry["entrypoint"].rpartition(".")
        parameters = getattr(__import__(module, fromlist=[flow]), flow).parameters.properties
        assert set(entry.get("parameters", {})) <= set(parameters)


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (REPOSITORY / "docs" / link).exists(), link
