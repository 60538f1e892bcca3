"""What holds for all tests: the same examples are tried each time, unless new ones are wanted."""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from exporter.emulator.scenario import Scenario
from exporter.emulator.server import Emulator
from tests.support.examples import FULL
from tests.support.object_server import ObjectServer, serving_objects
from tests.support.program import SCENARIO, Program, ProgramFor, build_program, serving

# How long an example takes tells of the machine and of what else runs on it, not of the code.
AT_ANY_PACE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("short", AT_ANY_PACE, derandomize=True, max_examples=FULL // 5)
settings.register_profile("full", AT_ANY_PACE, derandomize=True, max_examples=FULL)
settings.register_profile("exploring", AT_ANY_PACE, derandomize=False, max_examples=FULL)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


OF_THE_CAMPAIGN = "\npytestmark = pytest.mark.campaign\n"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A module of the campaign alone is not imported without it: it may need what is not there."""
    if collection_path.suffix != ".py" or "not campaign" not in config.option.markexpr:
        return None
    return OF_THE_CAMPAIGN in collection_path.read_text() or None


def pytest_itemcollected(item: pytest.Item) -> None:
    """What needs moto is of the campaign."""
    if isinstance(item, pytest.Function) and "object_server" in item.fixturenames:
        item.add_marker("campaign")


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


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    with serving(SCENARIO) as running:
        yield running


@pytest.fixture(scope="session")
def slow_emulator() -> Iterator[Emulator]:
    """The same account behind answers that take long enough to be interrupted."""
    from dataclasses import replace

    with serving(replace(SCENARIO, latency_s=0.3)) as running:
        yield running


@pytest.fixture
def program(emulator: Emulator, tmp_path: Path) -> Program:
    """Pointed at the emulator by the environment, in an empty folder with another one as home."""
    return build_program(emulator, tmp_path)


@pytest.fixture
def slow_program(slow_emulator: Emulator, tmp_path: Path) -> Program:
    return build_program(slow_emulator, tmp_path)


@pytest.fixture
def program_for(tmp_path: Path) -> Iterator[ProgramFor]:
    """An emulator of any scenario, and the program pointed at it; one a test."""
    with ExitStack() as stack:

        def build(scenario: Scenario) -> tuple[Program, Emulator]:
            emulator = stack.enter_context(serving(scenario))
            return build_program(emulator, tmp_path), emulator

        yield build
