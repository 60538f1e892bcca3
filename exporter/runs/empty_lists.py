"""Guards the output against lists that are empty by mistake; blocks.

A faulty service easily answers with an empty list, which would cost an output its history. So an
empty list of a gateway whose sessions the output holds is accepted only with `allow_empty`.
"""

import logging
from collections.abc import Mapping, Sequence

from exporter.destinations.destination import Destination
from exporter.errors import DestinationError, EmptiedError
from exporter.listing.bookmark import Bookmark
from exporter.model import SCOPE_COLUMNS, Gateway, ListingFacts, TimeRange
from exporter.runs.manifest import Manifest
from exporter.sinks.dataset import is_part
from exporter.sinks.formats import read_keys
from exporter.sinks.keys import UnreadableFileError
from exporter.tables.interface import Table

logger = logging.getLogger(__name__)


def require_no_loss(
    destination: Destination,
    manifest: Manifest | None,
    listings: Sequence[ListingFacts],
    *,
    time_range: TimeRange,
) -> None:
    """Check a run that replaces the output, which is read only where a list was empty.

    Raises EmptiedError when no list has sessions and the output has rows, and when a gateway has no
    sessions and the output holds some of it. A gateway without sessions in the time range may have
    others in its list, unless the output has the same time range.
    """
    empty = [facts for facts in listings if facts.session_count == 0]
    if not empty or destination.kind == "stream":
        return
    if len(empty) == len(listings):
        count = count_rows(destination, manifest)
        if count != 0:
            raise build_error(destination, [each.gateway for each in listings], count)
        return
    if time_range.has_bounds and (manifest is None or manifest.time_range != time_range):
        empty = [facts for facts in empty if facts.total_count_last == 0]
    emptied = find_in_output(destination, manifest, [facts.gateway for facts in empty])
    if emptied:
        raise build_error(destination, emptied, None)


def find_emptied(
    bookmarks: Mapping[Gateway, Bookmark], listings: Sequence[ListingFacts]
) -> dict[Gateway, Bookmark]:
    """The gateways that had sessions and now show an empty list, with their bookmarks.

    For a run that adds, which takes none of their sessions from the output. Logs each of them.
    """
    emptied: dict[Gateway, Bookmark] = {}
    for facts in listings:
        bookmark = bookmarks.get(facts.gateway)
        if bookmark is None or bookmark.total_count == 0:
            continue
        if facts.session_count == facts.total_count_last == 0:
            emptied[facts.gateway] = bookmark
            logger.warning(
                "%s shows no session, and had %s before: what the output has of it stays;"
                " --allow-empty takes that for the truth",
                facts.gateway,
                f"{bookmark.total_count:,}",
                extra={"gateway": facts.gateway},
            )
    return emptied


def build_error(
    destination: Destination, gateways: Sequence[Gateway], row_count: int | None
) -> EmptiedError:
    first, *others = gateways
    names = str(first) if not others else f"{first} and {len(others):,} more gateways"
    sessions = "sessions" if row_count is None or row_count < 0 else f"{row_count:,} sessions"
    of_it = "" if row_count is not None else " of it" if not others else " of them"
    error = EmptiedError(
        f"no session was found of {names}, and '{destination.output}' holds {sessions}{of_it}",
        hint="nothing was published: check --workspace, --gateway, --since and --until, and run"
        " again; --allow-empty publishes it without them",
    )
    error.gateway = None if others else first
    return error


def count_rows(destination: Destination, manifest: Manifest | None) -> int:
    """Rows in the output, as its readers find it; -1 for an unknown number above 0."""
    if destination.table is not None:
        return -1 if has_rows(destination.table) else 0
    store, name = destination.store, destination.name
    if manifest is None:
        if destination.kind == "dataset":
            return -1 if any(is_part(each.name) for each in store.list_files()) else 0
        return -1 if has_any_key(destination) else 0
    files = [each for each in manifest.files if each.row_count > 0]
    if not any(store.size_of(name or each.path) is not None for each in files):
        return 0
    return manifest.row_count


def has_rows(table: Table) -> bool:
    return any(batch.num_rows > 0 for batch in table.read_columns(SCOPE_COLUMNS))


def has_any_key(destination: Destination) -> bool:
    """Whether a file without a manifest has rows; true for one that cannot be read."""
    store, name = destination.store, destination.name
    if not store.size_of(name):
        return False
    try:
        with store.open_input(name) as stream:
            batches = read_keys(
                stream,
                output_format=destination.file_format,
                codec=destination.file_codec,
                with_version=False,
            )
            return any(batches)
    except (UnreadableFileError, DestinationError):
        return True


def find_in_output(
    destination: Destination, manifest: Manifest | None, gateways: Sequence[Gateway]
) -> list[Gateway]:
    """Those of the gateways whose sessions the output holds."""
    if not gateways or count_rows(destination, manifest) == 0:
        return []
    found = set() if manifest is None else find_in_manifest(manifest)
    if destination.table is not None:
        # Other programs may write to a table too, and a row may name another gateway than its list.
        found |= find_in_table(destination.table, frozenset(gateways) - found)
    return [each for each in gateways if each in found]


def find_in_table(table: Table, gateways: frozenset[Gateway]) -> set[Gateway]:
    """Reads until all of the gateways are found."""
    found: set[Gateway] = set()
    if not gateways:
        return found
    for batch in table.read_columns(SCOPE_COLUMNS):
        scopes = zip(*(batch.column(name).to_pylist() for name in SCOPE_COLUMNS), strict=True)
        found |= gateways.intersection(Gateway(*each) for each in set(scopes))
        if len(found) == len(gateways):
            break
    return found


def find_in_manifest(manifest: Manifest) -> set[Gateway]:
    """The gateways that had sessions in the last run.

    A run that adds counts only added sessions; there the list's total shows whether it had any.
    """
    adds = manifest.mode == "incremental"
    return {
        each.gateway
        for each in manifest.gateways
        if each.session_count > 0 or (adds and each.total_count_last > 0)
    }
