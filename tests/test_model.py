from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exporter.api.calls import list_sessions
from exporter.journal.journal import Header, explain_fresh_start
from exporter.model import Gateway, ListingQuery
from exporter.runs.previous import read_previous
from exporter.runs.state import State, dump_state
from exporter.stores.local import LocalStore
from tests.support.manifests import manifest_of

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
NOON = datetime(2026, 1, 12, 12, tzinfo=UTC)
PLAIN = ListingQuery(page_size=50)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilteredQuery(ListingQuery):
    """The query as it is once the API has a filter: one more field."""

    owner: str | None = field(default=None, metadata={"parameter": "ownerName"})


FILTERED = FilteredQuery(page_size=50, owner="ann")


def test_filter_is_sent_with_each_request_once_it_is_set() -> None:
    unset = list_sessions(GATEWAY, FilteredQuery(page_size=50), page_num=2)

    assert unset.query == list_sessions(GATEWAY, PLAIN, page_num=2).query
    assert list_sessions(GATEWAY, FILTERED, page_num=2).query == (
        "ownerName=ann&pageNum=2&pageSize=50&regionId=cn-hangzhou"
    )


@pytest.mark.parametrize(
    ("query", "dropped"),
    [
        (PLAIN, None),
        (FilteredQuery(page_size=50), None),
        (FILTERED, "it is of a run with another owner"),
        (ListingQuery(page_size=51), "it is of a run with another page size"),
    ],
)
def test_journal_of_another_query_is_not_taken_over(
    query: ListingQuery, dropped: str | None
) -> None:
    recorded, own = (Header("r", NOON, each.identity) for each in (PLAIN, query))

    obstacle = explain_fresh_start(recorded, own, age_s=0.0, resume_within_s=60.0, fresh=False)

    assert obstacle == dropped


@pytest.mark.parametrize(
    ("query", "full_because"), [(PLAIN, ""), (FILTERED, "the run before asked for other sessions")]
)
def test_state_of_another_query_is_not_gone_on_from(
    query: ListingQuery, full_because: str, tmp_path: Path
) -> None:
    store = LocalStore(str(tmp_path))
    state = State(
        run_id="r",
        exporter_version="0",
        exported_at=NOON,
        region_id="cn-hangzhou",
        output="set/",
        format_name="parquet",
        gateways={},
        filters=PLAIN.filters,
    )
    store.replace("state.json", dump_state(state))

    previous = read_previous(
        (store, "state.json"),
        manifest_of("r"),
        output="set/",
        region_id="cn-hangzhou",
        filters=query.filters,
    )

    assert previous.full_because == full_because
