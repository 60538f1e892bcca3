"""Text of progress lines and of the summary; performs no I/O."""

from collections import Counter
from math import ceil

from exporter.events import RetryScheduled, RunFinished
from exporter.ui.stats import GatewayStats, RunStats

GATEWAYS_LISTED = 10
"""Up to so many gateways, the summary has a line for each."""

ETA_UNKNOWN = "ETA -"


def format_rate(rate: float) -> str:
    """A rate: `3.2/s` below ten, `1,240/s` above."""
    return f"{rate:.1f}/s" if 0 < rate < 9.95 else f"{rate:,.0f}/s"


def format_bytes(size_bytes: int) -> str:
    """A size in the largest binary unit that it fills: `512 B`, `1.9 MiB`."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    size = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if round(size, 1) < 1024 or unit == "TiB":
            return f"{size:,.1f} {unit}"
    raise AssertionError(size_bytes)


def format_duration(duration_s: float) -> str:
    """Elapsed time, to about two figures: `3.2s`, `42s`, `6m 05s`, `1h 02m`, `2d 03h`."""
    return f"{duration_s:.1f}s" if duration_s < 9.95 else _format_seconds(round(duration_s))


def format_eta(eta_s: float) -> str:
    """Remaining time, in whole seconds, rounded up: `6s`, `6m 05s`, `1h 02m`, `2d 03h`."""
    return _format_seconds(ceil(eta_s))


def _format_seconds(seconds: int) -> str:
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if days > 0:
        return f"{days}d {hours % 24:02}h"
    if hours > 0:
        return f"{hours}h {minutes % 60:02}m"
    if minutes > 0:
        return f"{minutes}m {seconds % 60:02}s"
    return f"{seconds}s"


def count_of(count: int, noun: str) -> str:
    """`1 gateway`, `20,000 sessions`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def expected_text(stats: RunStats) -> str:
    """The expected sessions, with a `+` while there may be more: `20,000+`."""
    expected = max(stats.sessions_expected, stats.sessions_written)
    return f"{expected:,}" if stats.is_exact else f"{expected:,}+"


def percent_text(stats: RunStats) -> str | None:
    """Rounded down, so that 100% is true; None while unknown."""
    return None if stats.fraction is None else f"{int(stats.fraction * 100)}%"


def eta_text(stats: RunStats, now_s: float) -> str:
    """`ETA 6s`; `~6s` while there may be more sessions, `-` while it is unknown."""
    if stats.is_read:
        return "finishing"
    eta_s = stats.eta_s(now_s)
    if eta_s is None:
        return ETA_UNKNOWN
    return f"ETA {'' if stats.is_exact else '~'}{format_eta(eta_s)}"


def waiting_text(stats: RunStats) -> str:
    """The step before the first total is known."""
    if stats.gateway_count is None:
        return "finding gateways"
    return f"asking {count_of(stats.gateway_count, 'gateway')}"


def progress_line(stats: RunStats, now_s: float) -> str:
    """The progress of the run, as one line."""
    if stats.listings_started == 0:
        return f"{waiting_text(stats)}, {format_duration(stats.elapsed_s(now_s))}"
    percent, rate, eta = percent_text(stats), stats.rate(now_s), eta_text(stats, now_s)
    if percent is None:
        done = [f"{new_text(stats.sessions_written)} so far", count_of(stats.pages_read, "page")]
    else:
        pages_expected = max(stats.pages_expected, stats.pages_read)
        done = [
            f"{stats.sessions_written:,} of {expected_text(stats)} sessions ({percent})",
            *([] if rate is None else [format_rate(rate)]),
            f"{stats.pages_read:,} of {pages_expected:,} pages",
        ]
    return ", ".join(
        [
            *done,
            *([] if stats.pages_resumed == 0 else [f"{stats.pages_resumed:,} resumed"]),
            f"{stats.in_flight:,} in flight",
            *([f"{stats.requests_throttled:,} throttled"] if stats.requests_throttled > 0 else []),
            *([] if stats.learnt_rps is None else [quota_text(stats.learnt_rps)]),
            *([f"{stats.retries:,} retried"] if stats.retries > 0 else []),
            *([] if eta == ETA_UNKNOWN else [eta]),
        ]
    )


def new_text(session_count: int) -> str:
    """`33 new or changed sessions`."""
    return f"{session_count:,} new or changed session{'' if session_count == 1 else 's'}"


def quota_text(learnt_rps: float) -> str:
    return (
        f"quota ~{learnt_rps:,.0f} req/s" if learnt_rps >= 10 else f"quota ~{learnt_rps:.1f} req/s"
    )


def summary_lines(stats: RunStats, finished: RunFinished) -> list[str]:
    """The summary of a finished run: its output, its source, its proof and its cost."""
    lines = [_written_line(stats, finished)]
    if finished.status == "incomplete":
        lines.insert(0, "INCOMPLETE: not every session is proven to be in the output")
    if 1 < len(stats.gateways) <= GATEWAYS_LISTED:
        lines += _gateway_lines(stats)
    elif len(stats.gateways) == 1:
        (listing,) = stats.gateways.values()
        lines += [f"while it was read: {text}" for text in _movement_texts(listing)]
        lines += _full_texts(listing)
    else:
        reasons = Counter(text for each in stats.gateways.values() for text in _full_texts(each))
        lines += [f"{count_of(count, 'gateway')} {text}" for text, count in reasons.most_common()]
    if stats.pages_resumed > 0:
        lines.append(f"{count_of(stats.pages_resumed, 'page')} taken over from an earlier run")
    lines.append(f"{_requests_text(stats)}; {_proofs_text(stats)}")
    return lines


def retry_line(event: RetryScheduled) -> str:
    return f"attempt {event.attempt} failed, next in {event.wait_s:.1f}s: {event.error}"


def _written_line(stats: RunStats, finished: RunFinished) -> str:
    output = "stdout" if finished.output == "-" else finished.output
    gateways = list(stats.gateways)
    source = str(gateways[0]) if len(gateways) == 1 else count_of(len(gateways), "gateway")
    if not finished.incremental:
        what, act = count_of(finished.session_count, "session"), "written"
    elif finished.session_count == 0:
        return f"nothing new or changed in {source}; {output} stays as it is"
    elif all(listing.incremental for listing in stats.gateways.values()):
        what, act = new_text(finished.session_count), "added"
    else:
        what, act = count_of(finished.session_count, "session"), "added"
    # The size of a table is unknown.
    size = f" ({format_bytes(finished.size_bytes)})" if finished.size_bytes > 0 else ""
    return f"{what} of {source} {act} to {output}{size} in {format_duration(finished.elapsed_s)}"


def _gateway_lines(stats: RunStats) -> list[str]:
    rows = [
        (
            str(gateway),
            f"{0 if listing.facts is None else listing.facts.session_count:,}",
            "; ".join(
                [
                    "not finished" if listing.facts is None else listing.facts.proof,
                    *_movement_texts(listing),
                    *_full_texts(listing),
                ]
            ),
        )
        for gateway, listing in sorted(stats.gateways.items())
    ]
    name_width = max(len(name) for name, _, _ in rows)
    count_width = max(len(count) for _, count, _ in rows)
    return [
        f"  {name:<{name_width}}  {count:>{count_width}} sessions  {proof}"
        for name, count, proof in rows
    ]


def _movement_texts(listing: GatewayStats) -> list[str]:
    """At most one text: none for a list that did not change."""
    facts = listing.facts
    # Windows overlap in a still list, too: rows seen again there say nothing of it.
    if facts is None or facts.proof == "quiescent":
        return []
    if not any(
        (facts.inserted_count, facts.deleted_count, facts.overlap_count, facts.repair_page_count)
    ):
        return []
    came = count_of(facts.inserted_count, "session")
    again = count_of(facts.overlap_count, "row")
    repaired = count_of(facts.repair_page_count, "page")
    went = f"{facts.deleted_count:,} went"
    return [f"{came} came, {went}, {again} seen again, {repaired} read in repair"]


def _full_texts(listing: GatewayStats) -> list[str]:
    """At most one text: the reason why an incremental run read a list in full."""
    reason = "" if listing.facts is None else listing.facts.full_because
    return [f"listed in full: {reason}"] if reason else []


def _requests_text(stats: RunStats) -> str:
    failed = f", {stats.requests_failed:,} failed" if stats.requests_failed > 0 else ""
    quota = "" if stats.learnt_rps is None else f", {quota_text(stats.learnt_rps)}"
    return (
        f"requests: {stats.requests_sent:,} sent, {stats.requests_ok:,} ok,"
        f" {stats.requests_throttled:,} throttled{failed}, {stats.retries:,} retried{quota}"
    )


def _proofs_text(stats: RunStats) -> str:
    proofs = Counter(
        "none" if listing.facts is None else listing.facts.proof
        for listing in stats.gateways.values()
    )
    if len(proofs) <= 1:
        return f"proof: {next(iter(proofs), 'none')}"
    return "proofs: " + ", ".join(f"{count:,} {proof}" for proof, count in proofs.most_common())
