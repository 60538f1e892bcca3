"""The Arrow schema of the sessions table, and its rows from raw sessions; performs no I/O.

A column is built in one step if every value of the batch has the type the service documents. Any
other column is converted value by value; values that do not fit are kept in `extra`.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from operator import itemgetter
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from exporter.errors import ExporterError
from exporter.model import Gateway, RawSession
from exporter.records.encode import encode_json
from exporter.records.fields import FIELDS
from exporter.times import FIRST_MS, LAST_MS

INSTANT: Final = pa.timestamp("ms", tz="UTC")

SCHEMA: Final = pa.schema(
    [
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("region_id", pa.string(), nullable=False),
        pa.field("workspace_id", pa.string(), nullable=False),
        pa.field("compute_id", pa.string(), nullable=False),
        pa.field("state", pa.string()),
        pa.field("create_time", INSTANT),
        pa.field("end_time", INSTANT),
        pa.field("queue", pa.string()),
        pa.field("cu_hours", pa.float64()),
        pa.field("vcore_seconds", pa.int64()),
        pa.field("mb_seconds", pa.int64()),
        pa.field("info", pa.string()),
        pa.field("web_ui", pa.string()),
        pa.field("spark_conf", pa.string()),
        pa.field("exported_at", INSTANT, nullable=False),
        pa.field("extra", pa.string()),
    ]
)
"""One row per session; the key is (region_id, workspace_id, compute_id, session_id)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Sessions of one gateway as rows, in the order they were given."""

    rows: pa.RecordBatch
    coerced_value_count: int
    """Values converted to fit their column, or kept in `extra` because they do not fit."""


def build_batch(gateway: Gateway, sessions: Sequence[RawSession], exported_at: datetime) -> Batch:
    """Rows of `SCHEMA` from sessions as received.

    Fields without a column, and values that do not fit their column, are kept in `extra` under the
    service's names. A row does not distinguish an absent field from null, a time of 0 from none, an
    `info` of `null` from none, a number from the same number as text, or an absent `computeId` from
    the gateway's.

    Raises ExporterError for a session whose `sessionId` is not text: it has no key.
    """
    columns: dict[str, pa.Array] = {}
    extras = _unnamed_fields(sessions)
    coerced_count = 0
    for field, name in FIELDS.items():
        kind, values = _KINDS.get(name, _TEXT), _pick(field, sessions)
        array = _convert_all(kind, values)
        if array is None:
            array, misfits, converted_count = _convert_each(kind, values)
            coerced_count += converted_count + len(misfits)
            for row, value in misfits.items():
                extras.setdefault(row, {})[field] = value
        columns[name] = array

    if columns["session_id"].null_count > 0:
        raise _missing_key(gateway, sessions, columns["session_id"])
    count = len(sessions)
    columns["compute_id"] = columns["compute_id"].fill_null(gateway.gateway_id)
    columns["region_id"] = pa.repeat(pa.scalar(gateway.region_id, pa.string()), count)
    columns["workspace_id"] = pa.repeat(pa.scalar(gateway.workspace_id, pa.string()), count)
    columns["create_time"] = _instants(columns["create_time"])
    columns["end_time"] = _instants(columns["end_time"])
    columns["info"] = _without(columns["info"], "null")
    columns["exported_at"] = pa.repeat(pa.scalar(exported_at, INSTANT), count)
    columns["extra"] = _extra_texts(extras, count)
    rows = pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)
    return Batch(rows=rows, coerced_value_count=coerced_count)


def build_column(name: str, gateway: Gateway, sessions: Sequence[RawSession]) -> pa.Array:
    """One column of text or time, as `build_batch` makes it."""
    if name in ("region_id", "workspace_id"):
        return pa.repeat(pa.scalar(getattr(gateway, name), pa.string()), len(sessions))
    field = next(field for field, column in FIELDS.items() if column == name)
    kind, values = _KINDS.get(name, _TEXT), _pick(field, sessions)
    array = _convert_all(kind, values)
    if array is None:
        array, _, _ = _convert_each(kind, values)
    if kind is _TIME:
        return _instants(array)
    return array.fill_null(gateway.gateway_id) if name == "compute_id" else array


_MISFIT: Final = object()
"""The result of a `fit` for a value that its column cannot hold."""


def _fit_text(value: Any) -> Any:
    if not isinstance(value, str):
        return _MISFIT
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can escape and UTF-8 cannot hold
        return _MISFIT
    return value


def _fit_integer(value: Any, *, least: int, most: int) -> Any:
    match value:
        case bool():
            return _MISFIT
        case int():
            number = Decimal(value)
        case float() if math.isfinite(value):
            number = Decimal(value)
        case str() if _is_number(value):
            number = Decimal(value)
        case _:
            return _MISFIT
    # The range comes first: the integer of 1e999999 would fill the memory.
    if not least <= number <= most or number != number.to_integral_value():
        return _MISFIT
    return int(number)


def _fit_float(value: Any) -> Any:
    match value:
        case bool():
            return _MISFIT
        case float():
            return value
        case int():
            number: int | str = value
        case str() if _is_number(value):
            number = value if _has_fraction(value) else int(value)
        case _:
            return _MISFIT
    try:
        nearest = float(number)
    except OverflowError:
        return _MISFIT
    if math.isinf(nearest) or (isinstance(number, int) and nearest != number):
        return _MISFIT
    return nearest


_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,9})?")
_MAX_NUMBER_LENGTH: Final = 64
"""No 64-bit value needs more, and the cost of parsing digits grows with their square."""


def _is_number(text: str) -> bool:
    return len(text) <= _MAX_NUMBER_LENGTH and _NUMBER.fullmatch(text) is not None


def _has_fraction(number_text: str) -> bool:
    return not number_text.lstrip("-").isdigit()


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the values of a JSON field become an Arrow array."""

    storage: pa.DataType
    native: frozenset[type] | None
    """Types that Arrow converts without loss.

    None where Arrow itself refuses all others. For numbers it does not: it takes 1.5 as the
    integer 1 and true as 1.0.
    """
    fit: Callable[[Any], Any]
    """Converts a value for the column, or returns `_MISFIT`; never called with None."""


_TEXT: Final = _Kind(pa.string(), None, _fit_text)
_COUNT: Final = _Kind(
    pa.int64(), frozenset({int, type(None)}), partial(_fit_integer, least=-(2**63), most=2**63 - 1)
)
_TIME: Final = _Kind(
    pa.int64(), frozenset({int, type(None)}), partial(_fit_integer, least=FIRST_MS, most=LAST_MS)
)
_FLOAT: Final = _Kind(pa.float64(), frozenset({float, int, type(None)}), _fit_float)

_KINDS: Final = {
    "create_time": _TIME,
    "end_time": _TIME,
    "cu_hours": _FLOAT,
    "vcore_seconds": _COUNT,
    "mb_seconds": _COUNT,
}
"""By column; all others are text."""


def _pick(field: str, sessions: Sequence[RawSession]) -> list[Any]:
    try:
        return list(map(itemgetter(field), sessions))
    except KeyError:
        return [session.get(field) for session in sessions]


def _convert_all(kind: _Kind, values: list[Any]) -> pa.Array | None:
    """The values as one array; None if they have to be converted one by one."""
    if kind.native is not None and not kind.native.issuperset(map(type, values)):
        return None
    try:
        array = pa.array(values, kind.storage)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return None
    if kind is _TIME:
        bounds = pc.min_max(array).as_py()
        if bounds["min"] is not None and (bounds["min"] < FIRST_MS or bounds["max"] > LAST_MS):
            return None
    return array


def _convert_each(kind: _Kind, values: list[Any]) -> tuple[pa.Array, dict[int, Any], int]:
    """The array, the values that do not fit, by row, and the number of converted ones."""
    fitted: list[Any] = []
    misfits: dict[int, Any] = {}
    converted_count = 0
    for row, value in enumerate(values):
        fit = None if value is None else kind.fit(value)
        if fit is _MISFIT:
            misfits[row] = value
            fit = None
        elif kind.native is not None and type(value) not in kind.native:
            converted_count += 1
        fitted.append(fit)
    return pa.array(fitted, kind.storage), misfits, converted_count


def _instants(epoch_ms: pa.Array) -> pa.Array:
    return _without(epoch_ms, 0).view(INSTANT)


def _without(array: pa.Array, absent: Any) -> pa.Array:
    """The array with null in place of `absent`."""
    matches = pc.equal(array, absent)
    return pc.if_else(matches, None, array) if matches.true_count > 0 else array


def _unnamed_fields(sessions: Sequence[RawSession]) -> dict[int, dict[str, Any]]:
    """The fields without a column, by row, in the order of their names."""
    unnamed = sorted(set[str]().union(*sessions) - FIELDS.keys())
    if not unnamed:
        return {}
    extras: dict[int, dict[str, Any]] = {}
    for row, session in enumerate(sessions):
        fields = {field: session[field] for field in unnamed if field in session}
        if fields:
            extras[row] = fields
    return extras


def _extra_texts(extras: dict[int, dict[str, Any]], count: int) -> pa.Array:
    if not extras:
        return pa.nulls(count, pa.string())
    texts: list[str | None] = [None] * count
    for row, fields in extras.items():
        # Decoded at once: each bytes object of orjson keeps a kilobyte allocated.
        texts[row] = encode_json(fields).decode()
    return pa.array(texts, pa.string())


def _missing_key(
    gateway: Gateway, sessions: Sequence[RawSession], session_ids: pa.Array
) -> ExporterError:
    row = session_ids.is_null().index(True).as_py()
    return ExporterError(
        f"a session of {gateway} has the sessionId {sessions[row].get('sessionId')!r:.80}",
        hint="a session is known by its sessionId; report this answer of the service",
    )
