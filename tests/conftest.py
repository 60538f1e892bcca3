"""What holds for all tests: in CI the same examples are tried every time, elsewhere new ones."""

import os
from collections.abc import Iterator

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
