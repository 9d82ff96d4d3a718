"""PromQL as data, by the grammar of Prometheus itself (promql-parser): which series an expression asks for."""

from collections.abc import Iterator
from typing import Any

import promql_parser

Matchers = list[tuple[str, str]]
CONDITIONS = {"and", "or", "==", "!=", "<", "<=", ">", ">="}


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


def compared(expression: str) -> list[str]:
    """What a condition compares, as expressions that have data wherever both sides are there and their labels match,
    whether it holds or not; each side of an `or` by itself."""
    return [*_compared(parse(expression))]


def _compared(node: Any) -> Iterator[str]:
    if isinstance(node, promql_parser.ParenExpr):
        yield from _compared(node.expr)
    elif isinstance(node, promql_parser.Call) and node.func.name == "absent":
        yield from (each.prettify() for each in node.args)
    elif not isinstance(node, promql_parser.BinaryExpr) or str(node.op) not in CONDITIONS:
        yield node.prettify()
    elif str(node.op) == "or":
        yield from (*_compared(node.lhs), *_compared(node.rhs))
    else:
        assert node.modifier is None or node.modifier.matching is None, f"on() is not known here: {node.prettify()}"
        operator = "and" if str(node.op) == "and" else f"{node.op} bool"
        for left in _compared(node.lhs):
            for right in _compared(node.rhs):
                yield f"({left}) {operator} ({right})"


def grouped_by(expression: str) -> set[str]:
    """The labels that sums and the like name."""
    found: set[str] = set()
    for node in nodes(expression):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            found |= set(node.modifier.labels)
    return found
