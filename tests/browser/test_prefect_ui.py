"""Prefect's UI in a real Chromium: what a person sees of a run. Screenshots are left in pytest's ``--basetemp``."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploying import REPOSITORY, Team, wait_for

pytestmark = [pytest.mark.xdist_group("deployments"), pytest.mark.timeout(600)]

_PATIENCE_MS = 60_000


@dataclass(frozen=True)
class Seen:
    """What the server has to show: a run of two checkpoints, started by the command line, and the deployments."""

    address: str
    flow_run: str
    deployment: str
    overview: str
    results: str


@pytest.fixture(scope="module")
def seen(browser: Any, team: Team, trained_cartpole: Path) -> Seen:
    generate = (
        "flows/generate.py --env CartPole-v1 --exp ui-study --num-episodes 3 --checkpoints 0 128 256 --model-path"
    )
    done = team.run(sys.executable, *f"{REPOSITORY}/{generate}".split(), str(trained_cartpole))
    assert done.returncode == 0, done.stdout + done.stderr
    with team.client() as client:
        artifacts = {artifact.key: artifact for artifact in client.read_artifacts() if artifact.key}
        deployment = client.read_deployment_by_name("generate/on-demand")
        overview, results = artifacts["overview-ui-study"], artifacts["results-ui-study"]
        run = client.read_flow_run(overview.flow_run_id)

        def all_completed() -> bool:
            tasks = [task for task in client.read_task_runs() if task.flow_run_id == run.id]
            return {task.state.type.value for task in tasks} == {"COMPLETED"}

        wait_for(all_completed, 30, team.folder / "server.log")  # the server records states once a second
    address = team.environment["PREFECT_API_URL"].removesuffix("/api")
    return Seen(address, str(run.id), str(deployment.id), str(overview.id), str(results.id))


def keep(page: Any, path: Path) -> None:
    """Takes a screenshot of a page, on which every picture loads, and nobody has to read JSON."""
    page.screenshot(path=path, full_page=True)
    broken = "[...document.images].filter(image => !image.naturalWidth).map(image => image.alt)"
    assert page.evaluate(broken) == []
    assert '{"' not in page.locator("body").inner_text()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": 1400, "height": 1100})
    opened.set_default_timeout(_PATIENCE_MS)
    failed: list[str] = []
    opened.on("requestfailed", lambda request: failed.append(f"{request.url}: {request.failure}"))
    yield opened
    opened.close()
    assert [url for url in failed if "ERR_ABORTED" not in url] == []


def test_the_run_page_has_names_tags_timeline_and_logs(page: Any, seen: Seen, tmp_path: Path) -> None:
    page.goto(f"{seen.address}/runs/flow-run/{seen.flow_run}")
    for text in ("env:CartPole-v1", "exp:ui-study", "project:RLHF-Blender", "Completed"):
        page.get_by_text(text, exact=True).first.wait_for()
    page.get_by_text("ensure-env-registered CartPole-v1").first.wait_for()
    page.get_by_text("Environment CartPole-v1 is registered").first.wait_for()
    page.locator("canvas").first.wait_for()
    keep(page, tmp_path / "run.png")
    page.get_by_role("tablist").get_by_text("Artifacts", exact=True).last.click()
    page.get_by_text("overview-ui-study").first.wait_for()
    keep(page, tmp_path / "run-artifacts.png")


def test_the_overview_has_pictures_that_load(page: Any, seen: Seen, tmp_path: Path) -> None:
    page.goto(f"{seen.address}/artifacts/artifact/{seen.overview}")
    page.get_by_role("img", name="Thumbnails").wait_for()
    widths = page.evaluate("[...document.querySelectorAll('img[alt]')].map(image => image.naturalWidth)")
    assert len(widths) >= 2
    assert all(width > 200 for width in widths)
    page.get_by_role("cell", name="thumbnails", exact=True).wait_for()
    keep(page, tmp_path / "overview.png")


def test_the_results_are_a_table(page: Any, seen: Seen, tmp_path: Path) -> None:
    page.goto(f"{seen.address}/artifacts/artifact/{seen.results}")
    for cell in ("checkpoint", "already there", "random", "128", "256"):
        page.locator("table").get_by_text(cell, exact=True).first.wait_for()
    assert page.get_by_text('"checkpoint"').count() == 0
    keep(page, tmp_path / "results.png")


def submit(page: Any, team: Team) -> None:
    """Submits the form; again where the page hadn't taken in yet what was filled."""
    for _ in range(3):
        page.get_by_role("button", name="Submit").click()
        with contextlib.suppress(AssertionError):
            wait_for(lambda: is_submitted(team), 15, team.folder / "worker.log")
            return


def is_submitted(team: Team) -> bool:
    return any(run.parameters.get("exp") == "from-the-form" for run in team.flow_runs())


@pytest.mark.soak
def test_the_form_describes_and_checks_its_fields(page: Any, seen: Seen, team: Team, tmp_path: Path) -> None:
    page.goto(f"{seen.address}/deployments/deployment/{seen.deployment}/run")
    page.get_by_text("Gymnasium id, e.g. CartPole-v1").wait_for()
    page.get_by_text("episodes per checkpoint (default as many as the experiment has, 10 of a new one)").wait_for()
    assert page.get_by_text("Property is type").count() == 0
    page.screenshot(path=tmp_path / "form.png", full_page=True)
    field(page, "num_episodes").fill("0")
    page.get_by_role("button", name="Submit").click()
    page.get_by_text("'num_episodes'. Failure reason: 0 is less than the minimum of 1").first.wait_for()
    page.screenshot(path=tmp_path / "form-refused.png", full_page=True)
    # Filled and emptied again: as if it hadn't been touched.
    for name, text in (("model_path", "models"), ("seed", "7")):
        field(page, name).fill(text)
        field(page, name).fill("")
    for name, text in (("env", "CartPole-v1"), ("exp", "from-the-form"), ("num_episodes", "1")):
        field(page, name).fill(text)
    field(page, "random").evaluate("box => box.click()")
    submit(page, team)
    wait_for(lambda: team.episodes("from-the-form"), 100, team.folder / "worker.log")


def field(page: Any, name: str) -> Any:
    """The text field, number field or switch below a parameter's name."""
    title = page.get_by_text(f"{name} (Optional)", exact=True)
    return title.locator("xpath=ancestor::*[.//textarea or .//input][1]").locator("textarea, input").first


@pytest.mark.soak
def test_a_training_is_one_page_with_its_learning_curve(page: Any, team: Team, tmp_path: Path) -> None:
    words = "--env CartPole-v1 --exp ui-training --total-timesteps 4096 --checkpoint-every 1024 --num-episodes 2"
    done = team.run(sys.executable, f"{REPOSITORY}/flows/train.py", *words.split(), "--n-envs", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    with team.client() as client:
        (curve,) = [artifact for artifact in client.read_artifacts() if artifact.key == "training-ui-training"]
    address = team.environment["PREFECT_API_URL"].removesuffix("/api")
    page.goto(f"{address}/runs/flow-run/{curve.flow_run_id}")
    page.get_by_text("train-agent ui-training to 4096").first.wait_for()
    page.locator("canvas").first.wait_for()
    keep(page, tmp_path / "training.png")
    page.goto(f"{address}/artifacts/artifact/{curve.id}")
    page.get_by_role("img", name="Learning curve").wait_for()
    page.get_by_text("1,024, 2,048, 3,072, 4,096").first.wait_for()
    keep(page, tmp_path / "curve.png")
