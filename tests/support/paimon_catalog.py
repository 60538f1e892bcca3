"""A minimal Paimon REST catalog on loopback: tables in memory, commits one at a time.

Like a real one it gives the location of a table's files, and is the only writer of the table's
schemas and snapshots there: a snapshot whose number is taken is refused.
"""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

Answer = tuple[int, dict[str, Any]]
Put = Callable[[str, bytes], None]
"""Writes an object by its path in the warehouse."""


def put_file(folder: Path) -> Put:
    def put(path: str, content: bytes) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)

    return put


def put_object(client: Any, bucket: str, prefix: str) -> Put:
    def put(path: str, content: bytes) -> None:
        client.put_object(Bucket=bucket, Key=f"{prefix}{path}", Body=content)

    return put


@dataclass
class ServedTable:
    path: str
    """The folder in the warehouse."""
    schema: dict[str, Any]
    schema_id: int = 0
    snapshot: dict[str, Any] | None = None
    table_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class PaimonServer:
    """Answers requests with the right token, by method and path."""

    warehouse: str
    """The URL of its files."""
    put: Put
    token: str
    prefix: str = "lake-1"
    databases: set[str] = field(default_factory=set)
    tables: dict[tuple[str, str], ServedTable] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    failing: Answer | None = None
    """An error to answer every request with."""
    losing: bool = False
    """Whether to make the next commit but lose its answer."""
    before_commit: Callable[[], None] | None = None
    """Called once, before the next commit is made."""

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        self.asked.append(f"{method} {path}")
        if self.failing is not None or path.startswith("/v1/config"):
            return self.failing or (200, {"defaults": {"prefix": self.prefix}})
        parts = [unquote(part) for part in path.partition("?")[0].strip("/").split("/")]
        content = json.loads(body) if body else {}
        match parts:
            case ["v1", self.prefix, "databases"]:
                return self._create_database(content)
            case ["v1", self.prefix, "databases", database]:
                found = database in self.databases
                name = {"id": database, "name": database, "location": "", "options": {}}
                return (200, name) if found else missing("DATABASE", database)
            case ["v1", self.prefix, "databases", database, "tables"]:
                return self._create_table(database, content)
            case ["v1", self.prefix, "databases", database, "tables", name, *rest]:
                table = self.tables.get((database, name))
                if table is not None:
                    return self._answer_table(method, (database, name), table, rest, content)
            case _:
                pass
        return missing("TABLE", path)

    def _create_database(self, content: dict[str, Any]) -> Answer:
        if content["name"] in self.databases:
            return taken("DATABASE", content["name"])
        self.databases.add(content["name"])
        return 200, {}

    def _create_table(self, database: str, content: dict[str, Any]) -> Answer:
        if database not in self.databases:
            return missing("DATABASE", database)
        name = content["identifier"]["object"]
        if (database, name) in self.tables:
            return taken("TABLE", name)
        table = ServedTable(f"{database}.db/{name}", content["schema"])
        self.tables[database, name] = table
        self._write_schema(table)
        return 200, {}

    def _answer_table(
        self,
        method: str,
        at: tuple[str, str],
        table: ServedTable,
        rest: list[str],
        content: dict[str, Any],
    ) -> Answer:
        match method, rest:
            case "GET", []:
                return 200, self._describe(at, table)
            case "POST", []:
                return self._alter(table, content["changes"])
            case "GET", ["snapshot"] if table.snapshot is not None:
                return 200, {"snapshot": {"snapshot": table.snapshot}}
            case "POST", ["commit"]:
                return self._commit(table, content["snapshot"])
            case _:
                return missing("SNAPSHOT", at[1])

    def _describe(self, at: tuple[str, str], table: ServedTable) -> dict[str, Any]:
        return {
            "id": table.table_id,
            "database": at[0],
            "name": at[1],
            "path": f"{self.warehouse}/{table.path}",
            "isExternal": False,
            "schemaId": table.schema_id,
            "schema": table.schema,
        }

    def _alter(self, table: ServedTable, changes: list[dict[str, Any]]) -> Answer:
        for change in changes:
            assert change["action"] == "addColumn"
            added = {"name": change["fieldNames"][0], "type": change["dataType"]}
            table.schema["fields"].append({"id": len(table.schema["fields"]), **added})
        table.schema_id += 1
        self._write_schema(table)
        return 200, {}

    def _commit(self, table: ServedTable, snapshot: dict[str, Any]) -> Answer:
        meanwhile, self.before_commit = self.before_commit, None
        if meanwhile is not None:
            meanwhile()
        newest = 0 if table.snapshot is None else table.snapshot["id"]
        if snapshot["id"] != newest + 1:
            return 200, {"success": False}
        table.snapshot = snapshot
        self.put(f"{table.path}/snapshot/snapshot-{snapshot['id']}", json.dumps(snapshot).encode())
        self.put(f"{table.path}/snapshot/LATEST", str(snapshot["id"]).encode())
        if self.losing:
            self.losing = False
            return 500, {"message": "the answer was lost", "code": 500}
        return 200, {"success": True}

    def _write_schema(self, table: ServedTable) -> None:
        schema = {
            "version": 3,
            "id": table.schema_id,
            "highestFieldId": max(each["id"] for each in table.schema["fields"]),
            "timeMillis": 0,
            **table.schema,
        }
        self.put(f"{table.path}/schema/schema-{table.schema_id}", json.dumps(schema).encode())


def missing(kind: str, name: str) -> Answer:
    error = {"resourceType": kind, "resourceName": name, "message": "no such", "code": 404}
    return 404, error


def taken(kind: str, name: str) -> Answer:
    error = {"resourceType": kind, "resourceName": name, "message": "is there", "code": 409}
    return 409, error


@contextmanager
def serve(paimon: PaimonServer) -> Iterator[str]:
    """Serve the catalog; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            given = self.headers.get("Authorization", "")
            if given != f"Bearer {paimon.token}" and "DLF4-HMAC-SHA256" not in given:
                status, content = 401, {"message": f"who are you, {given}", "code": 401}
            else:
                status, content = paimon.answer(self.command, self.path, body)
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
