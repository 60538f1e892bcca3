"""What progress and the summary say, in words and numbers; performs no I/O."""

from collections import Counter
from math import ceil

from exporter.events import Movement, RetryScheduled, RunFinished
from exporter.ui.stats import GatewayTally, Tally

GATEWAYS_LISTED = 10
"""A summary names each gateway of a run of at most this many."""

ETA_UNKNOWN = "ETA -"


def format_rate(rate: float) -> str:
    """Of something a second: `3.2/s` below ten, `1,240/s` above."""
    return f"{rate:.1f}/s" if 0 < rate < 9.95 else f"{rate:,.0f}/s"


def format_bytes(size_bytes: int) -> str:
    """In the largest binary unit that leaves at least one of it: `512 B`, `1.9 MiB`."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    size = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if round(size, 1) < 1024 or unit == "TiB":
            return f"{size:,.1f} {unit}"
    raise AssertionError(size_bytes)


def format_duration(duration_s: float) -> str:
    """A time that has passed, to two figures or so: `3.2s`, `42s`, `6m 05s`, `1h 02m`, `2d 03h`."""
    return f"{duration_s:.1f}s" if duration_s < 9.95 else _format_seconds(round(duration_s))


def format_eta(eta_s: float) -> str:
    """A time to come, in whole seconds, rounded up: `6s`, `6m 05s`, `1h 02m`, `2d 03h`."""
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


def expected_text(tally: Tally) -> str:
    """The sessions expected, with a `+` while some gateway may have more of them: `20,000+`."""
    expected = max(tally.sessions_expected, tally.sessions_written)
    return f"{expected:,}" if tally.is_exact else f"{expected:,}+"


def percent_text(tally: Tally) -> str | None:
    """Rounded down: 100% is not said before it is true; None while nobody can tell."""
    return None if tally.fraction is None else f"{int(tally.fraction * 100)}%"


def eta_text(tally: Tally, now_s: float) -> str:
    """`ETA 6s`; `~6s` while some gateway may have more, `-` while nothing is known."""
    if tally.is_read:
        return "finishing"
    eta_s = tally.eta_s(now_s)
    if eta_s is None:
        return ETA_UNKNOWN
    return f"ETA {'' if tally.is_exact else '~'}{format_eta(eta_s)}"


def waiting_text(tally: Tally) -> str:
    """What the run waits for before the first total is known."""
    if tally.gateway_count is None:
        return "finding gateways"
    return f"asking {count_of(tally.gateway_count, 'gateway')}"


def progress_line(tally: Tally, now_s: float) -> str:
    """Where the run stands, as one line without a line end."""
    if tally.listings_started == 0:
        return f"{waiting_text(tally)}, {format_duration(tally.elapsed_s(now_s))}"
    percent, rate, eta = percent_text(tally), tally.rate(now_s), eta_text(tally, now_s)
    if percent is None:
        done = [f"{new_text(tally.sessions_written)} so far", count_of(tally.pages_read, "page")]
    else:
        pages_expected = max(tally.pages_expected, tally.pages_read)
        done = [
            f"{tally.sessions_written:,} of {expected_text(tally)} sessions ({percent})",
            *([] if rate is None else [format_rate(rate)]),
            f"{tally.pages_read:,} of {pages_expected:,} pages",
        ]
    return ", ".join(
        [
            *done,
            *([] if tally.pages_resumed == 0 else [f"{tally.pages_resumed:,} resumed"]),
            f"{tally.in_flight:,} in flight",
            *([f"{tally.requests_throttled:,} throttled"] if tally.requests_throttled > 0 else []),
            *([] if tally.learnt_rps is None else [quota_text(tally.learnt_rps)]),
            *([f"{tally.retries:,} retried"] if tally.retries > 0 else []),
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


def summary_lines(tally: Tally, finished: RunFinished) -> list[str]:
    """What a finished run did: what was written, from where, how it was proven, at what cost."""
    lines = [_written_line(tally, finished)]
    if finished.status == "incomplete":
        lines.insert(0, "INCOMPLETE: not every session is proven to be in the output")
    if 1 < len(tally.gateways) <= GATEWAYS_LISTED:
        lines += _gateway_lines(tally)
    elif len(tally.gateways) == 1:
        (listing,) = tally.gateways.values()
        lines += [f"while it was read: {text}" for text in _movement_texts(listing.movement)]
        lines += _full_texts(listing)
    else:
        reasons = Counter(text for each in tally.gateways.values() for text in _full_texts(each))
        lines += [f"{count_of(count, 'gateway')} {text}" for text, count in reasons.most_common()]
    if tally.pages_resumed > 0:
        lines.append(f"{count_of(tally.pages_resumed, 'page')} taken over from an earlier run")
    lines.append(f"{_requests_text(tally)}; {_proofs_text(tally)}")
    return lines


def retry_line(event: RetryScheduled) -> str:
    return f"attempt {event.attempt} failed, next in {event.wait_s:.1f}s: {event.error}"


def _written_line(tally: Tally, finished: RunFinished) -> str:
    output = "stdout" if finished.output == "-" else finished.output
    gateways = list(tally.gateways)
    source = str(gateways[0]) if len(gateways) == 1 else count_of(len(gateways), "gateway")
    if not finished.incremental:
        what, act = count_of(finished.session_count, "session"), "written"
    elif finished.session_count == 0:
        return f"nothing new or changed in {source}; {output} stays as it is"
    elif all(listing.incremental for listing in tally.gateways.values()):
        what, act = new_text(finished.session_count), "added"
    else:
        what, act = count_of(finished.session_count, "session"), "added"
    # Of a table nothing is known but its rows.
    size = f" ({format_bytes(finished.size_bytes)})" if finished.size_bytes > 0 else ""
    return f"{what} of {source} {act} to {output}{size} in {format_duration(finished.elapsed_s)}"


def _gateway_lines(tally: Tally) -> list[str]:
    rows = [
        (
            str(gateway),
            f"{listing.session_count or 0:,}",
            "; ".join(
                [
                    listing.proof or "not finished",
                    *_movement_texts(listing.movement),
                    *_full_texts(listing),
                ]
            ),
        )
        for gateway, listing in sorted(tally.gateways.items())
    ]
    name_width = max(len(name) for name, _, _ in rows)
    count_width = max(len(count) for _, count, _ in rows)
    return [
        f"  {name:<{name_width}}  {count:>{count_width}} sessions  {proof}"
        for name, count, proof in rows
    ]


def _movement_texts(movement: Movement) -> list[str]:
    """At most one text: none of a list that held still."""
    if movement == Movement():
        return []
    came = count_of(movement.inserted_count, "session")
    again = count_of(movement.overlap_count, "row")
    repaired = count_of(movement.repair_page_count, "page")
    went = f"{movement.deleted_count:,} went"
    return [f"{came} came, {went}, {again} seen again, {repaired} read in repair"]


def _full_texts(listing: GatewayTally) -> list[str]:
    """At most one text: why a list was read in full where only what is new was asked for."""
    return [f"listed in full: {listing.full_because}"] if listing.full_because else []


def _requests_text(tally: Tally) -> str:
    failed = f", {tally.requests_failed:,} failed" if tally.requests_failed > 0 else ""
    quota = "" if tally.learnt_rps is None else f", {quota_text(tally.learnt_rps)}"
    return (
        f"requests: {tally.requests_sent:,} sent, {tally.requests_ok:,} ok,"
        f" {tally.requests_throttled:,} throttled{failed}, {tally.retries:,} retried{quota}"
    )


def _proofs_text(tally: Tally) -> str:
    proofs = Counter(listing.proof or "none" for listing in tally.gateways.values())
    if len(proofs) <= 1:
        return f"proof: {next(iter(proofs), 'none')}"
    return "proofs: " + ", ".join(f"{count:,} {proof}" for proof, count in proofs.most_common())
