import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

# gcsfs reads it when it is imported.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

from rlhfblender_core.storage import DataRoot, open_data_root
from tests.support.fault_proxy import FaultProxy
from tests.support.servers import SERVERS, ObjectStorage
from tests.support.soak import sampled


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], ObjectStorage]]:
    """Servers by name, each started when it is first asked for; a test is skipped where one isn't installed."""
    running: dict[str, ObjectStorage] = {}
    with ExitStack() as stack:

        def start(name: str) -> ObjectStorage:
            if name not in running:
                running[name] = stack.enter_context(SERVERS[name](tmp_path_factory.mktemp(name)))
            return running[name]

        yield start


def use(storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str] | None = None) -> None:
    """Sets the variables, in place of all that clients would find otherwise."""
    import fsspec

    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "STORAGE_EMULATOR")):
            monkeypatch.delenv(name)
    for name, value in (variables or storage.environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", os.environ["RLHFBLENDER_TESTS_HOME"])  # no credentials in there
    fsspec.get_filesystem_class(storage.protocol).clear_instance_cache()  # they know the variables of their time


def make_bucket(storage: ObjectStorage, test: str) -> str:
    """The URL of a folder in an empty bucket."""
    import fsspec

    name = f"bucket-{abs(hash(test)) % 10**9}"
    fsspec.filesystem(storage.protocol, use_listings_cache=False, skip_instance_cache=True).mkdir(name)
    return f"{storage.protocol}://{name}/team/data"


@pytest.fixture(params=sampled(SERVERS, "moto", "azurite"))
def storage(
    request: pytest.FixtureRequest, server: Callable[[str], ObjectStorage], monkeypatch: pytest.MonkeyPatch
) -> ObjectStorage:
    """Each kind of object storage, its variables set."""
    found = server(request.param)
    use(found, monkeypatch)
    return found


@pytest.fixture
def root(storage: ObjectStorage, request: pytest.FixtureRequest) -> DataRoot:
    """An empty data root on each kind of object storage."""
    return open_data_root(make_bucket(storage, request.node.nodeid))


@pytest.fixture
def s3(server: Callable[[str], ObjectStorage], monkeypatch: pytest.MonkeyPatch) -> ObjectStorage:
    """An S3 server, its variables set."""
    found = server("moto")
    use(found, monkeypatch)
    return found


@pytest.fixture
def s3_endpoint(s3: ObjectStorage) -> str:
    """Where the S3 server listens."""
    return s3.endpoint


@pytest.fixture
def s3_root(s3: ObjectStorage, request: pytest.FixtureRequest) -> DataRoot:
    """An empty data root on S3."""
    return open_data_root(make_bucket(s3, request.node.nodeid), {"endpoint_url": s3.endpoint})


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
            if path.startswith(prefix)  # SeaweedFS keeps an entry for the folder itself
        }

    return take
