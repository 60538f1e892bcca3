"""Reads a scenario from a TOML file, or from a dictionary of the same shape."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import orjson

from exporter.emulator.churn import Churn
from exporter.emulator.scenario import EmulatedWorkspace, Scenario, build_workspaces
from exporter.errors import UsageError, shorten
from exporter.settings.files import read_toml

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedAccount:
    """The top-level keys that replace a list of `workspaces`."""

    workspace_count: int = 1
    gateway_count: int = 2
    """In each workspace."""
    session_count: int = 12_000
    """Of each gateway."""
    churn: Churn | None = None
    """How the sessions of each gateway move."""

    def build(self) -> tuple[EmulatedWorkspace, ...]:
        workspaces = build_workspaces(
            workspace_count=self.workspace_count,
            gateway_count=self.gateway_count,
            session_count=self.session_count,
        )
        if self.churn is None:
            return workspaces
        return tuple(
            replace(
                workspace,
                gateways=tuple(
                    replace(gateway, churn=self.churn) for gateway in workspace.gateways
                ),
            )
            for workspace in workspaces
        )


def read_scenario(path: Path) -> Scenario:
    """The scenario of a TOML file whose keys are the fields of Scenario or of GeneratedAccount.

    Blocks while it reads. Raises UsageError, with the file, for any other file.
    """
    hint = "a scenario is a TOML file such as: session_count = 1000"
    return build_scenario(read_toml(str(path), hint=hint), source=shorten(str(path)))


def build_scenario(document: Mapping[str, object], *, source: str = "scenario") -> Scenario:
    """The scenario of a decoded TOML or JSON document; errors name `source`.

    Raises UsageError for an unknown key, a value of the wrong type, or one out of its range.
    """
    try:
        return _build(document)
    except UsageError as exc:
        raise UsageError(f"{source}: {exc}", hint=exc.hint) from exc


def _build(document: Mapping[str, object]) -> Scenario:
    _refuse_huge(document)
    short_names = {field.name for field in fields(GeneratedAccount)}
    short = {key: value for key, value in document.items() if key in short_names}
    rest = {key: value for key, value in document.items() if key not in short_names}
    if short and "workspaces" in rest:
        raise UsageError(
            f"workspaces and {next(iter(short))} are both given",
            hint="list workspaces, or say how many there are",
        )
    scenario = _validate(Scenario, rest)
    if "workspaces" in rest:
        return scenario
    account = _validate(GeneratedAccount, short)
    if account.workspace_count * account.gateway_count > MAX_GATEWAYS:
        raise UsageError(
            f"{account.workspace_count:,} workspaces of {account.gateway_count:,} gateways",
            hint=f"give {MAX_GATEWAYS:,} gateways at most",
        )
    return replace(scenario, workspaces=account.build())


MAX_GATEWAYS = 10_000
MAX_SECONDS = 10**9
MAX_NUMBER = 10**12


def _refuse_huge(value: object, name: str = "") -> None:
    """Raises UsageError for a number too large for a clock or the memory."""
    match value:
        case Mapping():
            for key, each in value.items():
                _refuse_huge(each, str(key))
        case list():
            for each in value:
                _refuse_huge(each, name)
        case int() | float():
            limit = MAX_SECONDS if name.endswith("_s") else MAX_NUMBER
            if abs(value) > limit:
                raise UsageError(f"{shorten(name)} is out of range", hint=f"give {limit:,} at most")
        case _:
            pass


def _validate(kind: type[T], document: Mapping[str, object]) -> T:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    # pydantic takes no config for a dataclass, but applies a tuple's to all dataclasses within.
    adapter = TypeAdapter(
        tuple[kind],  # type: ignore[valid-type]  # a type at run time
        config=ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True),
    )
    try:
        # In strict mode only JSON turns a list into a tuple and a text into an enum member.
        (value,) = adapter.validate_json(orjson.dumps([document]))
    except TypeError as exc:
        raise UsageError(f"a value cannot be used: {exc}", hint="give what TOML can say") from exc
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
        # A misspelt key gives two errors: the unknown key, which says more, and a missing one.
        errors.sort(key=lambda each: each["type"] != UNKNOWN_KEY)
        raise _translate(kind, errors[0]) from exc
    return value


UNKNOWN_KEY = "unexpected_keyword_argument"

REWORDED = {
    "missing": "is missing",
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "bool_type": "should be true or false",
    "string_type": "should be text",
    "tuple_type": "should be a list",
    "dataclass_type": "should be a table",
    "needs_python_object": "cannot be given in a file",
}


def _translate(kind: type[object], error: Mapping[str, Any]) -> UsageError:
    # The first element is the place in the tuple.
    place: tuple[str | int, ...] = error["loc"][1:]
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)[1:]
    if error["type"] == UNKNOWN_KEY:
        return UsageError(
            f"unknown key '{shorten(name)}'",
            hint=_suggest(str(place[-1]), _list_keys(kind, place[:-1])),
        )
    expected = re.findall(r"'([^']+)'", str(error.get("ctx", {}).get("expected", "")))
    if expected and isinstance(error["input"], str):
        return UsageError(
            f"{name} cannot be '{shorten(error['input'])}'", hint=_suggest(error["input"], expected)
        )
    # Without the value, which may be a misplaced secret.
    message = REWORDED.get(error["type"], error["msg"].replace("Input should", "should", 1))
    return UsageError(f"{name} {message}", hint="the README says what a scenario can hold")


def _suggest(word: str, known: list[str]) -> str:
    near = get_close_matches(shorten(word), known, n=1)
    return f"did you mean {near[0]}?" if near else "known: " + ", ".join(known)


def _list_keys(kind: type[object], place: tuple[str | int, ...]) -> list[str]:
    """The known keys at a place of the document."""
    found: type[object] | None = kind
    for part in place:
        if isinstance(part, str) and found is not None:
            found = _find_dataclass(get_type_hints(found).get(part))
    if found is None:
        return []
    keys = [field.name for field in fields(found) if field.name != "recording"]  # type: ignore[arg-type]  # a dataclass
    if found is Scenario:
        keys += [field.name for field in fields(GeneratedAccount)]
    return keys


def _find_dataclass(hint: Any) -> type[object] | None:
    """The dataclass in a type such as `Quota | None` or `tuple[FaultRule, ...]`."""
    if is_dataclass(hint):
        return hint if isinstance(hint, type) else None
    return next((each for each in map(_find_dataclass, get_args(hint)) if each is not None), None)
