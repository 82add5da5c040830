"""A bucket of object storage on loopback, for as long as a block runs."""

import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from urllib.request import Request, urlopen

import pytest

S3 = pytest.mark.skipif(
    find_spec("moto") is None or find_spec("s3fs") is None, reason="needs moto and s3fs"
)
KEY = "TOP" + "SECRET"  # which no message and no file may show


@contextmanager
def loopback_bucket(monkeypatch: pytest.MonkeyPatch, content: Mapping[str, bytes]) -> Iterator[Any]:
    """The client of a server whose bucket `photos` has the content; its keys: the environment's."""
    import boto3
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("no_proxy", "*")
    S3FileSystem.clear_instance_cache()  # those of a server before it
    reset = Request(f"http://127.0.0.1:{port}/moto-api/reset", method="POST")
    urlopen(reset).close()  # noqa: S310  # objects outlive a server, within a process
    client = boto3.client("s3")
    client.create_bucket(Bucket="photos")
    for name, one in content.items():
        client.put_object(Bucket="photos", Key=name, Body=one)
    try:
        yield client
    finally:
        server.stop()
