"""The answer as one HTML page that needs nothing else: what was found, its plots and every point."""

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from loadtests.capacity import usl
from loadtests.capacity.objectives import Objectives
from loadtests.capacity.point import Point
from loadtests.capacity.result import Answer
from loadtests.capacity.summary import markdown
from loadtests.capacity.sweep import Sweep, curve

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #1c2024 }
table { border-collapse: collapse; font-size: .85rem }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
.valid { color: #18794e } .invalid { color: #ca2a30 } .wide { overflow-x: auto }
"""


def page(found: Sweep, answer: Answer, due: Objectives) -> str:
    """The whole page."""
    figures = [_throughput(found), _kept(found, due), _latency(found, due), _cost(found)]
    plots = "\n".join(figure.to_html(full_html=False, include_plotlyjs=False) for figure in figures)
    colour = "valid" if answer.valid else "invalid"
    title = html.escape(answer.title)
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script></head><body><h1 class='{colour}'>"
        f"{title}: {colour.upper()}</h1>{_text(markdown(found, answer, due), plots)}</body></html>\n"
    )


def _text(markdown: str, plots: str) -> str:
    """The Markdown of `summary`: a heading, lists, a table and a paragraph, in that order."""
    lines = [line for line in markdown.splitlines()[1:] if line]
    items = "".join(f"<li>{html.escape(line[2:])}</li>" for line in lines if line.startswith("- "))
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[2:])
    rest = "".join(f"<p>{html.escape(line)}</p>" for line in lines if line[0] not in "-|")
    return f"<ul>{items}</ul>{plots}<div class='wide'><table><tr>{head}</tr>{body}</table></div>{rest}"


def _figure(title: str, y: str, found: Sweep) -> go.Figure:
    figure = go.Figure(layout={"title": title, "template": "plotly_white", "height": 420})
    figure.update_xaxes(title="concurrent streams")
    figure.update_yaxes(title=y, rangemode="tozero")
    low, high = found.boundary.low, found.boundary.high
    figure.add_vrect(
        x0=low,
        x1=max(high, low + 1),
        fillcolor="#f2a60033",
        line_width=0,
        annotation_text="closed model's boundary, 95 %",
    )
    if found.confirmed is not None:
        figure.add_vline(x=found.confirmed, line_color="#18794e", annotation_text="the number (open model)")
    return figure


def _throughput(found: Sweep) -> go.Figure:
    figure = _figure("Throughput, and the scalability law", "tokens/s", found)
    streams, throughput = curve(found.points)
    figure.add_scatter(x=streams, y=throughput, mode="markers", name="measured")
    try:
        fitted = usl.fit(streams, throughput)
    except usl.TooFewPoints:
        return figure
    loads = np.linspace(1, fitted.streams_max, 100)
    law = usl.law(loads, fitted.lam, fitted.sigma, fitted.kappa)
    figure.add_scatter(x=loads.tolist(), y=law.tolist(), mode="lines", name=f"law, R² {fitted.r_squared:.4f}")
    return figure


def _kept(found: Sweep, due: Objectives) -> go.Figure:
    figure = _figure("Streams that kept each objective", "%", found)
    points = _ordered(found.points)
    for name, share in due.shares.items():
        kept = [100 * point.kept[name].share for point in points]
        figure.add_scatter(x=[point.streams for point in points], y=kept, mode="markers+lines", name=name)
        figure.add_hline(y=100 * share, line_dash="dot", line_color="#888")
    return figure


def _latency(found: Sweep, due: Objectives) -> go.Figure:
    figure = _figure("First token and gaps", "ms", found)
    points = _ordered(found.points)
    for name, values, share in (
        ("TTFT p50", "ttft_ms", "p50"),
        ("TTFT p99", "ttft_ms", "p99"),
        ("gap p99", "gap_ms", "p99"),
    ):
        known = [(point.streams, getattr(point, values)[share]) for point in points if share in getattr(point, values)]
        figure.add_scatter(x=[x for x, _ in known], y=[y for _, y in known], mode="markers+lines", name=name)
    figure.add_hline(y=due.ttft_ms_max, line_dash="dot", annotation_text="bound of the first token")
    figure.update_yaxes(type="log")
    return figure


def _cost(found: Sweep) -> go.Figure:
    figure = _figure("CPU a token", "µs", found)
    points = _ordered(found.points)
    for name, field in (("Gunicorn", "cpu_us_per_token"), ("NGINX", "nginx_cpu_us_per_token")):
        known = [
            (point.streams, getattr(point.cost, field)) for point in points if getattr(point.cost, field) is not None
        ]
        figure.add_scatter(x=[x for x, _ in known], y=[y for _, y in known], mode="markers+lines", name=name)
    return figure


def _ordered(points: Sequence[Point]) -> list[Point]:
    return sorted(points, key=lambda point: point.streams)
