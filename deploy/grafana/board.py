"""What all dashboards share: variables, links between them, and marks where something was deployed or drained."""

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as shapes

from deploy.grafana.panels import SOURCE
from deploy.grafana.queries import of, rate

TAG = "sluice"
PANELS_MAX = 24

Rows = Mapping[str, Sequence[Builder[shapes.Panel]]]


def board(name: str, title: str, description: str, rows: Rows, *extra: QueryVariable) -> shapes.Dashboard:
    """A dashboard, complete. Its uid is `sluice-<name>`: links in alerts and bookmarks depend on it."""
    made = (
        Dashboard(f"Sluice / {title}")
        .uid(f"sluice-{name}")
        .description(description)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(shapes.DashboardCursorSync.CROSSHAIR)
        .variables([_datasource(), *_variables(), *extra])
        .annotations(_marks())
        .links([_link()])
    )
    panels = 0
    for row, members in rows.items():
        panels += len(members)
        made.with_row(Row(row))
        for panel in members:
            made.with_panel(panel)
    if panels > PANELS_MAX:
        raise ValueError(f"{name} has {panels} panels: more than {PANELS_MAX} is two dashboards")
    built = made.build()
    for place, member in enumerate(built.panels or [], start=1):
        member.id_val = place
    return built


def choice(name: str, label: str, query: str, *, all_value: str = ".+") -> QueryVariable:
    """A variable that takes its values from the series of the time that is shown."""
    return (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": query, "refId": name})
        .refresh(shapes.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(shapes.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(all_value)
        .current(shapes.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _datasource() -> DatasourceVariable:
    return (
        DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .current(shapes.VariableOption(selected=True, text="default", value="default"))
    )


def _variables() -> list[QueryVariable]:
    # Outside Kubernetes there are no namespaces, and `.+` would match nothing.
    namespaces = choice("namespace", "Namespace", "label_values(sluice_build_info, namespace)", all_value=".*")
    jobs = choice("job", "Job", 'label_values(sluice_build_info{namespace=~"$namespace"}, job)')
    instances = 'label_values(sluice_build_info{namespace=~"$namespace",job=~"$job"}, instance)'
    return [namespaces, jobs, choice("instance", "Instance", instances)]


def _marks() -> list[Builder[shapes.AnnotationQuery]]:
    new = f"sum by (version) ({of('sluice_build_info')}) unless sum by (version) ({of('sluice_build_info')} offset 5m)"
    return [
        _mark("New version", "blue", new),
        _mark("Workers start", "green", f"sum({rate('sluice_worker_starts_total')}) > 0"),
        _mark("Workers drain", "orange", f"sum({of('sluice_draining_workers')}) > 0"),
    ]


def _mark(name: str, color: str, expression: str) -> AnnotationQuery:
    return AnnotationQuery().name(name).datasource(SOURCE).enable(True).icon_color(color).expr(expression)


def _link() -> DashboardLink:
    """To all the others, with the time and the variables that were chosen."""
    return (
        DashboardLink("Sluice")
        .type(shapes.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(False)
        .include_vars(True)
        .keep_time(True)
        .target_blank(False)
        .icon("external link")
    )
