"""What holds for all tests: the same examples are tried each time, unless new ones are wanted."""

import logging
import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.object_server import ObjectServer, serving_objects

# How long an example takes tells of the machine and of what else runs on it, not of the code.
AT_ANY_PACE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", AT_ANY_PACE, derandomize=True)
settings.register_profile("exploring", AT_ANY_PACE, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(autouse=True)
def package_logger() -> Iterator[logging.Logger]:
    """The package's logger, put back as it is without a program: tests run one in their process."""
    package = logging.getLogger("exporter")
    yield package
    package.handlers.clear()
    package.setLevel(logging.NOTSET)
    package.propagate = True


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
