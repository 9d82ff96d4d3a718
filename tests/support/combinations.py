"""Which components go together: what each needs and what it excludes, and from that what there is to build."""

import random
from collections.abc import Iterator
from itertools import combinations, product

from tests.support.manifests import KUBERNETES

# One of a group at most.
GROUPS = (
    ("redis", "redis-sentinel"),
    ("autoscaling-hpa", "autoscaling-keda"),
    ("gateway-api/envoy-gateway", "gateway-api/nginx-gateway-fabric"),
)
# One of these must be there, and comes before it; the first is taken where nothing else asks for another.
NEEDS = {
    "autoscaling-hpa": ("redis", "redis-sentinel"),
    "autoscaling-keda": ("redis", "redis-sentinel"),
    "pod-deletion-cost": ("redis", "redis-sentinel"),
    "spot": ("redis", "redis-sentinel"),
    "tls": ("gateway-api",),
    "gateway-api/envoy-gateway": ("gateway-api",),
    "gateway-api/nginx-gateway-fabric": ("gateway-api",),
}


def components() -> list[str]:
    """All, by their path below k8s/components."""
    root = KUBERNETES / "components"
    found = [path for path in root.rglob("kustomization.yaml") if "kind: Component\n" in path.read_text()]
    return sorted(str(path.parent.relative_to(root)) for path in found)


def completed(chosen: tuple[str, ...]) -> tuple[str, ...]:
    """With what they need, in an order that is right."""
    needed = [NEEDS[name][0] for name in chosen if name in NEEDS and not set(NEEDS[name]) & set(chosen)]
    return tuple(sorted({*needed, *chosen}, key=lambda name: (name in NEEDS, name)))


def is_legal(chosen: tuple[str, ...]) -> bool:
    return all(len(set(group) & set(chosen)) <= 1 for group in GROUPS)


def alone() -> Iterator[tuple[str, ...]]:
    """Each component, with what it needs."""
    yield from dict.fromkeys(completed((name,)) for name in components())


def fullest() -> Iterator[tuple[str, ...]]:
    """Those to which none can be added: every legal pair is in one of them."""
    rest = [name for name in components() if not any(name in group for group in GROUPS)]
    for chosen in product(*GROUPS):
        yield completed((*chosen, *rest))


def everything() -> Iterator[tuple[str, ...]]:
    """Every legal choice of all that there is."""
    names = components()
    for size in range(len(names) + 1):
        for chosen in combinations(names, size):
            if is_legal(chosen) and completed(chosen) == tuple(sorted(chosen, key=lambda name: (name in NEEDS, name))):
                yield completed(chosen)


def covering(strength: int) -> Iterator[tuple[str, ...]]:
    """Few choices, in which any so many components are each there and not there, in every way that is legal."""
    names, every, rng = components(), list(everything()), random.Random(1)

    def ways(chosen: tuple[str, ...]) -> set[tuple[tuple[str, bool], ...]]:
        return set(combinations([(name, name in chosen) for name in names], strength))

    left = {way for chosen in every for way in ways(chosen)}
    while left:
        wanted = min(left)
        able = [chosen for chosen in every if all((name in chosen) == there for name, there in wanted)]
        best = max(rng.sample(able, min(50, len(able))), key=lambda chosen: len(ways(chosen) & left))
        left -= ways(best)
        yield best
