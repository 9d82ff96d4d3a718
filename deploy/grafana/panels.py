"""The three kinds of panels, each with a title, a description and a unit. Units are Grafana's names for them."""

from collections.abc import Mapping
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    Panel,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, RED = "green", "yellow", "red"
# Of 24.
QUARTER, THIRD, HALF, WHOLE = 6, 8, 12, 24
STAT_HEIGHT, GRAPH_HEIGHT = 4, 8


@dataclass(frozen=True)
class Query:
    """An expression, and what its series are called."""

    expression: str
    legend: str


Steps = Mapping[float | None, str]


def steps(found: Steps) -> ThresholdsConfig:
    """Colours from a value on; None: from the beginning."""
    ordered = [Threshold(value=value, color=color) for value, color in found.items()]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(ordered)


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    span: int = HALF,
    stacked: bool = False,
    limits: Steps | None = None,
    stepped: bool = False,
    states: Mapping[str, str] | None = None,
) -> Builder[Panel]:
    """Series over time. `limits` are drawn as lines; `states` name the values of a gauge that has few."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(GRAPH_HEIGHT)
        .min(0)
        .line_width(1)
        .fill_opacity(40 if stacked else 10)
        .show_points(shapes.VisibilityMode.NEVER)
        .thresholds(steps(limits or {None: GREEN}))
        .tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
        .legend(_legend())
        .targets([_target(query, place) for place, query in enumerate(queries)])
    )
    if limits:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(shapes.GraphTresholdsStyleMode.DASHED))
    if stacked:
        panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL).group("A"))
    if stepped:
        panel.line_interpolation(shapes.LineInterpolation.STEP_AFTER)
    if states:
        panel.mappings([ValueMap({value: ValueMappingResult(text=text) for value, text in states.items()})])
    return panel


def number(
    title: str,
    description: str,
    unit: str,
    query: Query,
    *,
    span: int = QUARTER,
    limits: Steps | None = None,
    named: bool = False,
) -> Builder[Panel]:
    """The newest value, large; `named`: its series' name in the place of the value."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(STAT_HEIGHT)
        .thresholds(steps(limits or {None: GREEN}))
        .color_mode(shapes.BigValueColorMode.VALUE)
        .graph_mode(shapes.BigValueGraphMode.NONE if named else shapes.BigValueGraphMode.AREA)
        .text_mode(shapes.BigValueTextMode.NAME if named else shapes.BigValueTextMode.AUTO)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
        .targets([_target(query, 0)])
    )


def spread(title: str, description: str, unit: str, query: Query, *, span: int = HALF) -> Builder[Panel]:
    """A histogram as it changes: what quantiles hide, such as two groups of streams, shows."""
    target = _target(query, 0).format(PromQueryFormat.HEATMAP)
    colors = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(GRAPH_HEIGHT)
        .calculate(False)
        .color(colors.scale(HeatmapColorScale.EXPONENTIAL).exponent(0.5).fill("dark-orange"))
        .y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(shapes.AxisPlacement.LEFT))
        .show_tooltip()
        .show_legend()
        .targets([target])
    )


def _target(query: Query, place: int) -> prometheus.Dataquery:
    name = chr(ord("A") + place)
    return prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(name).range()


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(shapes.LegendDisplayMode.TABLE)
        .placement(shapes.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["mean", "max", "lastNotNull"])
    )
