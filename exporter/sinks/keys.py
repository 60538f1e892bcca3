"""Keys of rows as text, read back from a published file."""

from typing import TYPE_CHECKING, Final

from exporter.model import KEY_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

KEY_BATCH_ROWS: Final = 1 << 13
VERSION_COLUMN: Final = "exported_at"
SEPARATOR: Final = "\0"
"""Between the fields of a key; no id contains one."""


class UnreadableFileError(ValueError):
    """Raised when a file is not valid in its format."""


def join_keys(batch: "pa.RecordBatch", *, with_version: bool) -> list[str]:
    """The key of each row as one text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = [batch.column(name) for name in KEY_COLUMNS]
    if with_version:
        columns.append(batch.column(VERSION_COLUMN).cast(pa.int64()))
    texts = [column.cast(pa.string()) for column in columns]
    keys: list[str] = pc.binary_join_element_wise(
        *texts, SEPARATOR, null_handling="replace", null_replacement=""
    ).to_pylist()
    return keys
