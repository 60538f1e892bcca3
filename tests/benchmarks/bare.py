"""The bare work: fetch with aiohttp, parse with orjson, build Arrow, write Parquet, and nothing
else.

No signature, retry, check, order, key or progress; what it writes is what the service sent,
untouched. This is what the exporter's cost is compared with.

    python tests/benchmarks/bare.py URL OUTPUT CONCURRENCY

URL is a gateway's session list; the server must not ask for signatures.
"""

import asyncio
import sys

import aiohttp
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

PAGE_SIZE = 100
ROWS_A_GROUP = 65_536
TEXT, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()
SCHEMA = pa.schema(
    [
        ("sessionId", TEXT),
        ("name", TEXT),
        ("computeId", TEXT),
        ("state", TEXT),
        ("createTime", WHOLE),
        ("endTime", WHOLE),
        ("queue", TEXT),
        ("cuHours", REAL),
        ("vcoreSeconds", WHOLE),
        ("mbSeconds", WHOLE),
        ("info", TEXT),
        ("webUI", TEXT),
        ("sparkConf", TEXT),
    ]
)


async def main(url: str, output: str, concurrency: int) -> None:
    async with aiohttp.ClientSession() as session:
        with pq.ParquetWriter(output, SCHEMA, compression="zstd") as writer:
            batches: list[pa.RecordBatch] = []
            row_count = 0

            async def fetch(page_num: int) -> int:
                nonlocal row_count
                query = f"pageNum={page_num}&pageSize={PAGE_SIZE}&regionId=cn-hangzhou"
                async with session.get(f"{url}?{query}") as response:
                    page = orjson.loads(await response.read())
                batches.append(pa.RecordBatch.from_pylist(page["sessions"], schema=SCHEMA))
                row_count += len(page["sessions"])
                if row_count >= ROWS_A_GROUP:
                    write()
                return int(page["totalCount"])

            def write() -> None:
                nonlocal row_count
                writer.write_table(pa.Table.from_batches(batches))
                batches.clear()
                row_count = 0

            total = await fetch(1)
            pages = iter(range(2, -(-total // PAGE_SIZE) + 1))

            async def work() -> None:
                for page_num in pages:
                    await fetch(page_num)

            async with asyncio.TaskGroup() as workers:
                for _ in range(concurrency):
                    workers.create_task(work())
            if batches:
                write()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
