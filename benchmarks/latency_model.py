"""The latency model of ScaleNet's family on ONNX Runtime, and budgets that it is asked for.

python -m benchmarks.latency_model: about 40 minutes on 2 cores. Interrupted, it goes on where it stopped.
It reports the error on networks held out, against the best power law of MACs, predictions a second,
and for budgets spread over the family's range what was predicted and measured.
"""

import time

import numpy as np

from benchmarks.interleave import RESULTS, record
from scalenet_zoo.arch.constraints import Macs
from scalenet_zoo.arch.population import Population
from scalenet_zoo.arch.scaling import MACS_RANGE, fit_budget
from scalenet_zoo.latency.budget import search_at_latency
from scalenet_zoo.latency.model import LatencyModel, make_latency_model
from scalenet_zoo.latency.profile import Plan, Settings
from scalenet_zoo.zoo.catalog import load_family

SETTINGS = Settings(family="scalenet", backend="ort-cpu", threads=2)
BUDGETS = 10


def predictions_per_second(model: LatencyModel, networks: int = 50_000, repeats: int = 7) -> list[float]:
    """Rates of populations of base models drawn from ScaleNet's space, under one strategy."""
    rng = np.random.default_rng(0)
    kernels = rng.choice([3, 5, 7], (networks, 7, 4))
    rates = []
    for _ in range(repeats):
        population = Population(load_family("scalenet"), kernels, 1.1, 1.1, 256, divisor=8)
        start = time.perf_counter()
        model.predict(population)
        rates.append(networks / (time.perf_counter() - start))
    return rates


def main() -> None:
    family = load_family("scalenet")
    path = RESULTS / "latency_model_ort_cpu.json"

    def tell(what: str, done: int, total: int) -> None:
        print(f"\r{what} {done}/{total}   ", end="", flush=True)

    model = LatencyModel.load(path) if path.exists() else make_latency_model(family, SETTINGS, Plan(), path, tell)
    low, high = (model.predict_spec(fit_budget(family, Macs(macs))) for macs in MACS_RANGE)
    rows: list[dict[str, object]] = []
    met = 0
    for budget in map(float, np.geomspace(1.1 * low, 0.9 * high, BUDGETS).round(2)):
        found = search_at_latency(budget, family, model)
        last = found.attempts[-1]
        met += last.measured <= budget
        rows.append(
            {
                "budget_ms": budget,
                "predicted_ms": last.predicted,
                "measured_ms": last.measured,
                "visits_ms": last.visits,
                "quiet_visits": last.quiet,
                "attempts": len(found.attempts),
                "macs": last.spec.cost.macs,
            }
        )
        print(rows[-1], flush=True)
    rates = predictions_per_second(model)
    record(
        "latency_budgets",
        {
            "settings": SETTINGS.model_dump(),
            "held_out": model.held_out.model_dump(),
            "macs_alone": model.macs_alone.model_dump(),
            "predictions_per_second_median": int(np.median(rates)),
            "predictions_per_second_min": int(min(rates)),
            "budgets": rows,
            "met": met,
        },
    )


if __name__ == "__main__":
    main()
