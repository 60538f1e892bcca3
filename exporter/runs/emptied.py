"""Whether a run would take sessions away because the service shows none; blocks.

An answer that says "nothing" costs a service no trouble, and an output its history: a list that is
empty where the output holds sessions of it is believed only where the settings say so.
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


def require_kept(
    destination: Destination,
    manifest: Manifest | None,
    listings: Sequence[ListingFacts],
    *,
    time_range: TimeRange,
) -> None:
    """For a run that replaces the output; reads it only where a list was empty.

    Raises EmptiedError when nothing was found and the output has rows, and when nothing was found
    of a gateway of which it has. A gateway without sessions in the time range is no matter if its
    list has others, unless the output is of the same time range.
    """
    nothing = [facts for facts in listings if facts.session_count == 0]
    if not nothing or destination.kind == "stream":
        return
    if len(nothing) == len(listings):
        count = count_rows(destination, manifest)
        if count != 0:
            raise build_error(destination, [each.gateway for each in listings], count)
        return
    if time_range.has_bounds and (manifest is None or manifest.time_range != time_range):
        nothing = [facts for facts in nothing if facts.total_count_last == 0]
    emptied = find_held(destination, manifest, [facts.gateway for facts in nothing])
    if emptied:
        raise build_error(destination, emptied, None)


def find_silent(
    bookmarks: Mapping[Gateway, Bookmark], listings: Sequence[ListingFacts]
) -> dict[Gateway, Bookmark]:
    """For a run that adds: gateways that had sessions and now show an empty list, each with what
    was known of it. Nothing of them leaves the output; each is logged.
    """
    silent: dict[Gateway, Bookmark] = {}
    for facts in listings:
        before = bookmarks.get(facts.gateway)
        had_any = before is not None and before.total_count > 0
        if before is not None and had_any and facts.session_count == facts.total_count_last == 0:
            silent[facts.gateway] = before
            logger.warning(
                "%s shows no session, and had %s before: what the output has of it stays;"
                " --allow-empty takes that for the truth",
                facts.gateway,
                f"{before.total_count:,}",
                extra={"gateway": facts.gateway},
            )
    return silent


def build_error(
    destination: Destination, gateways: Sequence[Gateway], row_count: int | None
) -> EmptiedError:
    first, *others = gateways
    named = str(first) if not others else f"{first} and {len(others):,} more gateways"
    held = "sessions" if row_count is None or row_count < 0 else f"{row_count:,} sessions"
    of_it = "" if row_count is not None else " of it" if not others else " of them"
    error = EmptiedError(
        f"no session was found of {named}, and '{destination.output}' holds {held}{of_it}",
        hint="nothing was published: check --workspace, --gateway, --since and --until, and run"
        " again; --allow-empty publishes it without them",
    )
    error.gateway = None if others else first
    return error


def count_rows(destination: Destination, manifest: Manifest | None) -> int:
    """Rows that a reader of the output finds; -1 where there are some, and nobody counted them."""
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
    """Whether a file without a manifest has rows; one that cannot be read might."""
    store, name = destination.store, destination.name
    if not store.size_of(name):
        return False
    try:
        with store.open_input(name) as stream:
            read = read_keys(
                stream,
                output_format=destination.file_format,
                codec=destination.file_codec,
                with_version=False,
            )
            return any(keys for keys in read)
    except (UnreadableFileError, DestinationError):
        return True


def find_held(
    destination: Destination, manifest: Manifest | None, gateways: Sequence[Gateway]
) -> list[Gateway]:
    """Those of the gateways that the output has sessions of."""
    if not gateways:
        return []
    if count_rows(destination, manifest) == 0:
        return []
    found = set() if manifest is None else find_in_manifest(manifest)
    if destination.table is not None:
        # A row may name another gateway than the one it was listed by, and others may write, too.
        found |= find_in_table(destination.table, frozenset(gateways) - found)
    return [each for each in gateways if each in found]


def find_in_table(table: Table, gateways: frozenset[Gateway]) -> set[Gateway]:
    """Reads no further than to the last of them."""
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
    """The gateways that had sessions, as far as its last run tells.

    A run that adds counts what it has added: there the list's own total tells whether the output
    has any.
    """
    adds = manifest.mode == "incremental"
    return {
        each.gateway
        for each in manifest.gateways
        if each.session_count > 0 or (adds and each.total_count_last > 0)
    }
