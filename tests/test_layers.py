"""The direction of imports, and which libraries a command pays for."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

import exporter
from exporter.stores.registry import STORES
from tests.support.patience import HANG_S

PACKAGE = Path(exporter.__file__).parent

ROWS: tuple[tuple[str, ...], ...] = (
    ("times", "version"),
    ("model",),
    ("errors", "events"),
    ("settings",),
    ("records", "stores"),
    ("sinks", "api", "locks"),
    ("tables", "listing"),
    ("journal", "destinations"),
    ("runs",),
    ("exporter",),
    ("ui", "emulator"),
    ("cli",),
    ("__main__",),
)
"""Folders and modules at the top of the package, bottom to top; no row imports from itself."""

NOT_AT_START = (
    "pyarrow",
    "aiohttp",
    "anyio",
    "orjson",
    "pydantic",
    "rich",
    "tenacity",
    "shtab",
    "alibabacloud_credentials",
    "obstore",
    "botocore",
    "asyncio",
    "logging",
)
"""What `--help` must not pay for."""


def find_modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__") or "exporter"
        found[name] = path
    return found


EXTRAS = {"botocore", "deltalake", "pyiceberg", "pypaimon_rust"}
MODULES = find_modules()
STORE_KINDS = {module.removeprefix("exporter.") for module in STORES.values()}
HEIGHTS = {room: height for height, row in enumerate(ROWS) for room in row}


def room_of(module: str) -> str:
    """The folder of a module, or the module where it stands at the top itself."""
    return module.partition(".")[0]


@cache
def read_imports(path: Path) -> tuple[tuple[str, bool], ...]:
    return tuple(find_imports(path))


def find_imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Each imported module by its full name, and whether that happens when the file is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or (isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING")
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node not in late
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_module = whole.removeprefix("exporter.") in MODULES
                yield (whole if is_module else node.module), node not in late


def own_imports(name: str) -> Iterator[tuple[str, bool]]:
    for imported, is_early in read_imports(MODULES[name]):
        if imported == "exporter" or imported.startswith("exporter."):
            yield imported.removeprefix("exporter."), is_early


def test_every_folder_has_its_row() -> None:
    assert {room_of(name) for name in MODULES} == set(HEIGHTS)


@pytest.mark.parametrize("room", HEIGHTS)
def test_folder_imports_only_from_rows_below(room: str) -> None:
    upward = [
        f"{name} imports {imported}"
        for name in MODULES
        if room_of(name) == room
        for imported, _ in own_imports(name)
        if room_of(imported) != room and HEIGHTS[room_of(imported)] >= HEIGHTS[room]
    ]

    assert upward == []


@pytest.mark.parametrize("room", HEIGHTS)
def test_modules_of_a_folder_import_each_other_one_way(room: str) -> None:
    graph = {
        name: {each for each, _ in own_imports(name) if room_of(each) == room and each != name}
        for name in MODULES
        if room_of(name) == room
    }

    # Raises CycleError, which names the circle.
    assert set(TopologicalSorter(graph).static_order()) == set(graph)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__main__"])
def test_module_is_imported_without_effect(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        import_module("exporter" if name == "exporter" else f"exporter.{name}")
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] not in EXTRAS:
            raise
        pytest.skip(f"{exc.name} is of an extra")

    assert capfd.readouterr() == ("", "")


def test_only_the_commands_know_the_emulator() -> None:
    clients = {
        name
        for name in MODULES
        if any(imported.startswith("emulator") for imported, _ in own_imports(name))
        and not name.startswith("emulator")
    }

    assert clients == {"cli.emulate", "cli.demo"}


def test_emulator_shares_no_code_with_the_client_it_judges() -> None:
    shared = {
        imported
        for name in MODULES
        if name.startswith("emulator")
        for imported, _ in own_imports(name)
        if not imported.startswith("emulator")
    }

    # None of them knows the API.
    assert shared == {"errors", "model", "settings.files"}


@pytest.mark.parametrize(
    ("library", "importers"),
    [
        (
            "aiohttp",
            {"api.client", "api.error_map", "emulator.server", "emulator.service", "emulator.wire"},
        ),
        ("alibabacloud_credentials", {"api.credentials"}),
        ("prometheus_client", {"ui.prometheus"}),
        ("pydantic", {"settings.load", "emulator.scenario_file"}),
        ("botocore", {"stores.aws_identity"}),
        ("obstore", {"stores.client", "stores.error_map", "stores.objects"}),
        ("deltalake", {"tables.delta", "tables.delta_compat", "tables.delta_partitions"}),
        (
            "pyiceberg",
            {
                "tables.iceberg",
                "tables.iceberg_catalog",
                "tables.iceberg_compat",
                "tables.iceberg_orphans",
                "tables.iceberg_rows",
            },
        ),
        ("pypaimon_rust", {"tables.paimon", "tables.paimon_schema"}),
        ("rich", {"ui.bar"}),
        ("shtab", {"cli.completion"}),
        ("tenacity", {"api.client"}),
    ],
)
def test_library_is_known_to_one_module_of_a_stage(library: str, importers: set[str]) -> None:
    found = {
        name
        for name, path in MODULES.items()
        if any(imported.partition(".")[0] == library for imported, _ in read_imports(path))
    }

    # A kind of store may import the client of that store.
    assert found - STORE_KINDS == importers


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("settings.load", "pydantic"),
        ("settings.annotations", "pydantic_core"),
        ("api.credentials", "alibabacloud_credentials"),
        ("ui.logs", "orjson"),
        ("ui.stdout", "orjson"),
        ("stores.objects", "obstore"),
        ("stores.client", "obstore"),
        *((kind, "obstore") for kind in sorted(STORE_KINDS)),
        ("stores.aws_identity", "botocore"),
        ("sinks.formats", "pyarrow"),
        ("tables.registry", "pyarrow"),
        ("tables.interface", "pyarrow"),
        ("cli.main", "anyio"),
        ("cli.export", "pyarrow"),
        ("ui.prometheus", "prometheus_client"),
        ("ui.progress", "rich"),
    ],
)
def test_library_is_imported_no_earlier_than_needed(name: str, library: str) -> None:
    early = {
        imported.partition(".")[0] for imported, is_early in read_imports(MODULES[name]) if is_early
    }

    assert library not in early


def loaded_by(*arguments: str) -> set[str]:
    """Top-level modules that a process has loaded when `main` returns."""
    program = (
        "import sys\n"
        "from exporter.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "names = {name.partition('.')[0] for name in sys.modules}\n"
        "print(' '.join(sorted(names)), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=HANG_S,
    )
    return set(ended.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["export", "--help"],
        ["plan", "--help"],
        ["gateways", "--help"],
        ["demo", "--help"],
        ["emulate", "--help"],
        ["config", "--help"],
        ["config", "show", "--help"],
    ],
    ids=" ".join,
)
def test_help_loads_no_heavy_library(arguments: list[str]) -> None:
    loaded = loaded_by(*arguments)

    assert loaded.isdisjoint(NOT_AT_START)


def test_configuration_is_shown_without_the_network_or_arrow() -> None:
    loaded = loaded_by("config", "schema")

    assert loaded.isdisjoint({"alibabacloud_credentials", "rich"})


def test_every_library_is_declared() -> None:
    declared = {
        re.split(r"[ <>=;\[]", requirement, maxsplit=1)[0].replace("_", "-")
        for requirement in requires("livy-exporter") or []
        if not re.search(r"extra == .(test|campaign|dev)", requirement)
    }
    foreign = {
        imported.partition(".")[0]
        for path in MODULES.values()
        for imported, _ in read_imports(path)
    }
    foreign -= {*sys.stdlib_module_names, "exporter", "_typeshed"}

    # A library of an extra that is not installed is taken to have its distribution's name.
    distributions = packages_distributions()
    undeclared = {
        name
        for name in foreign
        if declared.isdisjoint(each.replace("_", "-") for each in distributions.get(name, [name]))
    }

    # Each comes with one that is declared, and is a name of its interface.
    assert undeclared == {"pydantic_core", "yarl"}
