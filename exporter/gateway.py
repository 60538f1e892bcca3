"""Which session list a page, a row or an event belongs to; performs no I/O."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Gateway:
    """A Livy gateway, named in full: three services' ids that together key one session list."""

    region_id: str
    workspace_id: str
    gateway_id: str
    """`livyComputeId` in the request's path, `computeId` in a session."""

    def __str__(self) -> str:
        return f"{self.workspace_id}/{self.gateway_id}"
