"""The session lists that the emulator serves, and one generated from a seed; performs no I/O."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

import orjson

from exporter.model import Gateway

RawSession = dict[str, Any]
"""One session, as in the `sessions` array of an answer."""


@dataclass(frozen=True, slots=True)
class SessionPage:
    total_count: int
    rows: bytes
    """The JSON array that is the page's `sessions` value."""


class SessionList(Protocol):
    """A gateway's sessions, which may move between two answers."""

    def page(self, page_num: int, page_size: int) -> SessionPage:
        """One page, from 1; a page past the end is empty and still states the total."""
        ...

    def sessions(self) -> Iterator[RawSession]:
        """All sessions in list order, as a complete listing must deliver them."""
        ...


class PageCache:
    """Encoded pages, up to `max_bytes` of them.

    It never evicts: a benchmark reads the same list from the front again and again, where a cache
    that evicts the oldest page would never be hit.
    """

    def __init__(self, max_bytes: int) -> None:
        self._free_bytes = max_bytes
        self._rows_by_key: dict[tuple[Gateway, int, int], bytes] = {}

    def read(self, key: tuple[Gateway, int, int]) -> bytes | None:
        return self._rows_by_key.get(key)

    def write(self, key: tuple[Gateway, int, int], rows: bytes) -> None:
        if len(rows) <= self._free_bytes:
            self._free_bytes -= len(rows)
            self._rows_by_key[key] = rows

    def forget(self, gateway: Gateway) -> None:
        for key in [key for key in self._rows_by_key if key[0] == gateway]:
            self._free_bytes += len(self._rows_by_key.pop(key))


class SessionSeries:
    """The sessions of a gateway, each a pure function of its serial, which counts from the oldest.

    So a session stays the same wherever newer or deleted ones move it.
    """

    def __init__(
        self, gateway: Gateway, *, seed: int, oldest_created_ms: int, spacing_ms: int
    ) -> None:
        self._gateway = gateway
        self._oldest_created_ms = oldest_created_ms
        self._spacing_ms = spacing_ms
        name = f"{seed}/{gateway.region_id}/{gateway}".encode()
        self._stream = int.from_bytes(blake2b(name, digest_size=8).digest())

    def session_id(self, serial: int) -> str:
        return f"livy-{self._key(serial):016x}"

    def created_ms(self, serial: int) -> int:
        """Evenly spaced, moved by less than one spacing: no two are equal."""
        return self._spaced_ms(serial, mix64(self._key(serial) ^ self._stream))

    def session(
        self, serial: int, *, created_ms: int | None = None, run_ms: int | None = None
    ) -> RawSession:
        """The session after its end; None: its serial decides create time and duration."""
        key = self._key(serial)
        bits = mix64(key ^ self._stream)
        if created_ms is None:
            created_ms = self._spaced_ms(serial, bits)
        if run_ms is None:
            run_ms = 30_000 + (bits >> 8) % 600_000 * (1 + (bits >> 28) % 16)
        cores = 4 << (bits >> 32) % 5
        vcore_seconds = cores * run_ms // 1000
        failed = (bits >> 36) % 16 == 0
        return {
            "sessionId": f"livy-{key:016x}",
            "name": f"{_NAMES[(bits >> 40) % len(_NAMES)]}_{serial}",
            "computeId": self._gateway.gateway_id,
            "state": "error" if failed else "terminated",
            "info": _FAILURES[(bits >> 44) % len(_FAILURES)] if failed else "null",
            "sparkConf": _SPARK_CONFS[(bits >> 48) % len(_SPARK_CONFS)],
            "createTime": created_ms,
            "endTime": created_ms + run_ms,
            "queue": _QUEUES[(bits >> 54) % len(_QUEUES)],
            "cuHours": round(vcore_seconds / 3600, 3),
            "vcoreSeconds": vcore_seconds,
            "mbSeconds": vcore_seconds * 4096,
            "webUI": f"http://emr-spark-ui-{self._gateway.region_id}.data.aliyun.com/{key:016x}",
        }

    def _spaced_ms(self, serial: int, bits: int) -> int:
        return self._oldest_created_ms + serial * self._spacing_ms + bits % self._spacing_ms

    def _key(self, serial: int) -> int:
        # mix64 is a bijection, so the ids of one gateway are unique by construction.
        return mix64((self._stream + serial) & _MASK)


class GeneratedSessions:
    """A list that is a pure function of its arguments, newest first, without equal create times."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        seed: int,
        session_count: int,
        newest_created_ms: int,
        spacing_ms: int,
        cache: PageCache,
    ) -> None:
        self._gateway = gateway
        self._session_count = session_count
        self._series = SessionSeries(
            gateway,
            seed=seed,
            oldest_created_ms=newest_created_ms - session_count * spacing_ms,
            spacing_ms=spacing_ms,
        )
        self._cache = cache

    def page(self, page_num: int, page_size: int) -> SessionPage:
        key = (self._gateway, page_num, page_size)
        rows = self._cache.read(key)
        if rows is None:
            start = (page_num - 1) * page_size
            stop = min(start + page_size, self._session_count)
            rows = orjson.dumps([self._session(position) for position in range(start, stop)])
            self._cache.write(key, rows)
        return SessionPage(self._session_count, rows)

    def sessions(self) -> Iterator[RawSession]:
        return (self._session(position) for position in range(self._session_count))

    def _session(self, position: int) -> RawSession:
        session = self._series.session(self._session_count - 1 - position)
        if position < len(_UNFINISHED_STATES):
            return without_end(session, _UNFINISHED_STATES[position], form=position)
        return session


_MASK = (1 << 64) - 1


def mix64(value: int) -> int:
    """A bijection that scatters 64 bits: the last step of the public-domain splitmix64."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


def without_end(session: RawSession, state: str, *, form: int) -> RawSession:
    """Change a session to one that has not ended, and return it.

    How the service writes a missing end is not documented; `form` chooses one of three ways.
    """
    session["state"] = state
    session["info"] = "null"
    match form % 3:
        case 0:
            session["endTime"] = 0
        case 1:
            session["endTime"] = None
        case _:
            del session["endTime"]
    return session


def _build_spark_conf(user: str, executor_count: int) -> str:
    conf = {
        "spark.driver.cores": 1,
        "spark.driver.memory": "4g",
        "spark.executor.cores": 4,
        "spark.executor.memory": "16g",
        "spark.executor.instances": executor_count,
    }
    return orjson.dumps({"proxyUser": user, "conf": conf}).decode()


_UNFINISHED_STATES = ("starting", "running", "running", "running")
"""States of the newest sessions by position; all older ones have ended."""

_QUEUES = ("root_queue", "etl_queue", "dev_queue", "adhoc_queue")

_NAMES = (
    "orders_daily_load",
    "orders_hourly_load",
    "user_profile",
    "用户画像",
    "ad_hoc_notebook",
    "inventory_snapshot",
    "clickstream_sessions",
    "finance_month_end",
    "feature_store_backfill",
    "data_quality_checks",
)

_FAILURES = (
    "java.lang.OutOfMemoryError: Java heap space",
    "驱动程序启动失败: 队列资源不足",
    'AnalysisException: Table or view "ods.orders" not found\n\tat line 1 pos 14',
    "会话超时未使用, 已自动终止",
    "Executor lost: exit code 137",
)

_SPARK_CONFS = tuple(
    _build_spark_conf(user, executor_count)
    for user in ("etl", "analyst", "scientist", "finance", "marketing", "notebook")
    for executor_count in (1, 2, 4, 8, 16, 32)
)
