"""The program, the service and the stores for the contract of lake outputs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.emulator.server import Emulator
from tests.support.lake import Account, Bucket, Disk, Place, newest_first, param_place
from tests.support.program import serving

pytest.register_assert_rewrite("tests.support.lake_contract")  # imported after this file


@pytest.fixture(scope="session")
def served() -> Iterator[tuple[Account, Emulator]]:
    account = Account()
    with serving(account.scenario) as emulator:
        yield account, emulator


@pytest.fixture
def account(served: tuple[Account, Emulator]) -> Account:
    account, _ = served
    account.put(newest_first(range(1, 121)), [], newest_first(range(5)))
    return account


@pytest.fixture(params=[param_place("local"), param_place("s3"), param_place("oss")])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        folder = tmp_path / "lake"
        folder.mkdir()
        return Disk(folder)
    bucket, server, judge = map(request.getfixturevalue, ("bucket", "object_server", "judge"))
    return Bucket(request.param, bucket, server, judge, tmp_path / "fetched")
