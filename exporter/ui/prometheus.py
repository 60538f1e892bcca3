"""A run's events counted for Prometheus: one text file, written whole when the run has ended."""

import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from exporter.errors import DestinationError, UsageError, quote, shorten
from exporter.events import Event
from exporter.settings.files import describe_kind, read_regular
from exporter.ui.errors import ErrorReporter, exit_code_of
from exporter.ui.stats import RunStats

LAST_SUCCESS = "livy_exporter_last_success_timestamp_seconds"
MAX_METRICS_BYTES = 1 << 24
"""No run of ours wrote a longer file: it is somebody else's."""
NEWEST_SESSION = "livy_exporter_newest_session_timestamp_seconds"


@dataclass(frozen=True, slots=True)
class Former:
    """What outlives a run that failed: told by the file of the run before it."""

    success_s: float | None = None
    newest_session_s: float | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended; times are seconds since 1970."""

    exit_code: int
    started_s: float
    ended_s: float


class RunMetrics:
    """A listener that counts a run's events, and writes the counts to a file at its end.

    Nothing is written before that, so the way of the data knows nothing of it. `now_s` is the time
    of day in seconds since 1970.
    """

    def __init__(self, path: str, *, output: str, now_s: Callable[[], float] = time.time) -> None:
        self._path = path
        self._output = output
        self._now_s = now_s
        self._started_s = now_s()
        self._stats = RunStats()

    def __call__(self, event: Event) -> None:
        self._stats.apply(event, self._now_s())

    def write(self, exit_code: int) -> None:
        """Replace the file as one act. Raises DestinationError; what is there stays then."""
        gauges = Gauges(
            self._stats,
            Ending(exit_code, self._started_s, self._now_s()),
            output=self._output,
            former=read_former(self._path),
        )
        try:
            write_samples(self._path, gauges.samples)
        except OSError as exc:
            raise DestinationError(
                f"cannot write the metrics to '{shorten(self._path)}': {exc.strerror}",
                hint="name a file in a folder that can be written with --metrics-file; this changes"
                " nothing else",
            ) from exc


def open_metrics(
    path: str | None, *, output: str | None, manifest: str | None
) -> RunMetrics | None:
    """The listener for `--metrics-file`; None where no file is wanted.

    Raises UsageError for a name that would replace what the run publishes.
    """
    if path is None:
        return None
    hint = "give --metrics-file the name of another file, such as livy.prom"
    if path == "-" or "\0" in path:
        raise UsageError(f"the metrics cannot go to {quote(path)}", hint=hint)
    with suppress(OSError):  # what cannot be looked at cannot be written, which is told at the end
        mode = os.stat(path).st_mode  # noqa: PTH116 - a text stays as it was typed
        if not stat.S_ISREG(mode):
            raise UsageError(
                f"the metrics cannot go to {quote(path)}: it is {describe_kind(mode)}", hint=hint
            )
    place = os.path.realpath(path)
    for other in (output, f"{output}.manifest.json", manifest):
        if other is not None and other != "-" and place == os.path.realpath(other):
            raise UsageError(
                f"the metrics cannot go to '{shorten(path)}', which the export writes itself",
                hint=hint,
            )
    return RunMetrics(path, output=output or "")


def read_former(path: str) -> Former:
    """The times that a former run left in the file; none where it cannot be read as such."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, float] = {}
    # A file of somebody else, or a damaged one, is replaced as if it were not there.
    with suppress(OSError, ValueError, LookupError):
        text = read_regular(path, max_bytes=MAX_METRICS_BYTES).decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.value > 0:
                    found[sample.name] = max(sample.value, found.get(sample.name, 0.0))
    return Former(found.get(LAST_SUCCESS), found.get(NEWEST_SESSION))


@dataclass(frozen=True, slots=True)
class Sample:
    """One value; samples of a name have the same meaning and the same labels."""

    name: str
    meaning: str
    value: float
    labels: dict[str, str]


class Gauges:
    """Every sample of a run; all are gauges, for each run starts from nothing.

    Each has the label `output`: the files of several jobs are read side by side.
    """

    def __init__(self, stats: RunStats, ending: Ending, *, output: str, former: Former) -> None:
        self._output = output
        self.samples: list[Sample] = []
        self._add_run(stats, ending)
        self._add_requests(stats)
        self._add_gateways(stats)
        self._add_freshness(stats, ending, former)

    def _add(self, name: str, meaning: str, value: float, **labels: str) -> None:
        self.samples.append(Sample(name, meaning, value, {"output": self._output, **labels}))

    def _add_run(self, stats: RunStats, ending: Ending) -> None:
        self._add("livy_exporter_run_exit_code", "Exit code of the last run.", ending.exit_code)
        self._add(
            "livy_exporter_run_start_timestamp_seconds",
            "When the last run began.",
            ending.started_s,
        )
        self._add(
            "livy_exporter_run_duration_seconds",
            "How long the last run took.",
            max(0.0, ending.ended_s - ending.started_s),
        )
        self._add(
            "livy_exporter_run_sessions",
            "Sessions that the last run wrote, published or not.",
            stats.sessions_written,
        )
        if stats.finished is not None:
            self._add(
                "livy_exporter_run_published_bytes",
                "Size of the files that the last run published.",
                stats.finished.size_bytes,
            )

    def _add_requests(self, stats: RunStats) -> None:
        self._add("livy_exporter_run_pages", "Pages that the last run read.", stats.pages_read)
        for outcome, count in (
            ("ok", stats.requests_ok),
            ("throttled", stats.requests_throttled),
            ("failed", stats.requests_failed),
        ):
            self._add(
                "livy_exporter_run_requests",
                "Requests of the last run by their outcome.",
                count,
                outcome=outcome,
            )
        self._add(
            "livy_exporter_run_retries", "Requests that the last run asked again.", stats.retries
        )

    def _add_gateways(self, stats: RunStats) -> None:
        for gateway, listing in sorted(stats.gateways.items()):
            if listing.session_count is None or listing.proof is None:
                continue
            ids = {"workspace_id": gateway.workspace_id, "gateway_id": gateway.gateway_id}
            self._add(
                "livy_exporter_gateway_sessions",
                "Sessions of a gateway that the last run read.",
                listing.session_count,
                **ids,
            )
            self._add(
                "livy_exporter_gateway_proof",
                "How the last run proved that it has every session of a gateway; always 1.",
                1,
                **ids,
                proof=listing.proof,
            )

    def _add_freshness(self, stats: RunStats, ending: Ending, former: Former) -> None:
        """What alerts go by: a run that failed repeats what the last good one told."""
        success_s, newest_s = former.success_s, former.newest_session_s
        if ending.exit_code == 0:
            success_s = ending.ended_s
            if stats.newest_create_ms is not None:
                newest_s = stats.newest_create_ms / 1000
        if success_s is not None:
            self._add(LAST_SUCCESS, "When the last run that exited with 0 ended.", success_s)
        if newest_s is not None:
            self._add(
                NEWEST_SESSION,
                "Create time of the newest session that the last good run saw.",
                newest_s,
            )
            self._add(
                "livy_exporter_newest_session_lag_seconds",
                "Age of that session when the last run ended.",
                ending.ended_s - newest_s,
            )


def write_samples(path: str, samples: Sequence[Sample]) -> None:
    """Write beside the file, then rename. Raises OSError."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    for each in samples:
        if each.name not in gauges:
            gauges[each.name] = Gauge(each.name, each.meaning, list(each.labels), registry=registry)
        gauges[each.name].labels(**each.labels).set(each.value)
    write_to_textfile(path, registry)


def run_with_metrics(
    run: Callable[[], int], metrics: RunMetrics | None, *, reporter: ErrorReporter
) -> int:
    """The exit code of `run`, written to the metrics however it ends.

    Metrics that cannot be written are told, and change nothing else: the code is that of the run.
    """
    code = 1
    try:
        code = run()
    except BaseException as exc:
        code = exit_code_of(exc)
        raise
    finally:
        if metrics is not None:
            try:
                metrics.write(code)
            except DestinationError as exc:
                if code == 0:
                    reporter.report_error(exc)
                else:  # the error is what made the run fail
                    reporter.report_warning(str(exc))
    return code
