"""The registry of table formats, and the outputs that are tables."""

from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from exporter.errors import UsageError
from exporter.model import TableFormat
from exporter.tables.registry import TABLES, find_format


@pytest.mark.campaign
def test_every_format_is_listed_and_has_a_module_that_opens_its_tables() -> None:
    assert set(TABLES) == set(get_args(TableFormat))
    for kind in TABLES.values():
        assert callable(import_module(kind.module).open_table)


@pytest.mark.parametrize(
    ("output", "chosen", "found"),
    [
        ("iceberg://lake/ops.sessions", None, "iceberg"),
        ("iceberg://lake/ops.sessions", "iceberg", "iceberg"),
        ("sessions/", "delta", "delta"),
        ("sessions", "iceberg", "iceberg"),
        ("sessions/", None, None),
        ("sessions.parquet", "parquet", None),
        ("s3://lake/sessions/", None, None),
        ("ftp://lake/sessions", None, None),
        ("-", None, None),
        ("", None, None),
        ("a\0b", None, None),
    ],
)
def test_table_is_known_by_its_scheme_or_the_format_that_is_named(
    output: str, chosen: str | None, found: str | None
) -> None:
    assert find_format(output, chosen=chosen, access=None) == found


def test_folder_with_a_log_is_a_table_without_being_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "_delta_log").mkdir()

    assert find_format(str(tmp_path), chosen=None, access=None) == "delta"
    assert find_format(str(tmp_path), chosen="parquet", access=None) is None


def test_name_and_format_that_differ_are_refused() -> None:
    with pytest.raises(UsageError, match="is no delta") as caught:
        find_format("iceberg://lake/ops.sessions", chosen="delta", access=None)

    assert caught.value.hint == "leave out --format"
