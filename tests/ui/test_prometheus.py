"""Claims about the metrics file of a run, and the times that outlive a failed one."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.errors import CredentialsError, DestinationError, IncompleteError, UsageError
from exporter.events import (
    GatewaysDiscovered,
    ListingStarted,
    PageRead,
    RequestEnded,
    RequestStarted,
    RetryScheduled,
    RunFinished,
    RunStarted,
    SessionsWritten,
)
from exporter.model import Gateway, Proof
from exporter.ui.errors import ErrorReporter
from exporter.ui.prometheus import (
    LAST_SUCCESS,
    NEWEST_SESSION,
    RunMetrics,
    open_metrics,
    run_with_metrics,
)
from tests.support.events import listing_finished

ONE = Gateway("cn-hangzhou", "w-1", "lc-1")
TWO = Gateway("cn-hangzhou", "w-1", "lc-2")
NOON_S = 1_767_268_800.0
LAG = "livy_exporter_newest_session_lag_seconds"

Labels = frozenset[tuple[str, str]]


class Clock:
    def __init__(self) -> None:
        self.now_s = NOON_S

    def __call__(self) -> float:
        return self.now_s


def read(path: Path) -> dict[str, dict[Labels, float]]:
    """Values by name and labels, without the label that all have; the types are looked at."""
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(path.read_text(encoding="utf-8")):
        assert family.type == "gauge"
        assert family.documentation.endswith(".")
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("output") == "out.parquet"
            found.setdefault(sample.name, {})[frozenset(labels.items())] = sample.value
    return found


def value_of(path: Path, name: str, **labels: str) -> float | None:
    return read(path).get(name, {}).get(frozenset(labels.items()))


def ended(
    path: Path, exit_code: int, *, clock: Clock | None = None, newest_ms: int | None = None
) -> None:
    """The file after a run that read one page."""
    metrics = RunMetrics(str(path), output="out.parquet", now_s=clock or Clock())
    metrics(RunStarted("r-1", "out.parquet", datetime.now(UTC)))
    metrics(PageRead(ONE, 1, 100, newest_create_ms=newest_ms))
    metrics.write(exit_code)


def test_every_count_of_a_run_is_written(tmp_path: Path) -> None:
    path, clock = tmp_path / "livy.prom", Clock()
    metrics = RunMetrics(str(path), output="out.parquet", now_s=clock)

    metrics(RunStarted("r-1", "out.parquet", datetime.now(UTC)))
    metrics(GatewaysDiscovered(2))
    proofs: dict[Gateway, Proof] = {ONE: "anchored", TWO: "unproven"}
    for gateway, proof in proofs.items():
        metrics(ListingStarted(gateway, 100, 1))
        metrics(PageRead(gateway, 1, 100, newest_create_ms=int(NOON_S * 1000) - 90_000))
        metrics(listing_finished(gateway, 100, proof))
    for outcome, count in (("ok", 3), ("throttled", 2), ("failed", 1)):
        for _ in range(count):
            metrics(RequestStarted(1))
            metrics(RequestEnded(outcome, 0, 0.1))  # type: ignore[arg-type]  # of a tuple's text
    metrics(RetryScheduled("page 1 of w-1/lc-1", 1, 0.5, "busy", ONE))
    metrics(SessionsWritten(200))
    metrics(RunFinished("out.parquet", "incomplete", 200, size_bytes=4096, elapsed_s=12.5))
    clock.now_s += 12.5
    metrics.write(0)

    none: Labels = frozenset()
    one = {"workspace_id": "w-1", "gateway_id": "lc-1"}
    two = {"workspace_id": "w-1", "gateway_id": "lc-2"}
    assert read(path) == {
        "livy_exporter_run_exit_code": {none: 0.0},
        "livy_exporter_run_start_timestamp_seconds": {none: NOON_S},
        "livy_exporter_run_duration_seconds": {none: 12.5},
        "livy_exporter_run_sessions": {none: 200.0},
        "livy_exporter_run_published_bytes": {none: 4096.0},
        "livy_exporter_run_pages": {none: 2.0},
        "livy_exporter_run_requests": {
            frozenset({("outcome", "ok")}): 3.0,
            frozenset({("outcome", "throttled")}): 2.0,
            frozenset({("outcome", "failed")}): 1.0,
        },
        "livy_exporter_run_retries": {none: 1.0},
        "livy_exporter_gateway_sessions": {
            frozenset(one.items()): 100.0,
            frozenset(two.items()): 100.0,
        },
        "livy_exporter_gateway_proof": {
            frozenset((one | {"proof": "anchored"}).items()): 1.0,
            frozenset((two | {"proof": "unproven"}).items()): 1.0,
        },
        LAST_SUCCESS: {none: NOON_S + 12.5},
        NEWEST_SESSION: {none: NOON_S - 90},
        LAG: {none: 102.5},
    }


@pytest.mark.parametrize("exit_code", [1, 2, 3, 4, 5, 130, 143])
def test_a_run_that_failed_keeps_the_times_of_the_last_good_one(
    exit_code: int, tmp_path: Path
) -> None:
    path, clock = tmp_path / "livy.prom", Clock()
    ended(path, 0, clock=clock, newest_ms=int(NOON_S - 60) * 1000)

    for _ in range(2):
        clock.now_s += 3600
        ended(path, exit_code, clock=clock, newest_ms=int(NOON_S) * 1000)

    assert value_of(path, "livy_exporter_run_exit_code") == exit_code
    assert value_of(path, LAST_SUCCESS) == NOON_S
    assert value_of(path, NEWEST_SESSION) == NOON_S - 60
    assert value_of(path, LAG) == 7260


def test_a_good_run_replaces_all_times(tmp_path: Path) -> None:
    path, clock = tmp_path / "livy.prom", Clock()
    ended(path, 0, clock=clock, newest_ms=1000)

    clock.now_s += 60
    ended(path, 0, clock=clock, newest_ms=2000)

    assert value_of(path, LAST_SUCCESS) == NOON_S + 60
    assert value_of(path, NEWEST_SESSION) == 2


def test_a_first_run_that_failed_has_no_time_of_success(tmp_path: Path) -> None:
    path = tmp_path / "livy.prom"

    ended(path, 1, newest_ms=1000)

    assert read(path).keys().isdisjoint({LAST_SUCCESS, NEWEST_SESSION, LAG})


def test_a_good_run_that_saw_no_session_keeps_the_newest_that_was_seen(tmp_path: Path) -> None:
    path = tmp_path / "livy.prom"
    ended(path, 0, newest_ms=2000)

    ended(path, 0, newest_ms=None)

    assert value_of(path, NEWEST_SESSION) == 2


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff\xfe", b"livy_exporter{", b"# HELP x\nx{a=} 1\n", b"{}"]
)
def test_a_damaged_file_is_replaced(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "livy.prom"
    path.write_bytes(content)

    ended(path, 1)

    assert value_of(path, "livy_exporter_run_exit_code") == 1
    assert value_of(path, LAST_SUCCESS) is None


def test_the_newest_session_is_the_latest_of_all_pages(tmp_path: Path) -> None:
    path = tmp_path / "livy.prom"
    metrics = RunMetrics(str(path), output="out.parquet", now_s=Clock())

    for newest_ms in (2000, None, 5000, 3000):
        metrics(PageRead(ONE, 1, 100, newest_create_ms=newest_ms))
    metrics.write(0)

    assert value_of(path, NEWEST_SESSION) == 5


def test_nothing_is_written_before_the_end_and_nothing_is_left_beside(tmp_path: Path) -> None:
    path = tmp_path / "livy.prom"
    metrics = RunMetrics(str(path), output="out.parquet", now_s=Clock())

    metrics(PageRead(ONE, 1, 100))
    before = list(tmp_path.iterdir())
    metrics.write(0)

    assert before == []
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_with_quotes_and_line_ends_is_a_label_like_any_other(tmp_path: Path) -> None:
    path, output = tmp_path / "livy.prom", 'a "b"\n\\用户.parquet'

    RunMetrics(str(path), output=output, now_s=Clock()).write(0)

    families = text_string_to_metric_families(path.read_text(encoding="utf-8"))
    assert {sample.labels["output"] for each in families for sample in each.samples} == {output}


def test_a_missing_folder_is_reported_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "none" / "livy.prom"

    with pytest.raises(DestinationError, match=r"livy\.prom.*No such file") as caught:
        RunMetrics(str(path), output="out.parquet").write(0)

    assert "--metrics-file" in (caught.value.hint or "")


def test_a_folder_in_place_of_the_file_is_reported_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "livy.prom"
    path.mkdir()

    with pytest.raises(DestinationError, match=r"livy\.prom"):
        RunMetrics(str(path), output="out.parquet").write(0)

    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["out.parquet", "./out.parquet", "out.parquet.manifest.json"])
def test_metrics_never_replace_the_output(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match="which the export writes itself"):
        open_metrics(name, output="out.parquet", manifest=None)
    with pytest.raises(UsageError, match="which the export writes itself"):
        open_metrics(name, output="-", manifest=str(tmp_path / name))


@pytest.mark.parametrize("name", ["-", "a\0b"])
def test_a_special_file_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="the metrics cannot go to"):
        open_metrics(name, output="out.parquet", manifest=None)


def test_no_file_is_no_listener() -> None:
    assert open_metrics(None, output="out.parquet", manifest=None) is None


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (OSError("a bug"), 1),
        (UsageError("u"), 2),
        (IncompleteError("i"), 4),
        (ExceptionGroup("both", [OSError("a bug"), CredentialsError("c")]), 3),
        (KeyboardInterrupt(), 130),
    ],
    ids=repr,
)
def test_the_exit_code_of_an_error_is_written(
    error: BaseException, exit_code: int, tmp_path: Path
) -> None:
    path = tmp_path / "livy.prom"
    metrics = RunMetrics(str(path), output="out.parquet")

    def fail() -> int:
        raise error

    with pytest.raises(type(error)):
        run_with_metrics(fail, metrics, reporter=ErrorReporter(as_json=False, with_traceback=False))

    assert value_of(path, "livy_exporter_run_exit_code") == exit_code


def test_metrics_that_cannot_be_written_change_no_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = RunMetrics(str(tmp_path / "none" / "livy.prom"), output="out.parquet")

    code = run_with_metrics(
        lambda: 0, metrics, reporter=ErrorReporter(as_json=False, with_traceback=False)
    )

    assert code == 0
    assert capsys.readouterr().err.startswith("error: cannot write the metrics to ")


def test_a_run_without_metrics_runs_alike() -> None:
    code = run_with_metrics(
        lambda: 4, None, reporter=ErrorReporter(as_json=False, with_traceback=False)
    )

    assert code == 4
