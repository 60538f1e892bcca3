"""The rows of an answer as sessions that all have an id; performs no I/O."""

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

from exporter.model import RawSession, UnreadableRow
from exporter.records.decode import RECEIVED
from exporter.records.encode import encode_json

STAND_IN: Final = "\0row-"
"""The prefix of a stand-in's id, which no service gives out."""


def stand_in(rows: Sequence[Any]) -> tuple[list[RawSession], tuple[UnreadableRow, ...]]:
    """The rows as sessions whose ids are text, and the unreadable rows.

    An integer id becomes its digits. A row without an id is replaced by a stand-in that has its
    fields and an id made from them: the same row has the same id on every page, and two equal rows
    of one page have two.
    """
    sessions: list[RawSession] = []
    unreadable: list[UnreadableRow] = []
    counts: Counter[bytes] = Counter()
    for place, row in enumerate(rows):
        fields = row if isinstance(row, dict) else {}
        session_id = fields.get("sessionId")
        if type(session_id) is int:
            session_id = str(session_id)
        if type(session_id) is not str or not session_id:
            digest = blake2b(encode_json(row), digest_size=8).digest()
            session_id = f"{STAND_IN}{digest.hex()}-{counts[digest]}"
            counts[digest] += 1
            unreadable.append(UnreadableRow(place, session_id, describe(row)))
        sessions.append({**fields, "sessionId": session_id})
    return sessions, tuple(unreadable)


def describe(row: Any) -> str:
    """The reason why a row is no session; shows no value, as that may be a secret."""
    if not isinstance(row, dict):
        return "it is null" if row is None else f"it is {KIND_NAMES.get(type(row), 'no object')}"
    if "sessionId" not in row:
        return "it has no sessionId"
    session_id = row["sessionId"]
    if session_id is None and f"{RECEIVED}sessionId" not in row:
        return "its sessionId is null"
    if session_id == "":
        return "its sessionId is empty"
    return f"its sessionId is {KIND_NAMES.get(type(session_id), 'no text')}"


KIND_NAMES: Final = {
    str: "a text",
    int: "a number",
    float: "a number with a fraction",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
