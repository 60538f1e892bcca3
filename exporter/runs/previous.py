"""What earlier runs of an output left for the next one: their state, and what they published."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from exporter.errors import UsageError
from exporter.listing.bookmark import Bookmark
from exporter.model import Gateway, ListingFacts
from exporter.runs.state import FullRunNeeded, State, check_owner, next_exported_at, read_state
from exporter.stores.interface import Store
from exporter.times import parse_rfc3339

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PreviousRun:
    """What a run builds on; nothing, for one that replaces the output."""

    state: State | None = None
    full_because: str = ""
    """Why an incremental run has to list in full, for a reader; empty if it has not."""
    files: Sequence[Mapping[str, Any]] = field(default=())
    """The files that the run adds to, as the manifest before it names them."""
    run_id: str = ""
    """Of the run that was published last; empty before the first one."""
    finished_at: datetime | None = None
    """Of that run, where there is no state to tell when its rows were exported."""

    @property
    def known(self) -> Mapping[Gateway, Bookmark]:
        return {} if self.state is None else self.state.gateways

    def exported_at(self, started_at: datetime) -> datetime:
        """Of the run's rows: the newest version of a session is that of the latest run."""
        exported_at = next_exported_at(started_at, self.state)
        if self.finished_at is None:
            return exported_at
        return max(exported_at, self.finished_at + timedelta(milliseconds=1))

    def check_gateways(self, gateways: Sequence[Gateway], *, output: str, region_id: str) -> None:
        """Raises UsageError when the state is of other gateways."""
        if self.state is not None:
            check_owner(self.state, output=output, region_id=region_id, gateways=gateways)


def read_previous(
    state_at: tuple[Store, str],
    manifest: Mapping[str, Any] | None,
    *,
    output: str,
    region_id: str,
    omit: tuple[str, ...] = (),
) -> PreviousRun:
    """What an incremental run goes on from; blocks.

    A state that is damaged, of a newer version, of other fields left out than `omit`, or not of the
    run that was published last needs a full listing, which adds to what is there. Raises UsageError
    where the state is another output's.
    """
    published = read_published(manifest)
    store, name = state_at
    text = store.read(name)
    if text is None:
        reason = "" if manifest is None else f"there is no state at {store.path_of(name)}"
        return warn(published, reason)
    state = read_state(text, output=output, region_id=region_id, gateways=())
    if isinstance(state, FullRunNeeded):
        return warn(published, state.reason)
    if published.run_id != state.run_id:
        reason = f"the state is of run {state.run_id}, which is not the one published last"
        return warn(published, reason)
    if state.omit != omit:
        return warn(published, "the run before left other fields out")
    return replace(published, state=state, finished_at=None)


def require_partitions(
    manifest: Mapping[str, Any] | None, partition_by: Sequence[str], *, output: str
) -> None:
    """Raises UsageError for a run that would add to a dataset of other partitions: readers take the
    names of all its folders, or of none.
    """
    if manifest is None:
        return
    former = [str(each) for each in manifest.get("partition_by") or ()]
    if former != list(partition_by):
        raise UsageError(
            f"'{output}' is {describe_partitions(former)}, not {describe_partitions(partition_by)}",
            hint="leave --partition-by as it was"
            + (f" (--partition-by {','.join(former)})" if former else " (none)")
            + ", or have a run without --incremental replace the dataset",
        )


def describe_partitions(partition_by: Sequence[str]) -> str:
    return f"partitioned by {', '.join(partition_by)}" if partition_by else "without partitions"


def read_published(manifest: Mapping[str, Any] | None) -> PreviousRun:
    """What the manifest alone tells."""
    if manifest is None:
        return PreviousRun()
    finished_at = None
    with suppress(KeyError, TypeError, ValueError):
        finished_at = parse_rfc3339(manifest["finished_at"])
    return PreviousRun(
        files=tuple(manifest["files"]), run_id=manifest["run_id"], finished_at=finished_at
    )


def warn(published: PreviousRun, reason: str) -> PreviousRun:
    if reason:
        logger.warning("listing in full: %s", reason)
    return replace(published, full_because=reason)


def build_next_gateways(
    previous: PreviousRun,
    found: Mapping[Gateway, Bookmark | None],
    listings: Sequence[ListingFacts],
) -> dict[Gateway, Bookmark]:
    """What the next run goes on from: of each gateway the newest that is proven."""
    gateways = dict(previous.known)
    for facts in listings:
        known = found[facts.gateway]
        if known is not None:
            gateways[facts.gateway] = known
        elif facts.proof != "unproven":
            gateways.pop(facts.gateway, None)
    return gateways
