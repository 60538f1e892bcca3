"""Stores for the tests of lake outputs, the service's sessions, and the rows that DuckDB reads."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

import duckdb
import orjson
import pyarrow as pa
import pytest

from exporter.emulator.generated_list import RawSession
from exporter.emulator.recorded_list import RecordedSessions
from exporter.emulator.scenario import EmulatedGateway, EmulatedWorkspace, Scenario
from exporter.records.schema import SCHEMA
from tests.support.object_server import ObjectServer
from tests.support.paimon_catalog import PaimonServer, put_object

REGION = "cn-hangzhou"
CREATED_MS: Final = 1_768_213_240_123
"""Half past ten in the morning, which is midnight in no zone."""

Row = dict[str, Any]
Key = tuple[str, str, str]
"""Workspace, gateway and session; all tests use one region."""

FIELDS: Final = {
    "session_id": "sessionId",
    "name": "name",
    "compute_id": "computeId",
    "state": "state",
    "create_time": "createTime",
    "end_time": "endTime",
    "queue": "queue",
    "cu_hours": "cuHours",
    "vcore_seconds": "vcoreSeconds",
    "mb_seconds": "mbSeconds",
    "info": "info",
    "web_ui": "webUI",
    "spark_conf": "sparkConf",
}


def raw_session(number: int, **fields: Any) -> RawSession:
    """A session that has ended, one an hour by its number."""
    created_ms = CREATED_MS + number * 3_600_000
    return {
        "sessionId": f"livy-{number:06}",
        "name": f"nightly {number}",
        "computeId": "lc-1",
        "state": "error" if number % 7 == 0 else "terminated",
        "createTime": created_ms,
        "endTime": created_ms + 60_000,
        "queue": "数据" if number % 2 else "root_queue",
        "cuHours": number / 8,
        "vcoreSeconds": 2**53 + number,
        "mbSeconds": number * 4096,
        "info": "null",
        "webUI": f"http://ui/{number}",
        "sparkConf": '{"spark.executor.cores":"4"}',
        **fields,
    }


def newest_first(numbers: Iterable[int], **fields: Any) -> list[RawSession]:
    return [raw_session(number, **fields) for number in sorted(numbers, reverse=True)]


ODD_TEXTS: Final = {
    "cjk": "数据 夜间",
    "emoji": "🦆🏳️‍🌈",
    "combining": "e\u0301 is not \u00e9",
    "right to left": "\u200f\u0645\u0631\u062d\u0628\u0627\u200f x",
    "quotes": "a\"b'c`d\\e,f\tg",
    "lines": "one\ntwo\r\nthree",
    "empty": "",
    "blank": " \u00a0\u3000",
    "nul": "a\x00b",
    "hive": "a/b=c%2F d:e?f*__HIVE_DEFAULT_PARTITION__",
    "long": "long text 数 " * 4_000,
    "highest": "\U0010ffff\ufffd\ufeff",
}
ODD_INTEGERS: Final = (0, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63))
ODD_FLOATS: Final = (0.0, -0.0, 0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -2.5, 123456789.123)
ODD_TIMES_MS: Final = (
    1,  # 1970
    -1,
    -2_208_988_800_000,  # 1900
    -12_219_292_800_001,  # the last millisecond before the calendar's reform
    -62_135_596_800_000,  # the year 1
    253_402_300_799_999,  # the year 9999
    1_774_746_000_001,  # within the hour that Europe skips in spring
    1_793_493_000_999,  # within the hour that it has twice in autumn
)


def odd_sessions() -> list[RawSession]:
    """Edge cases of every type, nulls, and fields without a column."""
    named: dict[str, dict[str, Any]] = {
        "null": dict.fromkeys(FIELDS.values()),
        "zero times": {"createTime": 0, "endTime": 0},
        "unknown": {"owner": {"id": 7, "标签": ["a", None, 1.5]}, "another": "x"},
        "texts for numbers": {"vcoreSeconds": "12", "cuHours": "0.25", "mbSeconds": "lots"},
        "a new state": {"state": "Ὀδυσσεύς", "queue": "a=b/c"},
    }
    for name, text in ODD_TEXTS.items():
        fields = ("name", "info", "webUI", "sparkConf", "queue", "state")
        named[name] = dict.fromkeys(fields, text)
    for integer in ODD_INTEGERS:
        named[f"integer {integer}"] = {"vcoreSeconds": integer, "mbSeconds": integer}
    for float_ in ODD_FLOATS:
        named[f"float {float_}"] = {"cuHours": float_}
    for time_ms in ODD_TIMES_MS:
        named[f"time {time_ms}"] = {"createTime": time_ms, "endTime": time_ms}
    return [
        raw_session(0, **{"computeId": "lc-odd", **fields, "sessionId": f"odd {name}"})
        for name, fields in named.items()
    ]


class ChangingList(RecordedSessions):
    """A gateway's list, which tests change between two runs."""

    def __init__(self) -> None:
        self._sessions: list[bytes] = []
        super().__init__(self._sessions)

    def put(self, sessions: Sequence[RawSession]) -> None:
        self._sessions[:] = map(orjson.dumps, sessions)


class Account:
    """The emulator's gateways: `lc-1` and `lc-odd` in `w-1`, `lc-1` in `w-2`."""

    def __init__(self) -> None:
        self.lists = {
            gateway: ChangingList()
            for gateway in (("w-1", "lc-1"), ("w-1", "lc-odd"), ("w-2", "lc-1"))
        }

    @property
    def scenario(self) -> Scenario:
        return Scenario(
            workspaces=tuple(
                EmulatedWorkspace(
                    workspace_id=workspace_id,
                    name=workspace_id,
                    gateways=tuple(
                        EmulatedGateway(gateway_id=gateway_id, name=gateway_id, recording=each)
                        for (within, gateway_id), each in self.lists.items()
                        if within == workspace_id
                    ),
                )
                for workspace_id in ("w-1", "w-2")
            )
        )

    def put(
        self,
        first: Sequence[RawSession] = (),
        odd: Sequence[RawSession] = (),
        other: Sequence[RawSession] = (),
    ) -> None:
        for each, sessions in zip(self.lists.values(), (first, odd, other), strict=True):
            each.put(sessions)

    def sessions(self) -> dict[Key, RawSession]:
        """The true sessions, by key."""
        return {
            (workspace_id, gateway_id, session["sessionId"]): session
            for (workspace_id, gateway_id), each in self.lists.items()
            for session in each.sessions()
        }


def typed_row(key: Key, session: RawSession) -> Row:
    """A session's row without `exported_at`; times in milliseconds, `extra` parsed.

    Written apart from the program's own conversion, which it checks.
    """
    row = {column: session.get(field) for column, field in FIELDS.items()}
    extra = {name: value for name, value in session.items() if name not in FIELDS.values()}
    for column, convert in (("cu_hours", float), ("vcore_seconds", int), ("mb_seconds", int)):
        value = row[column]
        if isinstance(value, str):
            row[column] = convert(value) if value[0].isdigit() else None
            if row[column] is None:
                extra[FIELDS[column]] = value
    return {
        **row,
        "region_id": REGION,
        "workspace_id": key[0],
        "compute_id": row["compute_id"] or key[1],
        "create_time": row["create_time"] or None,
        "end_time": row["end_time"] or None,
        "info": None if row["info"] == "null" else row["info"],
        "extra": extra or None,
    }


def raw_row(key: Key, session: RawSession) -> Row:
    """A session's line of NDJSON without `exportedAt`: its own fields, and its origin."""
    return {**session, "regionId": REGION, "workspaceId": key[0]}


TIMES: Final = [name for name in SCHEMA.names if str(SCHEMA.field(name).type).startswith("time")]
COLUMNS: Final = ", ".join(
    f"epoch_ms({name}) AS {name}" if name in TIMES else name for name in SCHEMA.names
)


def query(columns: str, source: str, *parameters: Any, **tables: pa.Table) -> list[Row]:
    """The rows that DuckDB sees, in a zone far from UTC."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Kathmandu'")
        for name, table in tables.items():
            connection.register(name, table)
        found = connection.execute(f"SELECT {columns} FROM {source}", parameters)  # noqa: S608 - ours
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def parse_extra(rows: list[Row]) -> list[Row]:
    for row in rows:
        row["extra"] = None if row["extra"] is None else json.loads(row["extra"])
    return rows


def read_parquet(files: Sequence[Path], *, hive: bool = False) -> list[Row]:
    if not files:
        return []
    options = ", hive_partitioning = true, hive_types_autocast = false" if hive else ""
    return parse_extra(query(COLUMNS, f"read_parquet(?{options})", [str(file) for file in files]))


def read_ndjson(files: Sequence[Path]) -> list[Row]:
    if not files:
        return []
    lines = query("json", "read_ndjson_objects(?)", [str(file) for file in files])
    rows: list[Row] = [json.loads(line["json"]) for line in lines]
    for row in rows:
        row["exportedAt"] = round(datetime.fromisoformat(row["exportedAt"]).timestamp() * 1000)
    return rows


def read_table(table: pa.Table) -> list[Row]:
    return parse_extra(query(COLUMNS, "sessions", sessions=table))


class Place(Protocol):
    """A store, as the tests see it."""

    @property
    def url(self) -> str:
        """With a slash at its end."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """Arguments by which the program reaches it."""

    @property
    def environ(self) -> Mapping[str, str]: ...

    @property
    def iceberg(self) -> Mapping[str, str]:
        """Properties of a catalog whose warehouse is here."""

    @property
    def delta(self) -> Mapping[str, str]:
        """Storage options of a table here."""

    @property
    def paimon(self) -> PaimonServer | None:
        """A catalog of tables here; None where none is needed."""

    @property
    def paimon_storage(self) -> Mapping[str, str]:
        """Options by which that catalog's tables are reached."""

    def names(self) -> set[str]:
        """Names of all files, hidden ones too."""

    def fetch(self, name: str) -> Path | None:
        """A file on the local disk with its content, below the folders of its name."""

    def end_leases(self) -> None:
        """End the leases of killed runs, as a minute of time would."""


@dataclass(frozen=True)
class Disk:
    folder: Path
    arguments: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    iceberg: Mapping[str, str] = field(default_factory=dict)
    delta: Mapping[str, str] = field(default_factory=dict)
    paimon: None = None
    paimon_storage: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{self.folder}/"

    def names(self) -> set[str]:
        return {
            str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()
        }

    def fetch(self, name: str) -> Path | None:
        path = self.folder / name
        return path if path.is_file() else None

    def end_leases(self) -> None:
        pass


def param_place(place: str, *others: object) -> Any:
    """A place as a parameter; what is not on the disk is of the campaign."""
    return pytest.param(place, *others, marks=[] if place == "local" else pytest.mark.campaign)


@dataclass(frozen=True)
class Bucket:
    scheme: str
    bucket: str
    server: ObjectServer
    judge: Any
    scratch: Path

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.bucket}/lake/"

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("--storage-endpoint", self.server.oss_url) if self.scheme == "oss" else ()

    @property
    def environ(self) -> Mapping[str, str]:
        if self.scheme == "oss":
            return self.server.environ()
        return {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "s3cret-value",
            "AWS_ENDPOINT_URL": self.server.url,
        }

    @property
    def iceberg(self) -> Mapping[str, str]:
        properties = {
            "s3.endpoint": self.server.oss_url if self.scheme == "oss" else self.server.url,
            "s3.region": "us-east-1",
            "s3.access-key-id": "key",
            "s3.secret-access-key": "s3cret-value",
        }
        if self.scheme == "oss":  # no resolver knows the name of the bucket's own host
            properties["s3.proxy-uri"] = self.server.url
        return properties

    @property
    def delta(self) -> Mapping[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.server.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    @property
    def paimon(self) -> PaimonServer:
        put = put_object(self.judge, self.bucket, "lake/")
        return PaimonServer(f"s3://{self.bucket}/lake", put, token="s3cret-value")

    @property
    def paimon_storage(self) -> Mapping[str, str]:
        return {
            "s3.endpoint": self.server.url,
            "s3.region": "us-east-1",
            "s3.access-key": "key",
            "s3.secret-key": "s3cret-value",
            "s3.path-style-access": "true",
        }

    def names(self) -> set[str]:
        pages = self.judge.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
        assert all(key.startswith("lake/") for key in keys)
        # pyarrow leaves an empty object of that name where it has removed the last one of a folder.
        return {key.removeprefix("lake/") for key in keys if not key.endswith("/")}

    def fetch(self, name: str) -> Path | None:
        try:
            found = self.judge.get_object(Bucket=self.bucket, Key=f"lake/{name}")
        except self.judge.exceptions.NoSuchKey:
            return None
        path = self.scratch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found["Body"].read())
        return path

    def end_leases(self) -> None:
        for name in self.names():
            if is_lock(name):
                self.judge.delete_object(Bucket=self.bucket, Key=f"lake/{name}")


def is_lock(name: str) -> bool:
    """Whether a file may stay after a lock is released: an unlocked file, or released leases."""
    last = name.rpartition("/")[2]
    return last == "lock" or ".lock" in last or last.startswith("lock.")


def is_hidden(name: str) -> bool:
    """Whether engines ignore the file."""
    return any(
        part.startswith(".") or part in {"_exporter", "_manifests"} for part in name.split("/")
    )
