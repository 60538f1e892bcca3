"""The key of a row as one text, as it is read back from a published file."""

from typing import TYPE_CHECKING, Final

from exporter.model import KEY_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

KEYS_AT_ONCE: Final = 1 << 13
VERSION_COLUMN: Final = "exported_at"
SEPARATOR: Final = "\0"
"""Between the parts of a key; no id has one."""


class UnreadableFileError(ValueError):
    """Raised when a file's content is not of its format."""


def join_keys(batch: "pa.RecordBatch", *, with_version: bool) -> list[str]:
    """The key of each row as one text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = [batch.column(name) for name in KEY_COLUMNS]
    if with_version:
        parts.append(batch.column(VERSION_COLUMN).cast(pa.int64()))
    texts = [part.cast(pa.string()) for part in parts]
    keys: list[str] = pc.binary_join_element_wise(
        *texts, SEPARATOR, null_handling="replace", null_replacement=""
    ).to_pylist()
    return keys
