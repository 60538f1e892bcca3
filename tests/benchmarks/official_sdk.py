"""The same pages by the official SDK's async client, fetched and turned to maps, nothing written.

python tests/benchmarks/official_sdk.py ENDPOINT WORKSPACE GATEWAY CONCURRENCY
"""

import asyncio
import os
import sys
from urllib.parse import urlsplit

from alibabacloud_emr_serverless_spark20230808.client import Client
from alibabacloud_emr_serverless_spark20230808.models import ListLivyComputeSessionsRequest
from alibabacloud_tea_openapi.utils_models import Config

PAGE_SIZE = 100


async def main(endpoint: str, workspace_id: str, gateway_id: str, concurrency: int) -> None:
    parts = urlsplit(endpoint)
    client = Client(
        Config(
            access_key_id=os.environ["ALIBABA_CLOUD_ACCESS_KEY_ID"],
            access_key_secret=os.environ["ALIBABA_CLOUD_ACCESS_KEY_SECRET"],
            protocol=parts.scheme,
            endpoint=parts.netloc,
            region_id="cn-hangzhou",
        )
    )
    session_count = 0

    async def fetch(page_num: int) -> int:
        nonlocal session_count
        answer = await client.list_livy_compute_sessions_async(
            workspace_id,
            gateway_id,
            ListLivyComputeSessionsRequest(
                page_num=page_num, page_size=PAGE_SIZE, region_id="cn-hangzhou"
            ),
        )
        session_count += len([session.to_map() for session in answer.body.sessions])
        return int(answer.body.total_count)

    total = await fetch(1)
    pages = iter(range(2, -(-total // PAGE_SIZE) + 1))

    async def work() -> None:
        for page_num in pages:
            await fetch(page_num)

    async with asyncio.TaskGroup() as workers:
        for _ in range(concurrency):
            workers.create_task(work())
    if session_count != total:
        sys.exit(f"{session_count} of {total} sessions")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
