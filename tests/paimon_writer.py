"""Publishes one run's sessions to a Paimon table of a local warehouse, in a process to be killed.

    python -m tests.paimon_writer FOLDER replace|upsert RUN_ID STATE FIRST END

It says so when all rows are there and it begins to publish.
"""

import sys
from collections.abc import Sequence
from typing import Any

from exporter.sinks import TableMode
from exporter.tables.interface import Commit, TableRequest
from exporter.tables.output import TableOutput
from exporter.tables.paimon import open_table
from tests.tables import EXPORTED_AT, FIRST, raw_sessions


def main(arguments: Sequence[str]) -> None:
    folder, word, run_id, state, first, end = arguments
    modes: dict[str, TableMode] = {"replace": "replace", "upsert": "upsert"}
    request = TableRequest(output=folder)
    output: Any = TableOutput(
        open_table(request),
        output=folder,
        mode=modes[word],
        commit=Commit(run_id=run_id, exporter_version="1"),
        exported_at=EXPORTED_AT,
    )
    output.write(FIRST, raw_sessions(*range(int(first), int(end)), state=state))
    output.close()
    print("publishing", flush=True)
    output.publish()


if __name__ == "__main__":
    main(sys.argv[1:])
