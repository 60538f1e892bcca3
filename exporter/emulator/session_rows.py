"""Builds a moving list's session as it is at some age; performs no I/O."""

from collections.abc import Callable
from typing import Any

from exporter.emulator.churn import Churn, TimeForm
from exporter.emulator.generated_list import RawSession, SessionSeries, without_end
from exporter.emulator.timeline import Timeline

UNSETTLED_SHARE = 0.9
"""Share of the final `cuHours` that a session has until it is settled."""
ODD_STATE = "killed"

NO_VALUE = object()

FORMS: dict[TimeForm, Callable[[int], Any]] = {
    TimeForm.MISSING: lambda _: NO_VALUE,
    TimeForm.NULL: lambda _: None,
    TimeForm.ZERO: lambda _: 0,
    TimeForm.TEXT: str,
}


class SessionRows:
    """Rows by serial. `brief` rows, for simulations, have only the fields that a listing reads."""

    def __init__(
        self,
        series: SessionSeries,
        churn: Churn,
        timeline: Timeline,
        *,
        newest_created_ms: int,
        brief: bool,
    ) -> None:
        self._series = series
        self._churn = churn
        self._timeline = timeline
        self._newest_created_ms = newest_created_ms
        self._brief = brief
        self._final: dict[int, RawSession] = {}

    def find(self, serial: int, at_s: float) -> RawSession:
        """The row at this second; the caller must not change it."""
        serial = self._timeline.traits.original(serial)
        row = self._final.get(serial)
        if row is not None:
            return row
        row, is_final = self.build(serial, at_s)
        if is_final and self._brief:
            self._final[serial] = row
        return row

    def build(self, serial: int, at_s: float) -> tuple[RawSession, bool]:
        """The row at this second, and whether it is final."""
        churn, traits = self._churn, self._timeline.traits
        serial = traits.original(serial)
        moves = churn.tells_order_time
        created_s = (self._timeline.order_s if moves else self._timeline.created_s)(serial)
        created_ms = round(self._newest_created_ms + created_s * 1000)
        created_ms -= created_ms % churn.time_step_ms
        row, is_final = self._build_row(serial, created_ms, at_s)
        if churn.timeless.share > 0 and traits.is_timeless(serial):
            form = churn.timeless.form
            if form is TimeForm.MIXED:
                form = tuple(FORMS)[serial % len(FORMS)]
            row["createTime"] = FORMS[form](created_ms)
            if row["createTime"] is NO_VALUE:
                del row["createTime"]
        return row, is_final and not moves

    def _build_row(self, serial: int, created_ms: int, at_s: float) -> tuple[RawSession, bool]:
        churn, traits = self._churn, self._timeline.traits
        build = self._build_brief if self._brief else self._series.session
        if churn.run_s is None:
            return build(serial, created_ms=created_ms), True
        run_s = traits.run_s(serial)
        row = build(serial, created_ms=created_ms, run_ms=round(run_s * 1000))
        # By its insertion: a backdated session has run no longer than others.
        age_s = at_s - self._timeline.inserted_s(serial)
        if age_s < run_s:
            share = max(0.0, age_s) / run_s
            return self._running(row, share, form=serial), False
        if traits.ends_oddly(serial):
            row["state"] = ODD_STATE
        if age_s < run_s + churn.settle_s:
            row["cuHours"] = round(row["cuHours"] * UNSETTLED_SHARE, 3)
            return (without_end(row, row["state"], form=serial) if serial % 2 else row), False
        return row, True

    def _build_brief(self, serial: int, *, created_ms: int, run_ms: int = 60_000) -> RawSession:
        return {
            "sessionId": self._series.session_id(serial),
            "createTime": created_ms,
            "state": "terminated",
            "endTime": created_ms + run_ms,
            "cuHours": 1.0,
        }

    def _running(self, row: RawSession, share: float, *, form: int) -> RawSession:
        """The session after only this share of its run."""
        if self._brief:
            row["cuHours"] = round(share, 3)
        else:
            for name in ("vcoreSeconds", "mbSeconds"):
                row[name] = int(row[name] * share)
            row["cuHours"] = round(row["vcoreSeconds"] / 3600, 3)
        return without_end(row, "running", form=form)
