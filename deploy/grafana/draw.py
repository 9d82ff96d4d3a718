"""Draws the main panels from a live Prometheus, as pictures for documents: `python -m deploy.grafana.draw`.

For readers without Grafana at hand. What is drawn are the panels' own queries, of the committed dashboards.
"""

import argparse
import itertools
import json
import math
import re
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FOLDER = Path(__file__).parent
PICTURES = FOLDER / "pictures"
# Of each dashboard what a reader wants to see first, in two columns.
SHOWN = {
    "overview": [
        "Streams that ended, by outcome",
        "Streams running and read",
        "First token",
        "Burn rate, 1h",
    ],
    "streaming": ["First token", "Between two tokens", "Longest silence", "Resumes and takeovers"],
    "capacity": ["Streams against capacity", "CPU for an event"],
    "upstreams": ["Attempts, by outcome", "Breakers", "Failovers, by reason", "Rescues, by way"],
    "pod": ["Event loop lag", "CPU", "Commit", "Draining"],
}
WIDTH_INCHES, ROW_INCHES, DPI = 12.0, 3.0, 72
POINTS = 150
LEGEND_MAX = 8
CALL_SECONDS_MAX = 20.0


def fetch(url: str, expression: str, start: float, end: float) -> list[dict[str, Any]]:
    """The series, as a graph of Grafana's asks for them."""
    step = max(1.0, (end - start) / POINTS)
    values = {"__rate_interval": "30s", "namespace": ".*"}
    expression = re.sub(r"\$(\w+)", lambda found: values.get(found[1], ".+"), expression)
    query = urllib.parse.urlencode({"query": expression, "start": start, "end": end, "step": step})
    with urllib.request.urlopen(f"{url}/api/v1/query_range?{query}", timeout=CALL_SECONDS_MAX) as answer:  # noqa: S310
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


def named(legend: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), legend).strip()


def lines(axes: Axes, panel: dict[str, Any], url: str, start: float, end: float) -> None:
    """Each series as a line, the largest first in the legend."""
    drawn = []
    for target in panel["targets"]:
        for series in fetch(url, target["expr"], start, end):
            points = [(float(at) - start, float(value)) for at, value in series["values"]]
            largest = max(value for _, value in points)
            drawn.append((largest, named(target["legendFormat"], series["metric"]), broken(points, end - start)))
    for largest, name, points in sorted(drawn, key=lambda each: -each[0]):
        if largest > 0 or len(drawn) <= LEGEND_MAX:
            axes.plot([at for at, _ in points], [value for _, value in points], label=name, linewidth=1.2)
    axes.set_ylim(bottom=0)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[:LEGEND_MAX], labels[:LEGEND_MAX], fontsize=7, loc="best", framealpha=0.6)


def broken(points: list[tuple[float, float]], seconds: float) -> list[tuple[float, float]]:
    """With a hole where a scrape or more was missed: a line through it would be made up."""
    made = points[:1]
    for (before, _), point in itertools.pairwise(points):
        if point[0] - before > 2 * seconds / POINTS + 1:
            made.append((before, math.nan))
        made.append(point)
    return made


def heat(axes: Axes, panel: dict[str, Any], url: str, start: float, end: float) -> None:
    """Buckets as rows, whose bounds are names: they are not evenly apart."""
    (target,) = panel["targets"]
    series = fetch(url, target["expr"], start, end)
    series = sorted(series, key=lambda each: float(each["metric"]["le"]))
    moments = sorted({float(at) for each in series for at, _ in each["values"]})
    table = [{float(at): float(value) for at, value in each["values"]} for each in series]
    # Each bucket holds those below it as well.
    rows = [
        [max(0.0, row.get(at, 0.0) - lower.get(at, 0.0)) for at in moments]
        for lower, row in itertools.pairwise([{}, *table])
    ]
    used = [place for place, row in enumerate(rows) if any(row)]
    if not used:
        return
    first, last = used[0], used[-1] + 1
    bounds = [each["metric"]["le"] for each in series][first:last]
    mesh = axes.pcolormesh(
        [at - start for at in moments], range(len(bounds)), rows[first:last], cmap="Oranges", shading="nearest"
    )
    axes.set_yticks(range(len(bounds)), [f"≤ {bound}" for bound in bounds], fontsize=6)
    axes.figure.colorbar(mesh, ax=axes, pad=0.01)


def picture(name: str, url: str, start: float, end: float) -> Figure:
    """One dashboard's main panels."""
    board = json.loads((FOLDER / "dashboards" / f"{name}.json").read_text())
    panels = {panel["title"]: panel for panel in board["panels"] if panel["type"] != "row"}
    rows = (len(SHOWN[name]) + 1) // 2
    figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * rows), dpi=DPI, layout="constrained")
    for axes, title in zip(figure.subplots(rows, 2, squeeze=False).flat, SHOWN[name], strict=True):
        panel = panels[title]
        unit = panel["fieldConfig"]["defaults"]["unit"]
        axes.set_title(f"{title} [{unit}]" if unit != "short" else title, fontsize=9, loc="left")
        axes.set_xlabel("s", fontsize=7)
        axes.tick_params(labelsize=7)
        (heat if panel["type"] == "heatmap" else lines)(axes, panel, url, start, end)
        axes.set_xlim(0, end - start)
    return figure


def drawn_of(name: str) -> str:
    """What a picture shows, as its description has it: each panel's title and queries. Where a dashboard asks something
    else by now, as it does of another capacity, the picture is out of date."""
    board = json.loads((FOLDER / "dashboards" / f"{name}.json").read_text())
    asked = {
        panel["title"]: [each["expr"] for each in panel["targets"]] for panel in board["panels"] if "targets" in panel
    }
    return json.dumps({title: asked[title] for title in SHOWN[name]})


def draw(url: str, start: float, end: float, folder: Path = PICTURES) -> list[Path]:
    """All of them, as small PNGs."""
    mpl.rcParams["axes.grid"] = True
    mpl.rcParams["grid.alpha"] = 0.3
    folder.mkdir(exist_ok=True)
    drawn = []
    for name in SHOWN:
        path = folder / f"{name}.png"
        # Without the date and the version of the library, the same data is the same file.
        metadata = {"Software": None, "Description": drawn_of(name)}
        picture(name, url, start, end).savefig(path, metadata=metadata)
        drawn.append(path)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090")
    parser.add_argument("--minutes", type=float, default=10, help="how far back")
    chosen = parser.parse_args()
    end = time.time()
    for path in draw(chosen.prometheus, end - chosen.minutes * 60, end):
        print(path)


if __name__ == "__main__":
    main()
