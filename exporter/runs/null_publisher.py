"""The publisher of an output without a manifest."""

from exporter.runs.manifest import Manifest
from exporter.sinks.interface import Output
from exporter.tables.interface import Commit


class NullPublisher:
    """Publishes a stream, which no other run writes and which needs no recovery."""

    def ensure_held(self) -> None:
        pass

    def recover(self) -> None:
        pass

    def publish(self, output: Output, manifest: Manifest, state: bytes | None) -> None:  # noqa: ARG002
        output.publish()

    def remove_leftovers(self) -> None:
        pass

    def compact(self, commit: Commit) -> None:
        pass

    def read_manifest(self) -> Manifest | None:
        return None

    def require_manifest(self) -> None:
        pass
