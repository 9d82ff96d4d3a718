"""PromQL for panels: every series is asked for with the dashboard's variables, and every rate over its interval."""

# `namespace` may be absent, outside Kubernetes, and then matches its `.*`; the others may not.
CHOSEN = 'namespace=~"$namespace",job=~"$job",instance=~"$instance"'


def of(name: str, *matchers: str) -> str:
    """The series of a metric."""
    return f"{name}{{{','.join([CHOSEN, *matchers])}}}"


def rate(name: str, *matchers: str) -> str:
    """How fast a counter rises, each second."""
    return f"rate({of(name, *matchers)}[$__rate_interval])"


def total(expression: str, *by: str) -> str:
    """The sum over all instances and whatever is not in `by`."""
    return f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})"


def worst(expression: str, *by: str) -> str:
    return f"max by ({', '.join(by)}) ({expression})" if by else f"max({expression})"


def quantile(share: float, name: str, *by: str) -> str:
    """Of a histogram, over all instances: quantiles of instances have no mean that is one."""
    return f"histogram_quantile({share}, {total(rate(f'{name}_bucket'), 'le', *by)})"


def mean(name: str, *by: str) -> str:
    """What was observed in the interval, never since the start."""
    return f"{total(rate(f'{name}_sum'), *by)} / {total(rate(f'{name}_count'), *by)}"


def buckets(name: str) -> str:
    """A histogram as it changes, for a heatmap."""
    return total(f"increase({of(f'{name}_bucket')}[$__rate_interval])", "le")


def recorded(name: str, slo: str) -> str:
    """A recorded ratio of slo.yaml: over all instances, so that these cannot be chosen."""
    return f'{name}{{namespace=~"$namespace",job=~"$job",slo="{slo}"}}'
