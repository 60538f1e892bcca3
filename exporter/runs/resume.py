"""Resumes a killed run of the same output from its journal; blocks."""

import hashlib
import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from exporter.destinations.destination import Sidecars
from exporter.journal.journal import Journal
from exporter.journal.spool import remove_stale
from exporter.listing.replay import NO_ANSWER_LOG, AnswerLog
from exporter.model import Gateway, TimeRange
from exporter.runs.prepare import RunContext, resolve_time_range
from exporter.runs.previous import PreviousRun
from exporter.runs.state import dump_state
from exporter.stores.local import LocalStore
from exporter.version import __version__

logger = logging.getLogger(__name__)


def open_journal(run: RunContext, previous: PreviousRun, gateways: Sequence[Gateway]) -> AnswerLog:
    """The journal of the run, which resumes that of a killed run if possible; blocks."""
    settings = run.settings
    spool = None if settings.spool is None else Path(settings.spool)
    sidecars = run.destination.sidecars
    path = None if sidecars is None else place_journal(sidecars, key=run.output_key, spool=spool)
    if path is None:
        return NO_ANSWER_LOG
    state = b"" if previous.state is None else dump_state(previous.state)
    journal = Journal(
        path,
        identity={
            "exporter_version": __version__,
            "endpoint": run.api.endpoint,
            "region": run.api.region_id,
            "output": run.output_key,
            "format": run.destination.format,
            **run.query.identity,
            "since": settings.since,
            "until": settings.until,
            "incremental": settings.incremental,
            "settle": settings.settle,
            "full_every": settings.full_every,
            "state": hashlib.sha256(state).hexdigest(),
            # A later publish is newer than the answers in the journal.
            "predecessor": previous.run_id,
            # The journal holds whole answers, but other fields make other rows.
            **({"selection_of_fields": list(run.omit)} if run.omit else {}),
        },
        gateways=gateways,
        run_id=run.run_id,
        started_at=run.started_at,
        resume_within_s=settings.resume_within,
        fresh=not settings.resume,
    )
    if spool is not None:
        remove_stale(spool, now=run.started_at, resume_within_s=settings.resume_within)
    if journal.dropped is not None:
        logger.warning("starting afresh: %s", journal.dropped)
    if journal.resumed is not None:
        logger.info(
            "going on where run %s was: %s pages are here already",
            journal.resumed.run_id,
            f"{journal.resumed.answer_count:,}",
        )
    if settings.resume:
        return journal
    journal.remove()
    return NO_ANSWER_LOG


def find_start(started_at: datetime, journal: AnswerLog) -> datetime:
    """The start of the resumed run, or of this one.

    Listings decide by that time, since otherwise the recorded answers would not fit.
    """
    return started_at if journal.resumed is None else journal.resumed.started_at


def find_time_range(run: RunContext, journal: AnswerLog) -> TimeRange:
    """The time range, whose durations count back from the start of the resumed run."""
    settings = run.settings
    now = find_start(run.started_at, journal)
    return resolve_time_range(settings.since, settings.until, now=now)


def end_journal(journal: AnswerLog, *, keep: bool) -> None:
    if not keep:
        journal.remove()
    elif (kept_count := journal.close()) > 0:
        logger.warning("%s pages read are kept: the next run goes on from there", kept_count)


def place_journal(sidecars: Sidecars, *, key: str, spool: Path | None) -> Path | None:
    """The path of an output's journal: in the folder `spool`, or beside a local output.

    None for an output in an object store without a spool.
    """
    if spool is not None:
        return spool / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.journal"
    if isinstance(sidecars.store, LocalStore):
        return Path(sidecars.store.path_of(sidecars.journal))
    return None
