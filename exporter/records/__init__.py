"""What a session is: as received, and as a row."""

from typing import Any

RawSession = dict[str, Any]
"""One session as `orjson` decoded it; lives only between the service's answer and the sink."""
