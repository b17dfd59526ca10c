"""The latency model of ScaleNet's family on a CPU, and networks at latency budgets.

python -m benchmarks.latency_model [--on BACKEND] [--precision P] [--threads N]: by default on ONNX Runtime, in fp32 and
with two threads. It takes about 40 minutes on 2 cores, and an hour in int8; an interrupted run resumes where it
stopped. It reports the error on held-out networks, compared with the best power law of MACs; predictions per second;
and for budgets spread over the family's range, the predicted and the measured latency.
"""

import argparse
import time

import numpy as np

from benchmarks.interleave import RESULTS, record
from scalenet_zoo.arch.constraints import Macs
from scalenet_zoo.arch.population import Population
from scalenet_zoo.arch.scaling import MACS_RANGE, fit_budget
from scalenet_zoo.latency.budget import search_at_latency
from scalenet_zoo.latency.model import LatencyModel, make_latency_model
from scalenet_zoo.latency.plan import Plan
from scalenet_zoo.latency.precisions import PRECISIONS, check_precision
from scalenet_zoo.latency.profile import Settings
from scalenet_zoo.zoo.catalog import load_family

BUDGETS = 10


def predictions_per_second(model: LatencyModel, networks: int = 50_000, repeats: int = 7) -> list[float]:
    """Measure prediction rates for populations of base models drawn from ScaleNet's space, under one strategy."""
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on", default="ort-cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    family = load_family("scalenet")
    precision = check_precision(asked.precision, asked.on)
    settings = Settings(family=family.name, backend=asked.on, precision=precision, threads=asked.threads)
    kind = "" if precision == "fp32" else f"_{precision}"
    path = RESULTS / f"latency_model_{asked.on.replace('-', '_')}{kind}.json"

    def tell(what: str, done: int, total: int) -> None:
        print(f"\r{what} {done}/{total}   ", end="", flush=True)

    model = LatencyModel.load(path) if path.exists() else make_latency_model(family, settings, Plan(), path, tell)
    if model.settings != settings:
        raise SystemExit(f"{path}: found a model for other settings, expected one for {settings.conditions}")
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
        f"latency_budgets{'' if asked.on == 'ort-cpu' else f'_{asked.on}'}{kind}",
        {
            "settings": settings.model_dump(),
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
