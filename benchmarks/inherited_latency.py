"""int8 latency for `inherited_family`: the model and the limits, networks within the limits, searches, measurements.

ONNX Runtime on the CPU, one thread, one image. Nothing else may run on the machine while these functions run.

    space --profile--> latency model --> limits --> random networks, searches of the same supernets --> networks
    networks --exported to int8, timed in turn--> milliseconds
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalenet_zoo import ArchSpec, benchmark, run_search
from scalenet_zoo.core.files import replacing
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.export.metadata import OnnxOptions
from scalenet_zoo.export.onnx import export_onnx
from scalenet_zoo.latency.items import network_item
from scalenet_zoo.latency.measuring import prepare_yardstick, visit_item
from scalenet_zoo.latency.model import LatencyModel
from scalenet_zoo.latency.yardstick import quiet_ms
from scalenet_zoo.search.measured_latency import LatencyMeter
from scalenet_zoo.search.run_search import SearchResult
from scalenet_zoo.search.scalenet.config import ScaleNetConfig
from scalenet_zoo.search.scalenet.method import ScaleNetMethod
from scalenet_zoo.search.settings import LatencySettings
from scalenet_zoo.zoo.create import create_seeded

BACKEND = "ort-cpu"
THREADS = 1


def with_latency(config: ScaleNetConfig, latency: LatencySettings, limits: Sequence[str | None] = ()) -> ScaleNetConfig:
    """Limit latency instead of MACs in a configuration.

    Args:
        config: the configuration of a search.
        latency: how latency is modelled and measured.
        limits: the longest latency of each stage, such as 1.5ms, or None; empty: latency is not limited yet.
    """
    within = {"macs": None, "latency": list(limits), "backend": BACKEND, "threads": THREADS}
    changes = {"name": f"{config.name}_{latency.precision}", "limits": within}
    return config.changed({**changes, "latency": latency.model_dump(mode="json")})


@dataclass(frozen=True)
class LatencyLimits:
    """Limits on latency, and the model that gives them.

    Attributes:
        model: the latency model of the space.
        limits: the latencies of the peers that the model predicts, as a configuration takes them, to a microsecond.
        measured: the latencies of the peers in milliseconds, measured as the profile is.
        conditions: back end, precision, threads and machine.
    """

    model: LatencyModel
    limits: tuple[str, ...]
    measured: tuple[float, ...]
    conditions: str


def latency_limits(config: ScaleNetConfig, peers: Sequence[ArchSpec], folder: Path) -> LatencyLimits:
    """Profile a space, and take the latencies of other networks as limits.

    Args:
        config: a configuration from `with_latency`; limits in it are not used.
        peers: a network for each stage.
        folder: the folder for the profile; an interrupted profile in it is resumed.

    Raises:
        BackendError: ONNX Runtime is not installed.
        InputError: the folder has a profile of another machine or with other settings.
    """
    labels = open_data(config.data, config.task, config.train_split).labels
    meter = LatencyMeter(ScaleNetMethod(config, labels), folder)
    model, settings, best = meter.model(), meter.profile_settings, meter.profile.yardstick
    with prepare_yardstick(meter.method.yardstick, settings, known=best) as yardstick:
        visits = [visit_item(network_item(spec), settings, yardstick) for spec in peers]
    return LatencyLimits(
        model,
        limits=tuple(f"{model.predict_spec(spec):.3f}ms" for spec in peers),
        measured=tuple(quiet_ms(each, best) for each in visits),
        conditions=meter.told,
    )


def search_within(config: ScaleNetConfig, output: Path, supernet: Path, profiled: Path) -> SearchResult:
    """Search the trained supernet of another run within latency limits.

    Args:
        config: a configuration from `with_latency`, with limits.
        output: the folder of the run; a stopped search in it is resumed.
        supernet: the other run, whose supernet is copied.
        profiled: the folder of `latency_limits`, whose profile is copied.

    Raises:
        TrainingError: the supernet was trained with another configuration.
        BudgetError: no network keeps the limits.
        InputError: there is no trained supernet, or the profile is of another machine.
    """
    target = output / "latency" / "profile.json"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            shutil.copy(profiled / target.name, temporary)
    return run_search(config, output, supernet=supernet, workers=0, cpu=True)


def int8_latencies(specs: Sequence[ArchSpec], timing: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Export networks to int8, and time the files in turn. Weights are random: latency does not depend on them.

    Args:
        specs: networks with distinct names.
        timing: `warmup`, `seconds`, `runs` and `repeats`, as `benchmark` takes them.

    Returns:
        For each network, the median of its milliseconds, and the smallest and the largest median of a visit.
    """
    options = OnnxOptions(precision="int8", target="ort-cpu")
    with tempfile.TemporaryDirectory() as folder:
        files = {Path(folder) / f"{spec.name}.onnx": spec for spec in specs}
        for path, spec in files.items():
            export_onnx(create_seeded(spec), path, options, sample_photographs())
        results = benchmark(list(files), on=BACKEND, threads=THREADS, **timing).results
    return {
        spec.name: {"ms": result.latency.median, "spread": list(result.latency.spread)}
        for spec, result in zip(specs, results, strict=True)
    }
