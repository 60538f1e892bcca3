"""What holds for all tests: in CI the same examples are tried every time, elsewhere new ones."""

import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests.object_server import ObjectServer, serving_objects

settings.register_profile("repeatable", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def object_server() -> Iterator[ObjectServer]:
    with serving_objects() as running:
        yield running


@pytest.fixture(scope="session")
def judge(object_server: ObjectServer) -> Iterator[Any]:
    """AWS's own client, to ask what is in the buckets."""
    client = object_server.client()
    yield client
    client.close()


@pytest.fixture
def bucket(judge: Any) -> str:
    name = f"bucket-{secrets.token_hex(4)}"
    judge.create_bucket(Bucket=name)
    return name
