"""PromQL as data, by the grammar of Prometheus itself (promql-parser): which series an expression asks for."""

from typing import Any

import promql_parser

Matchers = list[tuple[str, str]]


def parse(expression: str) -> Any:
    """The tree of an expression.

    Raises:
        ValueError: it is none.
    """
    return promql_parser.parse(expression)


def nodes(expression: str) -> list[Any]:
    """Every node of the tree, the outer ones first."""
    found: list[Any] = []
    promql_parser.walk(parse(expression), found.append)
    return found


def selectors(expression: str) -> list[tuple[str, Matchers]]:
    """The name and the matchers of each series that is asked for."""
    return [
        (node.name or "", [(matcher.name, matcher.value) for matcher in node.matchers.matchers])
        for node in nodes(expression)
        if isinstance(node, promql_parser.VectorSelector)
    ]


def metric_names(expression: str) -> set[str]:
    return {name for name, _ in selectors(expression) if name}


def grouped_by(expression: str) -> set[str]:
    """The labels that sums and the like name."""
    found: set[str] = set()
    for node in nodes(expression):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            found |= set(node.modifier.labels)
    return found
