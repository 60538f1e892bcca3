"""The previous run of an output: its state, and its manifest's facts."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from exporter.errors import UsageError
from exporter.listing.bookmark import Bookmark
from exporter.model import Gateway, ListingFacts
from exporter.runs.manifest import Manifest, ManifestFile
from exporter.runs.state import FullRunNeeded, State, check_owner, next_exported_at, read_state
from exporter.stores.interface import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PreviousRun:
    """The run that this one builds on; the defaults for a run that replaces the output."""

    state: State | None = None
    full_because: str = ""
    """Why an incremental run must list in full, for a reader; empty if it need not."""
    files: Sequence[ManifestFile] = ()
    """The files that the run adds to, from the previous manifest."""
    run_id: str = ""
    """The run that was published last; empty before the first one."""
    finished_at: datetime | None = None
    """The end of that run, where no state says when its rows were exported."""

    @property
    def bookmarks(self) -> Mapping[Gateway, Bookmark]:
        return {} if self.state is None else self.state.gateways

    def exported_at(self, started_at: datetime) -> datetime:
        """The `exported_at` of this run's rows: later than that of all earlier rows."""
        exported_at = next_exported_at(started_at, self.state)
        if self.finished_at is None:
            return exported_at
        return max(exported_at, self.finished_at + timedelta(milliseconds=1))

    def check_gateways(self, gateways: Sequence[Gateway], *, output: str, region_id: str) -> None:
        """Raises UsageError when the state belongs to other gateways."""
        if self.state is not None:
            check_owner(self.state, output=output, region_id=region_id, gateways=gateways)


def read_previous(
    state_at: tuple[Store, str],
    manifest: Manifest | None,
    *,
    output: str,
    region_id: str,
    omit: tuple[str, ...] = (),
    filters: Mapping[str, Any] = MappingProxyType({}),
) -> PreviousRun:
    """The run that an incremental run continues from; blocks.

    A full listing, added to the output, is needed when the state is damaged or of a newer version,
    when it has another `omit` or other `filters`, and when it is not of the run published last.
    Raises UsageError where the state belongs to another output.
    """
    published = read_published(manifest)
    store, name = state_at
    text = store.read(name)
    if text is None:
        reason = "" if manifest is None else f"there is no state at {store.path_of(name)}"
        return require_full_listing(published, reason)
    state = read_state(text, output=output, region_id=region_id, gateways=())
    if isinstance(state, FullRunNeeded):
        return require_full_listing(published, state.reason)
    if published.run_id != state.run_id:
        reason = f"the state is of run {state.run_id}, which is not the one published last"
        return require_full_listing(published, reason)
    if state.omit != omit:
        return require_full_listing(published, "the run before left other fields out")
    if state.filters != filters:
        return require_full_listing(published, "the run before asked for other sessions")
    return replace(published, state=state, finished_at=None)


def require_partitions(
    manifest: Manifest | None, partition_by: Sequence[str], *, output: str
) -> None:
    """Raises UsageError for a run that would add to a dataset with other partitions.

    Readers need the same partition columns in all folders of a dataset.
    """
    if manifest is None:
        return
    previous = manifest.partition_by
    if previous != tuple(partition_by):
        raise UsageError(
            f"'{output}' is {describe_partitions(previous)},"
            f" not {describe_partitions(partition_by)}",
            hint="leave --partition-by as it was"
            + (f" (--partition-by {','.join(previous)})" if previous else " (none)")
            + ", or have a run without --incremental replace the dataset",
        )


def describe_partitions(partition_by: Sequence[str]) -> str:
    return f"partitioned by {', '.join(partition_by)}" if partition_by else "without partitions"


def read_published(manifest: Manifest | None) -> PreviousRun:
    """The facts of the manifest, without the state."""
    if manifest is None:
        return PreviousRun()
    return PreviousRun(
        files=manifest.files, run_id=manifest.run_id, finished_at=manifest.finished_at
    )


def require_full_listing(published: PreviousRun, reason: str) -> PreviousRun:
    """Logs the reason; an empty one is that of a first run."""
    if reason:
        logger.warning("listing in full: %s", reason)
    return replace(published, full_because=reason)


def update_bookmarks(
    previous: PreviousRun,
    bookmarks: Mapping[Gateway, Bookmark | None],
    listings: Sequence[ListingFacts],
) -> dict[Gateway, Bookmark]:
    """The bookmarks for the next run: the newest proven one of each gateway."""
    updated = dict(previous.bookmarks)
    for facts in listings:
        bookmark = bookmarks[facts.gateway]
        if bookmark is not None:
            updated[facts.gateway] = bookmark
        elif facts.proof != "unproven":
            updated.pop(facts.gateway, None)
    return updated
