import re
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exporter.emulator.answers import RefusalStyle
from exporter.emulator.churn import (
    Backdating,
    Churn,
    Cleanup,
    DoubledRow,
    Flow,
    LateShow,
    Order,
    OrderBy,
    PageFault,
    Place,
    Timeless,
)
from exporter.emulator.faults import SURVIVABLE, Fault, FaultRule
from exporter.emulator.quota import Quota, RateChange
from exporter.emulator.scenario import (
    EmulatedGateway,
    EmulatedWorkspace,
    Scenario,
    build_workspaces,
)
from exporter.emulator.scenario_file import GeneratedAccount, build_scenario, read_scenario
from exporter.errors import UsageError

SEE = "the README says what a scenario can hold"

WHOLE = """
seed = 7
region_id = "ap-southeast-1"
newest_created_at = 2026-01-02T03:04:05Z
latency_s = 0.05
clock_offset_s = -1000
security_token = "first"
next_security_token = "second"
security_token_uses = 100
workspace_count = 2
gateway_count = 1
session_count = 500

[churn]
order = "oldest-first"
insertions = { per_s = 5 }

[quota]
rate_per_s = 40
burst = 5
kind = "fixed-window"
style = { code = "Throttling", status = 503, casing = "rpc" }
hint = "retry-after-date"
hint_ms = 1500
refusal_latency_s = 0
changes = [{ at_s = 10, rate_per_s = 20 }, { after_requests = 500, rate_per_s = 80 }]

[[faults]]
rate = 0.1

[[faults]]
kinds = ["reset", "hang"]
page_nums = [3, 4]
hang_s = 5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "scenario.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_part_of_a_scenario_can_be_in_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE)

    scenario = read_scenario(path)

    gateways = [
        EmulatedGateway(
            gateway_id=f"lc-emulated-{number}-1",
            name=f"emulated gateway {number}-1",
            session_count=500,
            churn=Churn(order=Order.OLDEST_FIRST, insertions=Flow(per_s=5)),
        )
        for number in (1, 2)
    ]
    assert scenario == Scenario(
        seed=7,
        region_id="ap-southeast-1",
        newest_created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        latency_s=0.05,
        clock_offset_s=-1000,
        security_token="first",
        next_security_token="second",
        security_token_uses=100,
        workspaces=tuple(
            EmulatedWorkspace(
                workspace_id=f"w-emulated-{number}",
                name=f"emulated workspace {number}",
                gateways=(gateway,),
            )
            for number, gateway in enumerate(gateways, start=1)
        ),
        quota=Quota(
            rate_per_s=40,
            burst=5,
            kind="fixed-window",
            style=RefusalStyle(code="Throttling", status=503, casing="rpc"),
            hint="retry-after-date",
            hint_ms=1500,
            refusal_latency_s=0,
            changes=(
                RateChange(at_s=10, rate_per_s=20),
                RateChange(after_requests=500, rate_per_s=80),
            ),
        ),
        faults=(
            FaultRule(rate=0.1, kinds=SURVIVABLE),
            FaultRule(kinds=(Fault.RESET, Fault.HANG), page_nums=(3, 4), hang_s=5),
        ),
    )


README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_scenario_of_the_readme_is_read_as_it_says(tmp_path: Path) -> None:
    text = README.partition("<!-- scenario -->")[2].partition("```toml\n")[2].partition("```")[0]

    scenario = read_scenario(write(tmp_path, text))

    churn = scenario.workspaces[0].gateways[0].churn
    assert churn == Churn(
        order_by=OrderBy.UPDATE,
        run_s=60,
        max_run_s=3600,
        insertions=Flow(per_s=2, burst=50),
        total_cap=10_000,
        replicas=(0, 3),
        cleanups=(Cleanup(at_s=5, count=300, place=Place.END),),
        doubled_rows=(DoubledRow(rate=0.01),),
        page_faults=(PageFault(rate=0.01, zero_total=True),),
    )


def test_readme_has_every_key_of_a_churn() -> None:
    table = README.partition("| keys of `[churn]` |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()[2:]]

    assert sorted(re.findall("`([a-z_]+)`", " ".join(cells))) == sorted(
        field.name for field in fields(Churn)
    )


@pytest.mark.parametrize(
    "kind", [Backdating, Cleanup, DoubledRow, Flow, LateShow, PageFault, Timeless]
)
def test_readme_has_the_keys_nested_in_a_churn(kind: type[object]) -> None:
    table = README.partition("| keys of `[churn]` |")[2].partition("\n\n")[0]
    words = set(re.findall("`([a-z_]+)`", table))

    assert {field.name for field in fields(kind)} <= words  # type: ignore[arg-type]  # a dataclass


def test_empty_file_is_the_default_scenario(tmp_path: Path) -> None:
    assert read_scenario(write(tmp_path, "")) == Scenario()


def test_workspaces_can_be_listed_one_by_one() -> None:
    gateway = {"gateway_id": "lc-1", "name": "one", "session_count": 3}

    scenario = build_scenario(
        {"workspaces": [{"workspace_id": "w-1", "name": "first", "gateways": [gateway]}]}
    )

    assert scenario.workspaces == (
        EmulatedWorkspace(
            workspace_id="w-1",
            name="first",
            gateways=(EmulatedGateway(gateway_id="lc-1", name="one", session_count=3),),
        ),
    )


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_can_be_named(fault: Fault) -> None:
    scenario = build_scenario({"faults": [{"kinds": [fault.value], "rate": 0.5}]})

    assert scenario.faults == (FaultRule(kinds=(fault,), rate=0.5),)


def test_shorthand_has_no_key_of_the_scenario_itself() -> None:
    names = {field.name for field in fields(Scenario)}

    assert names.isdisjoint(field.name for field in fields(GeneratedAccount))


def test_shorthand_has_the_defaults_of_generated_workspaces() -> None:
    assert GeneratedAccount().build() == build_workspaces()


@pytest.mark.parametrize(
    ("document", "message", "hint"),
    [
        ({"quotta": {}}, "unknown key 'quotta'", "did you mean quota?"),
        ({"sesion_count": 1}, "unknown key 'sesion_count'", "did you mean session_count?"),
        (
            {"quota": {"rat_per_s": 1}},
            "unknown key 'quota.rat_per_s'",
            "did you mean rate_per_s?",
        ),
        (
            {"faults": [{"rate": 0.1}, {"kind": ["reset"]}]},
            "unknown key 'faults[1].kind'",
            "did you mean kinds?",
        ),
        (
            {"faults": [{"kinds": ["reset", "rest"], "rate": 1}]},
            "faults[0].kinds[1] cannot be 'rest'",
            "did you mean reset?",
        ),
        (
            {"quota": {"rate_per_s": 1, "kind": "bucket"}},
            "quota.kind cannot be 'bucket'",
            "did you mean token-bucket?",
        ),
        (
            {"churn": {"insertion": {}}},
            "unknown key 'churn.insertion'",
            "did you mean insertions?",
        ),
        ({"quota": {}}, "quota.rate_per_s is missing", SEE),
        ({"quota": 40}, "quota should be a table", SEE),
        ({"faults": {"rate": 1}}, "faults should be a list", SEE),
        ({"seed": "7"}, "seed should be a whole number", SEE),
        ({"anonymous": 1}, "anonymous should be true or false", SEE),
        ({"latency_s": "fast"}, "latency_s should be a number", SEE),
        ({"latency_s": float("nan")}, "latency_s should be a number", SEE),
        ({"region_id": 3}, "region_id should be text", SEE),
        ({"seed": 2**70}, "seed is out of range", "give 1,000,000,000,000 at most"),
        ({"latency_s": float("inf")}, "latency_s is out of range", "give 1,000,000,000 at most"),
        (
            {"workspace_count": 10**5, "gateway_count": 10**5},
            "100,000 workspaces of 100,000 gateways",
            "give 10,000 gateways at most",
        ),
        ({"quota": {"rate_per_s": -1}}, "rate_per_s is -1", "give more than 0"),
        (
            {"newest_created_at": datetime(2026, 1, 1)},  # noqa: DTZ001  # as TOML may have it
            "has no offset from UTC",
            "write Z behind it for UTC",
        ),
        (
            {"workspaces": [], "session_count": 1},
            "workspaces and session_count are both given",
            "list workspaces, or say how many there are",
        ),
        (
            {
                "workspaces": [
                    {
                        "workspace_id": "w",
                        "name": "w",
                        "gateways": [{"gateway_id": "g", "name": "g", "recording": "file"}],
                    }
                ]
            },
            "workspaces[0].gateways[0].recording cannot be given in a file",
            SEE,
        ),
    ],
    ids=str,
)
def test_mistake_is_named_with_its_place_and_remedy(
    document: dict[str, object], message: str, hint: str | None
) -> None:
    with pytest.raises(UsageError) as caught:
        build_scenario(document, source="s.toml")

    assert str(caught.value).startswith("s.toml: ")
    assert message in str(caught.value)
    assert caught.value.hint == hint


def test_unknown_key_like_no_other_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        build_scenario({"quota": {"xyz": 1}})

    assert caught.value.hint is not None
    assert "rate_per_s, burst" in caught.value.hint


def test_secret_in_the_wrong_place_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        build_scenario({"access_key_secret": ["SECRET"], "latency_s": "SECRET"})

    assert "SECRET" not in f"{caught.value} {caught.value.hint}"


def test_missing_or_malformed_file_is_named(tmp_path: Path) -> None:
    broken = write(tmp_path, "seed = ")
    absent = tmp_path / "absent.toml"

    with pytest.raises(UsageError, match=r"scenario\.toml' is no TOML"):
        read_scenario(broken)
    with pytest.raises(UsageError, match=r"cannot read '.*absent\.toml': No such file"):
        read_scenario(absent)


def test_error_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "sead = 1")

    with pytest.raises(UsageError) as caught:
        read_scenario(path)

    assert str(caught.value) == f"{path}: unknown key 'sead'"
