"""The number of streams that one worker carries, as it was measured: reads `deploy/capacity.json`.

Everything that bounds or scales by streams takes its number from here: admission, NGINX's limit, the autoscaler's
target, dashboards and alerts. `make capacity` measures it; nothing else writes the file.
"""

from functools import cache
from pathlib import Path

import msgspec

FILE = Path(__file__).resolve().parent.parent / "deploy" / "capacity.json"


class Capacity(msgspec.Struct, frozen=True):
    """What consumers need of the file; `deploy/capacity.schema.json` describes all of it.

    `streams_per_worker` is what one worker and its share of NGINX carry on one core with every objective kept.
    """

    streams_per_worker: int
    workers_per_pod: int
    streams_per_pod: int
    admission_streams_per_worker: int
    hpa_target_streams_per_pod: int
    nginx_streams_max: int
    tokens_per_second: float
    utilisation_target: float


@cache
def capacity(file: Path = FILE) -> Capacity:
    """What this build was measured to carry.

    Raises:
        msgspec.DecodeError: the file is not what the schema says; the message names the field.
    """
    return msgspec.json.decode(file.read_bytes(), type=Capacity)
