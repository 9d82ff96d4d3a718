"""The edge: what NGINX holds, and what requests without a stream take."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.board import board
from deploy.grafana.panels import GREEN, RED, THIRD, YELLOW, Query, graph, number
from deploy.grafana.queries import of, quantile, rate, total


def nginx() -> Dashboard:
    """The edge."""
    accepted, handled = (rate(f"sluice_nginx_{kind}_connections_total") for kind in ("accepted", "handled"))
    return board(
        "nginx",
        "NGINX",
        "Connections and requests at the edge. Its access log has each request: deploy/runbooks tell how to read it.",
        {
            "Now": [
                number(
                    "NGINX that answer",
                    "Of all pods.",
                    "short",
                    Query(total(of("sluice_nginx_up")), "NGINX"),
                    limits={None: RED, 1: GREEN},
                ),
                number(
                    "Connections",
                    "Open to clients; a stream holds one.",
                    "short",
                    Query(total(of("sluice_nginx_connections")), "connections"),
                ),
                number(
                    "Connections dropped",
                    "Accepted but not handled: worker_connections or open files are used up.",
                    "cps",
                    Query(f"{total(accepted)} - {total(handled)}", "dropped"),
                    limits={None: GREEN, 0.001: RED},
                ),
                number(
                    "Certificate is good for",
                    "The one that is over first.",
                    "s",
                    Query(f"min({of('sluice_certificate_expiry_timestamp_seconds')} > 0) - time()", "certificate"),
                    limits={None: RED, 2 * 86_400: YELLOW, 14 * 86_400: GREEN},
                ),
            ],
            "Traffic": [
                graph(
                    "Connections, by what they do",
                    "writing: streams. waiting: kept alive for another request.",
                    "short",
                    Query(total(of("sluice_nginx_connections"), "state"), "{{state}}"),
                    stacked=True,
                ),
                graph(
                    "New connections and requests",
                    "Far more connections than requests: somebody connects and says nothing.",
                    "cps",
                    Query(total(accepted), "connections"),
                    Query(total(rate("sluice_nginx_requests_total")), "requests"),
                ),
            ],
            "Behind it": [
                graph(
                    "Answers, by status",
                    "Of the workers. What NGINX refuses itself is only in its access log.",
                    "reqps",
                    Query(total(rate("sluice_requests_total"), "code"), "{{code}}"),
                    span=THIRD,
                    stacked=True,
                ),
                graph(
                    "Requests, by route",
                    "Templates of routes.",
                    "reqps",
                    Query(total(rate("sluice_requests_total"), "route"), "{{route}}"),
                    span=THIRD,
                    stacked=True,
                ),
                graph(
                    "Requests without a stream, p95",
                    "Streams have figures of their own.",
                    "s",
                    Query(quantile(0.95, "sluice_request_duration_seconds", "route"), "{{route}}"),
                    span=THIRD,
                ),
            ],
        },
    )
