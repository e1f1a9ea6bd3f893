import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("s3fs", reason="needs the extra [s3]")
pytest.importorskip("moto", reason="needs moto[server]")
sys.path.insert(0, str(Path(__file__).parent))

from servers import FaultProxy, moto_server

from rlhfblender_core.storage import DataRoot, open_data_root


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 server for this worker's session."""
    with moto_server(tmp_path_factory.mktemp("moto") / "log") as url:
        yield url


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials by the usual variables."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def new_bucket(s3_endpoint: str, s3_environment: None, request: pytest.FixtureRequest) -> str:
    """The URL of a folder in an empty bucket."""
    import s3fs

    name = f"bucket-{abs(hash(request.node.nodeid)) % 10**9}"
    s3fs.S3FileSystem(endpoint_url=s3_endpoint, use_listings_cache=False, skip_instance_cache=True).mkdir(name)
    return f"s3://{name}/team/data"


@pytest.fixture
def s3_root(s3_endpoint: str, new_bucket: str) -> DataRoot:
    """An empty data root on S3."""
    return open_data_root(new_bucket, {"endpoint_url": s3_endpoint})


@pytest.fixture
def fault_proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    """Between us and the S3 server; lets everything through at first."""
    with FaultProxy(s3_endpoint).running() as proxy:
        yield proxy


@pytest.fixture
def contents() -> Callable[[DataRoot], dict[str, str]]:
    """Takes a picture of a data root on any storage: sha256 by path."""
    import hashlib

    def take(root: DataRoot) -> dict[str, str]:
        prefix = root.full_path("")
        return {
            path.removeprefix(prefix): hashlib.sha256(root.fs.cat_file(path)).hexdigest()
            for path in sorted(root.fs.find(prefix))
        }

    return take
