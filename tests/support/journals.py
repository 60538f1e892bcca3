"""Reads one gateway with a journal, in a process of its own, which may kill itself on the way.

`python -m tests.support.journals WORKSPACE GATEWAY [--journal FILE] [--die-at N] [--ids FILE]`
asks the endpoint of the environment. At the end, it says as JSON how it went.
"""

import argparse
import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pyarrow as pa  # an export pays for it with or without a journal

from exporter import Settings
from exporter.api import calls
from exporter.api.connect import connect, resolve_endpoint
from exporter.events import Event, PageRead
from exporter.journal.journal import Journal
from exporter.listing.fetch import fetch_sessions
from exporter.listing.full import FullListing
from exporter.listing.interface import PageRequest
from exporter.listing.replay import NO_ANSWER_LOG, AnswerLog
from exporter.model import Gateway, ListingQuery, RawSession, SessionPage
from exporter.version import __version__

CONCURRENCY = 16


async def read(arguments: argparse.Namespace) -> None:
    settings = Settings(
        endpoint=os.environ["LIVY_EXPORTER_ENDPOINT"],
        region=os.environ["LIVY_EXPORTER_REGION"],
        concurrency=CONCURRENCY,
    )
    service = resolve_endpoint(settings, environ=os.environ)
    gateway = Gateway(service.region_id, arguments.workspace, arguments.gateway)
    journal = open_journal(arguments.journal, gateway)
    ids: list[str] = []
    pages: list[PageRead] = []

    def listen(event: Event) -> None:
        if isinstance(event, PageRead):
            pages.append(event)
            if sum(not page.resumed for page in pages) == arguments.die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    async def on_rows(_: Gateway, sessions: list[RawSession]) -> None:
        ids.extend([session["sessionId"] for session in sessions])

    async with connect(settings, service, emit=listen, environ=os.environ) as client:

        async def fetch_page(request: PageRequest) -> SessionPage:
            return await client.send(
                calls.list_sessions(
                    request.gateway,
                    ListingQuery(page_size=request.page_size),
                    page_num=request.page_num,
                )
            )

        (facts,) = await fetch_sessions(
            [FullListing(gateway, page_size=100)],
            fetch_page=fetch_page,
            on_rows=on_rows,
            page_size=100,
            concurrency=CONCURRENCY,
            emit=listen,
            journal=journal,
        )
    size_bytes = close(journal)
    if arguments.ids is not None:
        arguments.ids.write_text("\n".join(ids))
    resumed_count = sum(page.resumed for page in pages)
    outcome = {
        "proof": facts.proof,
        "session_count": facts.session_count,
        "resumed_count": resumed_count,
        "read_count": len(pages) - resumed_count,
        "journal_bytes": size_bytes,
        "arrow": pa.__version__,
    }
    sys.stdout.write(json.dumps(outcome))


def open_journal(path: Path | None, gateway: Gateway) -> AnswerLog:
    if path is None:
        return NO_ANSWER_LOG
    started_at = datetime.now(UTC)
    return Journal(
        path,
        identity={"exporter_version": __version__, "page_size": 100},
        gateways=[gateway],
        run_id=f"{started_at:%Y%m%dT%H%M%SZ}",
        started_at=started_at,
        resume_within_s=3600,
    )


def close(journal: AnswerLog) -> int:
    if not isinstance(journal, Journal):
        return 0
    size_bytes = journal.size_bytes
    journal.remove()
    return size_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace")
    parser.add_argument("gateway")
    parser.add_argument("--journal", type=Path)
    parser.add_argument("--die-at", type=int, help="pages that this process asks for at most")
    parser.add_argument("--ids", type=Path)
    anyio.run(read, parser.parse_args())


if __name__ == "__main__":
    main()
