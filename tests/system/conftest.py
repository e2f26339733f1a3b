"""What every system test may ask for: a seed, and a place for checkpoints of each kind."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from urllib.request import Request, urlopen

import pytest
from moto.server import ThreadedMotoServer

from tests.kafka.topics import new_name

_SEED = int(os.environ.get("SEED", random.SystemRandom().randrange(10**6)))


@pytest.fixture
def seed() -> int:
    """Printed; SEED=n repeats a run."""
    say(f"SEED={_SEED}")
    return _SEED


def say(text: str) -> None:
    """What a run did, for whoever reads its log."""
    print(text)  # noqa: T201  # shown by pytest -s, and with a failure


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of a server that speaks S3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def store(request: pytest.FixtureRequest) -> dict[str, object]:
    """The checkpoint section for a place of its own in the store that the parameter names; empty for a folder."""
    kind = request.param
    if kind == "kafka":
        return {"type": kind, "bootstrap_servers": request.getfixturevalue("kafka"), "topic": new_name("state")}
    if kind == "object":
        endpoint, bucket = request.getfixturevalue("s3"), new_name("state")
        urlopen(Request(f"{endpoint}/{bucket}", method="PUT"), timeout=10).close()
        keys = {"access_key_id": "test", "secret_access_key": "test"}
        options = {"endpoint": endpoint, "region": "us-east-1", "allow_http": "true"} | keys
        return {"type": kind, "url": f"s3://{bucket}/state", "options": options}
    assert kind == "dir"
    return {}
