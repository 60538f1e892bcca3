"""The direction of imports, and which libraries a command pays for."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

import exporter
from tests.patience import HANG_S

PACKAGE = Path(exporter.__file__).parent

LAYERS: tuple[tuple[str, ...], ...] = (
    ("gateway", "messages", "own_task", "urls"),
    ("errors",),
    ("local_files",),
    ("events", "options", "held"),
    ("span",),
    ("config",),
    ("endpoints", "catalogs"),
    ("loading",),
    ("records",),
    ("records.encode", "records.decode"),
    ("records.rows", "records.schema", "records.omit"),
    ("stores",),
    ("stores.partials", "stores.metered"),
    ("stores.generation",),
    ("stores.local", "stores.pipes"),
    ("stores.addresses", "stores.uploading"),
    ("stores.failures", "stores.leftovers"),
    ("stores.objects", "stores.aws"),
    ("stores.opening",),
    ("sinks",),
    ("sinks.partitions",),
    (
        "sinks.ndjson",
        "sinks.parquet",
        "sinks.single",
    ),
    ("sinks.dataset",),
    ("sinks.partitioned",),
    ("tables",),
    ("tables.columns",),
    ("tables.spool",),
    ("tables.interface",),
    ("tables.output", "tables.registry", "tables.delta_folder", "tables.delta_fit"),
    ("tables.delta_partitions",),
    (
        "tables.iceberg_catalog",
        "tables.iceberg_fit",
        "tables.iceberg_leftovers",
        "tables.iceberg_rows",
        "tables.paimon_names",
        "tables.paimon_schema",
    ),
    ("tables.delta", "tables.iceberg", "tables.paimon"),
    ("destinations",),
    ("outputs", "neighbours"),
    ("api",),
    ("api.refusals", "api.proxy", "api.body"),
    ("api.credentials", "api.failures"),
    ("api.roa",),
    ("api.rates", "api.retrying"),
    ("api.pacing",),
    ("api.gate",),
    ("api.client",),
    ("api.discovery",),
    ("listing",),
    ("listing.facts", "listing.keys", "listing.windows", "listing.rows", "listing.overlap"),
    ("listing.doubts", "listing.recount", "listing.outbox", "listing.known", "listing.order"),
    ("listing.lookups", "listing.repeats", "listing.observations", "listing.meetings"),
    ("listing.ends", "listing.gaps", "listing.audit", "listing.horizon", "listing.head"),
    ("listing.bookmark", "listing.endlook"),
    ("listing.coverage", "listing.replay", "listing.ledger", "listing.growth"),
    ("listing.increment",),
    ("listing.fetch",),
    ("runs",),
    ("runs.frames", "runs.segments", "runs.manifest", "runs.state", "runs.holder"),
    ("runs.manifests",),
    ("runs.intents",),
    (
        "runs.publishing",
        "runs.journal",
        "runs.lease",
        "runs.lockfile",
        "runs.spool",
        "runs.promise",
        "runs.reading",
    ),
    ("runs.lock", "runs.verifying", "runs.past", "runs.unreadable", "runs.emptied"),
    ("runs.verdict",),
    ("service",),
    ("preparing",),
    ("resuming",),
    ("pipeline", "planning"),
    ("exporter",),
    ("terminal",),
    ("terminal.json_text",),
    ("terminal.logs", "terminal.tally"),
    ("terminal.wording", "terminal.telling"),
    ("terminal.metrics",),
    ("terminal.bar",),
    ("terminal.progress",),
    ("terminal.printing",),
    ("emulator",),
    ("emulator.refusal", "emulator.signature", "emulator.history", "emulator.stats"),
    ("emulator.recording", "emulator.churn", "emulator.quota", "emulator.faults"),
    ("emulator.live_list", "emulator.distortion", "emulator.traits"),
    ("emulator.drift",),
    ("emulator.session_rows", "emulator.replica"),
    ("emulator.churning",),
    ("emulator.scenario",),
    ("emulator.calls",),
    ("emulator.admission", "emulator.wire"),
    ("emulator.service",),
    ("emulator.server", "emulator.reading"),
    ("commands",),
    ("demo", "emulate"),
    ("terminal.completion", "flags"),
    ("cli",),
    ("__main__",),
)
"""All modules, bottom to top; modules of one layer do not import each other."""

LATE_ONLY = {
    "sinks": {"sinks.ndjson", "sinks.parquet"},
}
"""A family's own module opens its members, inside a function and never at import."""

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


MODULES = find_modules()
HEIGHTS = {name: height for height, layer in enumerate(LAYERS) for name in layer}


def read_imports(path: Path) -> Iterator[tuple[str, bool]]:
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
                if alias.name == "__version__":  # the package's name for itself, no part of it
                    continue
                whole = f"{node.module}.{alias.name}"
                is_module = whole.removeprefix("exporter.") in MODULES
                yield (whole if is_module else node.module), node not in late


def own_imports(name: str) -> Iterator[tuple[str, bool]]:
    for imported, is_early in read_imports(MODULES[name]):
        if imported == "exporter" or imported.startswith("exporter."):
            yield imported.removeprefix("exporter."), is_early


def test_every_module_stands_in_one_layer() -> None:
    listed = [name for layer in LAYERS for name in layer]

    assert set(MODULES) - set(listed) == set(), "modules without a layer"
    assert set(listed) - set(MODULES) == set(), "layers without a module"
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("name", [name for name in MODULES if name in HEIGHTS])
def test_module_imports_only_from_layers_below(name: str) -> None:
    upward = [
        imported
        for imported, is_early in own_imports(name)
        if HEIGHTS.get(imported, 0) >= HEIGHTS[name]
        and (is_early or imported not in LATE_ONLY.get(name, set()))
    ]

    assert upward == []


def test_only_the_commands_know_the_emulator() -> None:
    clients = {
        name
        for name in MODULES
        if any(imported.startswith("emulator") for imported, _ in own_imports(name))
        and not name.startswith("emulator")
    }

    assert clients == {"emulate", "demo"}


def test_emulator_shares_no_code_with_the_client_it_judges() -> None:
    shared = {
        imported
        for name in MODULES
        if name.startswith("emulator")
        for imported, _ in own_imports(name)
        if not imported.startswith("emulator")
    }

    # None of them knows the API.
    assert shared == {"errors", "gateway", "local_files", "messages"}


@pytest.mark.parametrize(
    ("library", "importers"),
    [
        (
            "aiohttp",
            {"api.client", "api.failures", "emulator.server", "emulator.service", "emulator.wire"},
        ),
        ("alibabacloud_credentials", {"api.credentials"}),
        ("prometheus_client", {"terminal.metrics"}),
        ("pydantic", {"loading", "emulator.reading"}),
        ("botocore", {"stores.aws"}),
        ("obstore", {"stores.failures", "stores.objects", "stores.opening"}),
        ("deltalake", {"tables.delta", "tables.delta_fit", "tables.delta_partitions"}),
        (
            "pyiceberg",
            {
                "tables.iceberg",
                "tables.iceberg_catalog",
                "tables.iceberg_fit",
                "tables.iceberg_leftovers",
                "tables.iceberg_rows",
            },
        ),
        ("pypaimon_rust", {"tables.paimon"}),
        ("rich", {"terminal.bar"}),
        ("shtab", {"terminal.completion"}),
        ("tenacity", {"api.client"}),
    ],
)
def test_library_is_known_to_one_module_of_a_stage(library: str, importers: set[str]) -> None:
    found = {
        name
        for name, path in MODULES.items()
        if any(imported.partition(".")[0] == library for imported, _ in read_imports(path))
    }

    assert found == importers


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("loading", "pydantic"),
        ("options", "pydantic_core"),
        ("api.credentials", "alibabacloud_credentials"),
        ("terminal.logs", "orjson"),
        ("terminal.printing", "orjson"),
        ("stores.objects", "obstore"),
        ("stores.opening", "obstore"),
        ("stores.aws", "botocore"),
        ("sinks", "pyarrow"),
        ("tables.registry", "pyarrow"),
        ("tables.interface", "pyarrow"),
        ("cli", "anyio"),
        ("commands", "pyarrow"),
        ("terminal.metrics", "prometheus_client"),
        ("terminal.progress", "rich"),
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
        "from exporter.cli import main\n"
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
        if not re.search(r"extra == .(test|dev)", requirement)
    }
    foreign = {
        imported.partition(".")[0]
        for path in MODULES.values()
        for imported, _ in read_imports(path)
    }
    foreign -= {*sys.stdlib_module_names, "exporter", "_typeshed"}

    undeclared = {
        name
        for name in foreign
        if declared.isdisjoint(
            each.replace("_", "-") for each in packages_distributions().get(name, [])
        )
    }

    # Each comes with one that is declared, and is a name of its interface.
    assert undeclared == {"pydantic_core", "yarl"}
