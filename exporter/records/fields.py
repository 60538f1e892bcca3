"""The fields of a session that have a column, by both names; performs no I/O."""

from typing import Final

FIELDS: Final = {
    "sessionId": "session_id",
    "name": "name",
    "computeId": "compute_id",
    "state": "state",
    "createTime": "create_time",
    "endTime": "end_time",
    "queue": "queue",
    "cuHours": "cu_hours",
    "vcoreSeconds": "vcore_seconds",
    "mbSeconds": "mb_seconds",
    "info": "info",
    "webUI": "web_ui",
    "sparkConf": "spark_conf",
}
"""The column by the service's field; a field of any other name goes to the column `extra`."""
