"""deployments/containers.yaml: runs in containers of their own, by a Docker pool; what Kubernetes would be asked."""

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.support.containers import needs_containers
from tests.support.deploying import REPOSITORY, Team, kill_tree, wait_for
from tests.support.docker_engine import DockerImage

FILE = REPOSITORY / "deployments" / "containers.yaml"
ASK = ("deployment", "run", "generate/on-demand-docker", "--param", "env=CartPole-v1", "--param", "random=true")


def job_variables(pool: str) -> dict[str, Any]:
    deployments = yaml.safe_load(FILE.read_text(encoding="utf-8"))["deployments"]
    (variables,) = [
        deployment["work_pool"]["job_variables"]
        for deployment in deployments
        if deployment["work_pool"]["name"] == pool
    ]
    return dict(variables)


def prepared(worker: Any, values: dict[str, Any]) -> Any:
    """The job that a worker of that kind would start."""
    from prefect.client.schemas.objects import FlowRun

    template = worker.get_default_base_job_template()
    # A variable that the pool doesn't know would be left out without a word.
    assert set(values) <= set(template["variables"]["properties"])
    job = asyncio.run(worker.job_configuration.from_template_and_values(template, values))
    job.prepare_for_flow_run(FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), name="generate CartPole-v1 random"))
    return job


@pytest.mark.usefixtures("prefect")
def test_the_docker_pools_job_runs_the_image_with_its_environment() -> None:
    worker = pytest.importorskip("prefect_docker.worker").DockerWorker
    job = prepared(worker, job_variables("containers"))
    assert (job.image, job.command, job.mem_limit) == ("rlhfblender-data", "prefect flow-run execute", "4g")
    assert job.env["RLHFBLENDER_DATA_ROOT"] == "s3://my-bucket/rlhf"
    assert job.env["PREFECT_HOME"] == "/home/worker/.prefect"


@pytest.mark.usefixtures("prefect")
def test_the_kubernetes_pools_job_is_one_that_the_api_knows() -> None:
    worker = pytest.importorskip("prefect_kubernetes.worker").KubernetesWorker
    from kubernetes_asyncio.client import ApiClient, Configuration

    job = prepared(worker, job_variables("cluster"))

    async def typed() -> Any:
        async with ApiClient(Configuration()) as api:
            response = SimpleNamespace(data=json.dumps(job.job_manifest))
            return api.sanitize_for_serialization(api.deserialize(response, "V1Job"))

    pod = job.job_manifest["spec"]["template"]["spec"]
    # Prefect's template has these two, of the job's, with the pod's.
    del pod["completions"], pod["parallelism"]
    # Fields that Kubernetes' API doesn't have are dropped on the way.
    assert asyncio.run(typed()) == job.job_manifest
    (container,) = pod["containers"]
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert container["resources"]["limits"] == {"memory": "4Gi"}
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


@pytest.fixture
def pool(image: Any, volume: Path, team: Team, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerImage]:
    """A Docker pool with a worker, made as the file says, with its places changed."""
    if not isinstance(image, DockerImage):
        pytest.skip("no Docker engine can be started here")
    pytest.importorskip("prefect_docker")
    text = FILE.read_text(encoding="utf-8").replace("s3://my-bucket/rlhf", "/data")
    text = text.replace("volumes: []", f"volumes: ['{volume}:/data']")
    changed = team.folder / "containers.yaml"
    changed.write_text("".join(line for line in text.splitlines(keepends=True) if "DATABASE_URL" not in line))
    monkeypatch.setenv("DOCKER_HOST", image.host)
    deploy = ("deploy", "--prefect-file", str(changed), "--name", "on-demand-docker")
    for command in (("work-pool", "create", "containers", "--type", "docker", "--overwrite"), deploy):
        done = team.prefect(*command)
        assert done.returncode == 0, done.stdout + done.stderr
    with (team.folder / "docker-worker.log").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "containers"],
            cwd=team.folder,
            env=team.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    yield image
    kill_tree(worker)


@pytest.mark.parametrize("killed", [False, True], ids=["undisturbed", "killed"])
def test_a_docker_pools_container_makes_data(pool: DockerImage, team: Team, volume: Path, killed: bool) -> None:
    episodes, exp = (600, "in-docker-killed") if killed else (3, "in-docker")
    asked = team.prefect(*ASK, "--param", f"exp={exp}", "--param", f"num_episodes={episodes}")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    log = team.folder / "docker-worker.log"

    def made() -> int:
        return len(list(volume.glob(f"manifests/{exp}/random/*.json")))

    if killed:
        wait_for(lambda: made() > 10, 200, log)
        (container,) = pool.docker("ps", "--quiet").split()
        pool.docker("kill", container)
        assert made() < episodes, "the run was over before it could be killed"

    def over() -> list[Any]:
        return [run for run in team.flow_runs() if f"exp:{exp}" in run.tags and run.state.is_completed()]

    (run,) = wait_for(over, 300, log)
    assert made() == episodes
    assert run.run_count == 1 + killed
    assert "Failed to create the Prefect home" not in log.read_text()
    wait_for(lambda: not pool.docker("ps", "--all", "--quiet"), 60, log)


test_a_docker_pools_container_makes_data.pytestmark += needs_containers  # type: ignore[attr-defined]
