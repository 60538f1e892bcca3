"""PySpark in a process of its own, which reads Parquet for the tests.

    python -m tests.support.spark_reader

reads one path a line and answers with its rows, both as JSON. It connects only to its own JVM, over
loopback, and its session is in a zone far from UTC.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Spark:
    process: "subprocess.Popen[str]"

    def read(self, path: Path, columns: list[str]) -> list[dict[str, Any]]:
        """The rows of a file or a dataset; the columns are SQL."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(
            json.dumps({"path": str(path), "columns": columns}), file=self.process.stdin, flush=True
        )
        rows: list[dict[str, Any]] = json.loads(self.process.stdout.readline())
        return rows


@contextmanager
def running_spark() -> Iterator[Spark]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.spark_reader"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            yield Spark(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)


def serve(folder: str) -> None:
    from pyspark.sql import SparkSession

    settings = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.local.dir": folder,
        "spark.sql.session.timeZone": "America/New_York",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
        "spark.sql.warehouse.dir": folder,
        "spark.ui.enabled": "false",
    }
    builder = SparkSession.builder.master("local[1]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    for line in sys.stdin:
        ask = json.loads(line)
        frame = session.read.parquet(ask["path"]).selectExpr(*ask["columns"])
        print(json.dumps([row.asDict() for row in frame.collect()]), flush=True)
    session.stop()


if __name__ == "__main__":
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    with tempfile.TemporaryDirectory() as folder:
        serve(folder)
