"""Imported by the server of forks before it forks, so that no run imports it again."""

import gc
import threading
from contextlib import suppress
from importlib import import_module

from exporter.cli.parser import build_parser
from exporter.settings.load import build_validator

REQUIRED = (
    "exporter.cli.config",
    "exporter.cli.demo",
    "exporter.cli.export",
    "exporter.cli.gateways",
    "exporter.cli.main",
    "exporter.cli.plan",
    "exporter.cli.verify",
    "exporter.sinks.ndjson",
    "exporter.sinks.parquet",
    "exporter.ui.prometheus",
    "obstore.store",
    "tests.support.forks",
)
OF_EXTRAS = (
    "exporter.tables.delta",
    "exporter.tables.iceberg",
    "exporter.tables.paimon",
    "pyiceberg.catalog.sql",
    "pyiceberg.io.pyarrow",
)

for name in REQUIRED:
    import_module(name)
for name in OF_EXTRAS:
    with suppress(ImportError):
        import_module(name)
build_validator()
build_parser()  # compiles its patterns
assert threading.active_count() == 1
gc.freeze()  # a child that collects would copy every page it looks at
