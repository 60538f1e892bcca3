"""The stream that pyarrow writes to."""

from exporter.sinks.interface import ByteStream


class NonClosingStream:
    """Keeps a stream open when pyarrow closes it.

    pyarrow's writers close their stream, and write once more when they are garbage-collected before
    their end. Here a close leaves the stream open, and `cut_off` discards later writes.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._size_bytes = 0
        self._is_cut_off = False
        self.closed = False

    def cut_off(self) -> None:
        """Discard all further writes."""
        self._is_cut_off = True

    def write(self, chunk: bytes) -> int:
        if not self._is_cut_off:
            self._stream.write(chunk)
        self._size_bytes += len(chunk)
        return len(chunk)

    def tell(self) -> int:
        return self._size_bytes

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False
