"""All dashboards as the JSON that Grafana reads, the same bytes each time. `make generate` writes `dashboards/`."""

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.capacity import capacity
from deploy.grafana.nginx import nginx
from deploy.grafana.overview import overview
from deploy.grafana.pod import pod
from deploy.grafana.streaming import streaming
from deploy.grafana.upstreams import upstreams

DASHBOARDS = (overview, streaming, capacity, nginx, upstreams, pod)


def files() -> dict[str, str]:
    """Each by its name."""
    made = {each.__name__: each() for each in DASHBOARDS}
    return {
        f"{name}.json": json.dumps(board, cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        for name, board in made.items()
    }
