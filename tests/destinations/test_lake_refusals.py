"""Every refusal of a lake output: one line, a hint, the exit code, and nothing half done."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.schema import Schema
from pyiceberg.types import NestedField, StringType
from pypaimon_rust.datafusion import SQLContext

from exporter.emulator.server import Emulator
from tests.support.forks import Ended, run_forked
from tests.support.lake import Account
from tests.support.object_server import ELSEWHERE, READ_ONLY_KEY, WRONG_KEY, ObjectServer
from tests.support.paimon_catalog import PaimonServer, put_file, serve
from tests.support.program import COMMAND, Program, environ_for

pytestmark = pytest.mark.campaign

FLAGS: Mapping[str, tuple[str, ...]] = {
    "sessions.parquet": (),
    "sessions/": (),
    "table/": ("--format", "delta"),
    "iceberg://lake/ops.sessions": (),
    "paimon://lake/ops.sessions": (),
}
CATALOG = "PYICEBERG_CATALOG__LAKE__"
PAIMON = "PAIMON_CATALOG__LAKE__"


@dataclass(frozen=True)
class Runner:
    """Runs exports in a folder, and checks their output and the folder's files."""

    folder: Path
    environ: Mapping[str, str]

    def run(self, *arguments: str, **environ: str) -> Ended:
        return run_forked(
            *("export", "--workspace", "all", "--retries", "1", *arguments),
            environ={**self.environ, **environ},
            folder=self.folder,
        )

    def refuse(self, ended: Ended, *, code: int, says: str, hints: str) -> None:
        """Assert that a run was refused as all are."""
        assert ended.code == code, ended.stderr
        assert ended.stdout == ""
        error, hint = ended.stderr.splitlines()
        assert error.startswith("error: ")
        assert says in error
        assert hint.startswith("hint: ")
        assert hints in hint
        assert "s3cret-value" not in ended.stderr
        assert "Traceback" not in ended.stderr

    def listing(self) -> dict[str, bytes]:
        """Every file below the folder, hidden ones too, with its bytes."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def runner(account: Account, served: tuple[Account, Emulator], tmp_path: Path) -> Runner:
    folder, home = tmp_path / "work", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    configured = {
        f"{CATALOG}URI": f"sqlite:///{home}/catalog.db",
        f"{CATALOG}WAREHOUSE": f"file://{folder}/warehouse",
        f"{PAIMON}WAREHOUSE": f"{folder}/paimon",
    }
    return Runner(folder, {**environ_for(served[1], home), **configured})


@pytest.fixture
def paimon_url(tmp_path: Path) -> Iterator[str]:
    """The URL of a catalog's server."""
    with serve(PaimonServer("/nowhere", put_file(tmp_path), token="s3cret-value")) as url:
        yield url


def configure(
    scheme: str, bucket: str, key: str, server: ObjectServer, paimon_url: str
) -> dict[str, str]:
    """Settings by which the program and the catalogs reach a store."""
    catalog = {
        f"{PAIMON}METASTORE": "rest",
        f"{PAIMON}URI": paimon_url,
        f"{PAIMON}WAREHOUSE": "lake",
        f"{PAIMON}TOKEN__PROVIDER": "bear",
        f"{PAIMON}TOKEN": "s3cret-value",
        f"{PAIMON}SIDECARS": f"{scheme}://{bucket}/lake",
        f"{CATALOG}WAREHOUSE": f"{scheme}://{bucket}/warehouse",
        f"{CATALOG}S3__ENDPOINT": server.oss_url if scheme == "oss" else server.url,
        f"{CATALOG}S3__REGION": "us-east-1",
        f"{CATALOG}S3__ACCESS_KEY_ID": key,
        f"{CATALOG}S3__SECRET_ACCESS_KEY": "s3cret-value",
    }
    if scheme == "s3":
        return {
            **catalog,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": "s3cret-value",
            "AWS_ENDPOINT_URL": server.url,
        }
    return {
        **catalog,
        f"{CATALOG}S3__PROXY_URI": server.url,
        **server.environ(),
        "LIVY_EXPORTER_STORAGE_ENDPOINT": server.oss_url,
        "ALIBABA_CLOUD_ACCESS_KEY_ID": key,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "s3cret-value",
    }


@pytest.mark.parametrize("scheme", ["s3", "oss"])
@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize(
    ("bucket_name", "key", "code", "says"),
    [
        ("nowhere-at-all", "key", 1, "nowhere-at-all"),
        (ELSEWHERE, "key", 1, "is in another region"),
        ("", WRONG_KEY, 3, "the key was refused"),
        ("", READ_ONLY_KEY, 3, "no permission to write"),
    ],
    ids=["missing bucket", "another region", "wrong key", "read-only key"],
)
def test_store_that_cannot_be_written_is_reported_and_left_as_it_was(
    *,
    scheme: str,
    name: str,
    bucket_name: str,
    key: str,
    code: int,
    says: str,
    runner: Runner,
    object_server: ObjectServer,
    paimon_url: str,
    bucket: str,
    judge: Any,
) -> None:
    judge.put_object(Bucket=bucket, Key="theirs.txt", Body=b"theirs")
    at = bucket_name or bucket
    output = name if "://" in name else f"{scheme}://{at}/lake/{name}"
    environ = configure(scheme, at, key, object_server, paimon_url)

    ended = runner.run(*FLAGS[name], "--output", output, **environ)

    runner.refuse(ended, code=code, says=says, hints="")
    assert runner.listing() == {}
    keys = [each["Key"] for each in judge.list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == ["theirs.txt"]
    assert "Uploads" not in judge.list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize(
    ("arguments", "code", "says", "hints"),
    [
        (["-o", "a.parquet", "--incremental"], 2, "an incremental run needs a folder", "sessions/"),
        (["-o", "-", "--incremental"], 2, "an incremental run needs a folder", "sessions/"),
        (["-o", "set/", "--partition-by", "day"], 2, "'day'", "dt"),
        (["-o", "t/", "--format", "delta", "--partition-by", "day"], 2, "'day'", "dt"),
        (["-o", "iceberg://lake/ops.sessions", "--partition-by", "day"], 2, "'day'", "dt"),
        (["-o", "a.parquet", "--partition-by", "dt"], 2, "partitions need a folder", "sessions/"),
        (["-o", "iceberg://other/ops.sessions"], 2, "knows no catalog 'other'", "lake"),
        (["-o", "iceberg://lake/sessions"], 2, "names no Iceberg table", "namespace.table"),
        (["-o", "iceberg://lake/ops.s", "--format", "delta"], 2, "is no delta", "--format"),
        (["-o", "sessions", "--format", "iceberg"], 2, "names no Iceberg table", "iceberg://"),
        (["-o", "-", "--format", "delta"], 2, "a Delta table needs a folder, not '-'", "sessions/"),
        (["-o", "/dev/null", "--format", "delta"], 2, "not '/dev/null'", "sessions/"),
        (["-o", "iceberg://gone/ops.sessions"], 1, "does not answer", "catalog's uri"),
        (["-o", "paimon://other/ops.sessions"], 2, "no Paimon catalog is called 'other'", "lake"),
        (["-o", "paimon://lake/sessions"], 2, "names no Paimon table", "database.table"),
        (["-o", "paimon://lake/ops.s", "--format", "delta"], 2, "is no delta", "--format"),
        (["-o", "sessions", "--format", "paimon"], 2, "names no Paimon table", "paimon://"),
        (["-o", "-", "--format", "paimon"], 2, "'-' names no Paimon table", "warehouse"),
        (["-o", "s3://b/w/ops.db/s", "--format", "paimon"], 2, "no Paimon table", "paimon://"),
        (["-o", "paimon://lake/ops.s", "--partition-by", "dt"], 2, "by 'dt'", "workspace_id"),
        (["-o", "paimon://oss/ops.s"], 2, "'oss://bucket/wh' without a server", "REST catalog"),
        (["-o", "paimon://bare/ops.s"], 2, "has no 'sidecars'", "oss://bucket/livy"),
        (["-o", "paimon://gone/ops.s"], 1, "does not answer", "catalog's uri"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_impossible_output_is_refused_before_anything_is_touched(
    arguments: list[str], code: int, says: str, hints: str, runner: Runner
) -> None:
    rest = {"METASTORE": "rest", "URI": "http://127.0.0.1:9", "WAREHOUSE": "lake"}
    token = {"TOKEN__PROVIDER": "bear", "TOKEN": "s3cret-value", "SIDECARS": "/nowhere"}
    gone = {
        "PYICEBERG_CATALOG__GONE__URI": "http://127.0.0.1:9",
        **{f"PAIMON_CATALOG__GONE__{name}": value for name, value in {**rest, **token}.items()},
        **{f"PAIMON_CATALOG__BARE__{name}": value for name, value in rest.items()},
        "PAIMON_CATALOG__OSS__WAREHOUSE": "oss://bucket/wh",
    }

    ended = runner.run(*arguments, **gone)

    runner.refuse(ended, code=code, says=says, hints=hints)
    assert runner.listing() == {}


def test_delta_table_that_does_not_fit_is_left_as_it_was(runner: Runner) -> None:
    rows = pa.table({"session_id": ["livy-1"], "vcore_seconds": ["many"]})
    deltalake.write_deltalake(runner.folder / "table", rows)
    before = runner.listing()

    ended = runner.run("--output", "table/", "--format", "delta")

    runner.refuse(ended, code=1, says="'vcore_seconds'", hints="")
    assert runner.listing() == before


@pytest.mark.parametrize("name", ["taken", "taken/"])
def test_file_is_no_place_for_a_delta_table(name: str, runner: Runner) -> None:
    (runner.folder / "taken").write_bytes(b"theirs")

    ended = runner.run("--output", name, "--format", "delta")

    runner.refuse(ended, code=2, says=f"needs a folder, not '{name}'", hints="sessions/")
    assert runner.listing() == {"taken": b"theirs"}


def test_iceberg_table_that_does_not_fit_is_left_as_it_was(runner: Runner) -> None:
    catalog = load_catalog(
        "lake",
        uri=runner.environ[f"{CATALOG}URI"],
        warehouse=runner.environ[f"{CATALOG}WAREHOUSE"],
    )
    catalog.create_namespace("ops")
    catalog.create_table("ops.sessions", Schema(NestedField(1, "vcore_seconds", StringType())))
    catalog.close()
    before = runner.listing()

    ended = runner.run("--output", "iceberg://lake/ops.sessions")

    runner.refuse(ended, code=1, says="'vcore_seconds'", hints="")
    assert runner.listing() == before


@pytest.mark.parametrize(
    ("name", "flags"), [("set/", ()), ("set/", ("--format", "ndjson")), ("set/", FLAGS["table/"])]
)
def test_folder_of_somebody_else_is_left_as_it_was(
    name: str, flags: tuple[str, ...], runner: Runner
) -> None:
    (runner.folder / "set").mkdir()
    (runner.folder / "set" / "part-00000-1c2d.parquet").write_bytes(b"theirs")
    before = runner.listing()

    ended = runner.run("--output", name, *flags)

    runner.refuse(ended, code=1, says="'part-00000-1c2d.parquet'", hints="")
    assert runner.listing() == before


def test_paimon_table_that_does_not_fit_is_left_as_it_was(runner: Runner) -> None:
    context = SQLContext()
    context.register_catalog("lake", {"warehouse": f"{runner.folder}/paimon"}, "")
    context.sql("CREATE SCHEMA lake.ops")
    context.sql(
        "CREATE TABLE lake.ops.sessions (session_id STRING NOT NULL, PRIMARY KEY (session_id))"
    )
    before = runner.listing()

    ended = runner.run("--output", "paimon://lake/ops.sessions")

    runner.refuse(ended, code=1, says="its primary key is (session_id)", hints="the run makes it")
    assert runner.listing() == before


@pytest.mark.parametrize(
    ("name", "made", "wanted"),
    [
        ("table/", "dt", "state"),
        ("iceberg://lake/ops.sessions", "dt", "state"),
        ("paimon://lake/ops.sessions", "compute_id", "region_id"),
    ],
)
def test_table_in_other_partitions_is_left_as_it_was(
    name: str, made: str, wanted: str, runner: Runner
) -> None:
    first = runner.run("-q", "--output", name, *FLAGS[name], "--partition-by", made)
    before = runner.listing()

    ended = runner.run("--output", name, *FLAGS[name], "--partition-by", wanted)

    assert first.code == 0, first.stderr
    runner.refuse(ended, code=2, says=f"is partitioned by {made}, not by {wanted}", hints="")
    assert runner.listing() == before


@pytest.mark.parametrize(
    ("package", "name", "says"),
    [
        ("deltalake", "table/", "a Delta table needs the extra 'delta'"),
        ("pyiceberg", "iceberg://lake/ops.sessions", "an Iceberg table needs the extra 'iceberg'"),
        ("pypaimon_rust", "paimon://lake/ops.sessions", "a Paimon table needs the extra 'paimon'"),
    ],
)
def test_extra_that_is_not_installed_is_named(
    package: str, name: str, says: str, runner: Runner, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden"
    (hidden / package).mkdir(parents=True)
    missing = f"raise ModuleNotFoundError(\"No module named '{package}'\", name='{package}')\n"
    (hidden / package / "__init__.py").write_text(missing)
    program = Program(runner.folder, {**runner.environ, "PYTHONPATH": str(hidden)})

    ended = program.run(
        "export", "--workspace", "all", "--output", name, *FLAGS[name], command=COMMAND
    )

    runner.refuse(ended, code=2, says=says, hints="pip install")
    assert runner.listing() == {}
