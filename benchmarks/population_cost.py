"""Computing the costs of a population of mbconv networks at once, against tracing each spec.

python -m benchmarks.population_cost: networks per second on one core; the target is at least 200,000.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import time

import numpy as np

from benchmarks.interleave import record
from scalenet_zoo.arch.population import Population, population_cost
from scalenet_zoo.arch.scaling import expand
from scalenet_zoo.zoo.catalog import load_family

REPEATS = 15


def networks_per_second(base_models: int, strategies: int) -> list[float]:
    """Measure rates for `REPEATS` populations of base models x strategies, drawn from ScaleNet's space."""
    rng = np.random.default_rng(0)
    family = load_family("scalenet")
    longest = np.array([1, 4, 4, 4, 4, 4, 1])
    kernels = rng.choice([3, 5, 7], (base_models, 7, 4))
    kernels[np.arange(4) >= rng.integers(1, longest + 1, (base_models, 7))[..., None]] = 0
    depth, width = rng.uniform(1.0, 1.64, (2, strategies))
    resolution = rng.integers(28, 45, strategies) * 8
    rates = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        population_cost(Population(family, kernels, depth, width, resolution))
        rates.append(base_models * strategies / (time.perf_counter() - start))
    return rates


def main() -> None:
    measured: dict[str, object] = {}
    for base_models, strategies in ((100_000, 1), (1_000, 100), (1, 10_000)):
        rates = networks_per_second(base_models, strategies)
        measured[f"{base_models} base models x {strategies} strategies"] = {
            "networks_per_second_median": int(np.median(rates)),
            "networks_per_second_min": int(min(rates)),
            "networks_per_second_max": int(max(rates)),
        }
    family = load_family("scalenet")
    start = time.perf_counter()
    for _ in range(20):
        expand(family)
    seconds = (time.perf_counter() - start) / (20 * len(family.strategies))
    measured["one spec at a time, networks_per_second"] = int(1 / seconds)
    record("population_cost", measured)


if __name__ == "__main__":
    main()
