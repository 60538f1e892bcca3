"""A run's counts as a Prometheus textfile, written when the run has ended."""

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
"""A longer file is not one of ours."""
NEWEST_SESSION = "livy_exporter_newest_session_timestamp_seconds"


@dataclass(frozen=True, slots=True)
class PreviousTimes:
    """Times in the file of the run before, which a failed run repeats."""

    success_s: float | None = None
    newest_session_s: float | None = None


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The end of a run; times are seconds since 1970."""

    exit_code: int
    started_s: float
    ended_s: float


class RunMetrics:
    """A listener that counts a run's events, and writes the counts to a file when it has ended.

    `now_s` is the time of day in seconds since 1970.
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
        """Replace the file atomically. Raises DestinationError, and leaves the old file."""
        gauges = Gauges(
            self._stats,
            RunEnd(exit_code, self._started_s, self._now_s()),
            output=self._output,
            previous=read_previous_times(self._path),
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
    """The listener for `--metrics-file`, if a file is wanted.

    Raises UsageError for a name that would replace a file that the run publishes.
    """
    if path is None:
        return None
    hint = "give --metrics-file the name of another file, such as livy.prom"
    if path == "-" or "\0" in path:
        raise UsageError(f"the metrics cannot go to {quote(path)}", hint=hint)
    with suppress(OSError):  # `write` reports it
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


def read_previous_times(path: str) -> PreviousTimes:
    """The times in the file, if it can be read."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, float] = {}
    # A foreign or damaged file is replaced as if it were not there.
    with suppress(OSError, ValueError, LookupError):
        text = read_regular(path, max_bytes=MAX_METRICS_BYTES).decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.value > 0:
                    found[sample.name] = max(sample.value, found.get(sample.name, 0.0))
    return PreviousTimes(found.get(LAST_SUCCESS), found.get(NEWEST_SESSION))


@dataclass(frozen=True, slots=True)
class Sample:
    """One value; samples of one name have the same meaning and the same labels."""

    name: str
    meaning: str
    value: float
    labels: dict[str, str]


class Gauges:
    """Every sample of a run, as gauges: each run starts from zero.

    All have the label `output`, to tell the files of several jobs apart.
    """

    def __init__(
        self, stats: RunStats, end: RunEnd, *, output: str, previous: PreviousTimes
    ) -> None:
        self._output = output
        self.samples: list[Sample] = []
        self._add_run(stats, end)
        self._add_requests(stats)
        self._add_gateways(stats)
        self._add_freshness(stats, end, previous)

    def _add(self, name: str, meaning: str, value: float, **labels: str) -> None:
        self.samples.append(Sample(name, meaning, value, {"output": self._output, **labels}))

    def _add_run(self, stats: RunStats, end: RunEnd) -> None:
        self._add("livy_exporter_run_exit_code", "Exit code of the last run.", end.exit_code)
        self._add(
            "livy_exporter_run_start_timestamp_seconds",
            "When the last run began.",
            end.started_s,
        )
        self._add(
            "livy_exporter_run_duration_seconds",
            "How long the last run took.",
            max(0.0, end.ended_s - end.started_s),
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
        self._add("livy_exporter_run_retries", "Retries of the last run.", stats.retries)

    def _add_gateways(self, stats: RunStats) -> None:
        for gateway, listing in sorted(stats.gateways.items()):
            if listing.facts is None:
                continue
            ids = {"workspace_id": gateway.workspace_id, "gateway_id": gateway.gateway_id}
            self._add(
                "livy_exporter_gateway_sessions",
                "Sessions of a gateway that the last run read.",
                listing.facts.session_count,
                **ids,
            )
            self._add(
                "livy_exporter_gateway_proof",
                "How the last run proved that it has every session of a gateway; always 1.",
                1,
                **ids,
                proof=listing.facts.proof,
            )

    def _add_freshness(self, stats: RunStats, end: RunEnd, previous: PreviousTimes) -> None:
        """Samples for alerts: a failed run repeats the times of the last good one."""
        success_s, newest_s = previous.success_s, previous.newest_session_s
        if end.exit_code == 0:
            success_s = end.ended_s
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
                end.ended_s - newest_s,
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
    """The exit code of `run`, written to the metrics even if it raises.

    A failure to write the metrics is reported and does not change the code.
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
                else:  # the one error is the run's
                    reporter.report_warning(str(exc))
    return code
