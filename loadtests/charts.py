"""Charts of first tokens and gaps beside Locust's own, at /streams of its web page; nothing comes from elsewhere."""

from typing import Any

from flask import Blueprint, Response, jsonify
from locust import events
from locust.env import Environment
from plotly.offline import get_plotlyjs

KINDS = ("TTFT", "GAP", "LARGEST GAP", "RESUME")
SHARES = (0.5, 0.95, 0.99)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Streams</title>
<style>body { font: 16px/1.5 system-ui, sans-serif; margin: 1rem 2rem }</style>
<script src="/streams/plotly.js"></script></head>
<body><h1>Streams, over the last ten seconds</h1><p><a href="/">Locust</a></p><div id="charts"></div>
<script>
const begun = Date.now();
const charts = new Map();
function chart(key) {
  if (!charts.has(key)) {
    const place = document.createElement("div");
    document.getElementById("charts").append(place);
    const lines = ["p50", "p95", "p99"].map((name) => ({ name, x: [], y: [], mode: "lines" }));
    const [xaxis, yaxis] = [{ title: { text: "s" } }, { title: { text: "ms" }, rangemode: "tozero" }];
    const layout = { title: { text: key }, height: 320, xaxis, yaxis };
    Plotly.newPlot(place, lines, layout);
    charts.set(key, place);
  }
  return charts.get(key);
}
async function update() {
  const figures = await (await fetch("/streams/figures")).json();
  for (const { kind, name, p50, p95, p99 } of figures) {
    const x = [(Date.now() - begun) / 1000];
    Plotly.extendTraces(chart(`${name}: ${kind}`), { x: [x, x, x], y: [[p50], [p95], [p99]] }, [0, 1, 2]);
  }
}
setInterval(update, 2000);
update();
</script></body></html>
"""


def install() -> None:
    """Adds the page wherever there is a web page."""
    events.init.add_listener(_add)


def figures(environment: Environment) -> list[dict[str, Any]]:
    """Percentiles of the last ten seconds in ms, of every kind and scenario."""
    found = []
    for (name, kind), entry in sorted(environment.stats.entries.items()):
        if kind in KINDS:
            values = [entry.get_current_response_time_percentile(share) for share in SHARES]
            found.append({"name": name, "kind": kind, "p50": values[0], "p95": values[1], "p99": values[2]})
    return found


def _add(environment: Environment, **_: Any) -> None:
    if environment.web_ui is None:
        return
    pages = Blueprint("streams", __name__)

    @pages.route("/streams")
    def page() -> str:
        return PAGE

    @pages.route("/streams/plotly.js")
    def library() -> Response:
        return Response(get_plotlyjs(), mimetype="text/javascript")

    @pages.route("/streams/figures")
    def data() -> Response:
        return jsonify(figures(environment))

    environment.web_ui.app.register_blueprint(pages)
