"""Weights of our networks: files of anybody's, found to fit and loaded; and our own, written as safetensors.

    file --Weights.open--> names and shapes, checked against the spec --load_into--> network

A file is looked at before a network is built for it. Its tensors may have our names or those of another library
(`namings.py`). They may be of the same network with another class count or with other input channels, which
`adopt_weights` adapts and says; with anything else they are refused. Pickle is never written, and of one that
torch.save wrote nothing is taken that could run code (`weights_files.py`).
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from timm.models import adapt_input_conv
from torch import Tensor, nn

from scalenet_zoo.arch.spec import ArchSpec, spec_of, unwrapped
from scalenet_zoo.core.errors import SpecError, WeightsError
from scalenet_zoo.core.file_kinds import PICKLE, kind_of
from scalenet_zoo.core.files import replacing
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.networks import network_of
from scalenet_zoo.zoo.namings import Naming, kind_of_network, naming_of_other_task, namings_for
from scalenet_zoo.zoo.weights_files import AVERAGES, Form, OpenedWeights, open_weights_file, plain_names

SPEC_KEY = "scalenet_zoo.spec"
"""Where a file's metadata hold the spec."""

_ZERO = Form((), "integers")
_logger = logging.getLogger(__name__)


def save_weights(model: nn.Module, path: str | Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write a network's weights, with its spec as metadata; the same weights give the same bytes.

    Args:
        model: one of ours, wrapped or not.
        path: the file.
        state: other weights for this network, their moving average say; None: its own.

    Raises:
        WeightsError: the tensors are not those of the network: it was changed, or they are of another.
        OutputError: the file cannot be written.
    """
    spec = spec_of(model)
    metadata = {SPEC_KEY: json.dumps(spec.model_dump(mode="json"))}  # one entry: safetensors shuffles several
    tensors = plain_names(unwrapped(model).state_dict() if state is None else state)
    for key, value in tensors.items():
        if not isinstance(value, Tensor) or value.is_meta:  # of a quantised network, or of one without memory
            raise WeightsError(f"{path}: {key}: found {quoted(value)}, expected a tensor with values")
    _check(_forms(tensors), _expected(spec), spec, str(path))
    with replacing(Path(path)) as temporary:
        # save_file would make it unreadable to others
        temporary.write_bytes(save({key: value.contiguous() for key, value in tensors.items()}, metadata))


@dataclass(frozen=True)
class Weights:
    """A file of weights whose names and shapes were found to be right.

    Attributes:
        file: opened, so that it is read once.
        spec: of the network that they are of.
        naming: whose names its tensors have.
        cfg: how images are prepared for them, as timm's dict, where that is known of the file itself.
    """

    file: OpenedWeights
    spec: ArchSpec
    naming: Naming
    cfg: Mapping[str, Any] | None = field(default=None, repr=False)

    @classmethod
    def open(
        cls, path: str | Path, spec: ArchSpec, theirs: ArchSpec | None = None, safetensors: bool = False
    ) -> "Weights":
        """Look at a file: safetensors, or what torch.save wrote, with our names, timm's or another library's.

        Which names they are is found by looking: of the namings of `namings.py` the first under which the file has all
        tensors of the network, with the right shapes. Of a checkpoint that has a moving average and the weights that
        were trained, the average is taken.

        Args:
            path: the file.
            spec: of the network that they are for.
            theirs: of the network that they are of, under our names; None: as the file's metadata or shapes tell.
            safetensors: whether nothing but a safetensors file is taken.

        Raises:
            WeightsError: the file cannot be read, is of another architecture or task, its tensors do not fit, or it
                names what could run code.
            BackendError: it is read whole, and does not fit into memory.
        """
        if safetensors and kind_of(Path(path)) == PICKLE:
            raise WeightsError(
                f"{path}: expected a safetensors file: looks like a pickle, which is never read from here"
            )
        file = open_weights_file(path)
        forms = plain_names(file.forms, str(path))
        stated = _stated_spec(file.metadata, spec, str(path))
        theirs = theirs or stated
        namings = namings_for(spec)
        if theirs:
            _check(forms, _expected(theirs), theirs, str(path))
            return cls(file, theirs, namings[0])
        fits: list[_Fit] = []
        known: dict[tuple[int, int], dict[str, Form]] = {}  # to build each network once
        for naming in namings:
            fit = _Fit(naming, forms, spec, known)
            if fit.is_whole:
                return cls(file, fit.spec, naming)
            fits.append(fit)
        if other := naming_of_other_task(forms, spec):
            raise WeightsError(
                f"{path}: found weights of {other.whose}, expected some for {kind_of_network(spec)}, as {spec.name} is"
            )
        raise max(fits, key=lambda fit: fit.fitting).complaint(str(path))

    def load_into(self, model: nn.Module) -> None:
        """Read the weights into a network; where they come from is logged, if it may surprise.

        Raises:
            WeightsError: the file cannot be read, or does not fit, or holds what is no number.
            BackendError: it does not fit into memory.
        """
        spec, path, taken_from = spec_of(model), self.file.path, self.file.taken_from
        state = plain_names(self.file.read(), str(path))
        state = self.naming.renamed(state, spec, torch.tensor(0))
        adopt_weights(model, state, str(path), self.spec, head=self.naming.head)
        if set(AVERAGES) & set(taken_from.split(".")):
            _logger.warning("%s: of %s the moving average is taken, %s", spec.name, path, taken_from)
        if doubt := self.naming.doubt(spec):
            whose = self.naming.whose
            _logger.warning("%s: %s has weights of %s, %s: outputs differ", spec.name, path, whose, doubt)


class _Fit:
    """How well tensors fit a network, if their names are of a naming.

    Attributes:
        spec: of the network, with the class count and the input channels that they have.
        fitting: how many tensors of the network are there, with the right shape.
    """

    def __init__(
        self,
        naming: Naming,
        forms: Mapping[str, Form],
        spec: ArchSpec,
        known: dict[tuple[int, int], dict[str, Form]],
    ) -> None:
        self._naming = naming
        self._forms = naming.renamed(forms, spec, _ZERO)
        self._strangers = {name: forms[name] for name in naming.strangers(forms, spec)}
        self.spec = _spec_of_forms(self._forms, spec)
        counts = (self.spec.classes, self.spec.input.channels)
        if counts not in known:
            known[counts] = _expected(self.spec)
        self._expected = known[counts]
        if not naming.head:
            self._expected = {key: form for key, form in self._expected.items() if not key.startswith("head.")}
        self.fitting = sum(self._forms.get(key) == form for key, form in self._expected.items())

    @property
    def is_whole(self) -> bool:
        """Whether there is each tensor of the network, and no other."""
        return self._forms == self._expected and not self._strangers

    def complaint(self, source: str) -> WeightsError:
        """What does not fit first, under the names in the file."""
        if self._forms == self._expected:
            return _complaint(self._strangers, {}, self.spec, source, self._naming)
        return _complaint(self._forms, self._expected, self.spec, source, self._naming)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load weights that `save_weights` wrote, or any file that `Weights.open` takes.

    Raises:
        WeightsError, BackendError: as `Weights.open`.
    """
    Weights.open(path, spec_of(model)).load_into(model)


def _stated_spec(metadata: Mapping[str, str], spec: ArchSpec, source: str) -> ArchSpec | None:
    """The spec in a file's metadata, if there is one; it must be of the same architecture."""
    if SPEC_KEY not in metadata:
        return None
    try:
        found = ArchSpec.from_text(metadata[SPEC_KEY], source="spec")
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{source}: found metadata that are not valid: {error}") from None
    if found.hash != spec.hash:
        raise WeightsError(f"{source}: found weights of the architecture {found.name}, expected {spec.name}")
    return found


def _spec_of_forms(forms: Mapping[str, Form], spec: ArchSpec) -> ArchSpec:
    """The spec with the class count and the input channels that tensors have."""
    stem = forms.get(f"{spec.first_conv}.weight", Form((), "")).shape
    biases = [forms[key].shape for key in ("classifier.fine.bias", "classifier.bias") if key in forms]
    classes = biases[0][0] if biases and len(biases[0]) == 1 else spec.classes
    if not any(key.startswith("classifier.") for key in forms):
        classes = 0
    try:
        return spec.replace(classes=classes, channels=stem[1] if len(stem) == 4 else None)
    except SpecError:  # no network has such counts: the tensors do not fit, as the comparison will say
        return spec


def adopt_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    theirs: ArchSpec | None = None,
    head: bool = True,
) -> None:
    """Load tensors into a network, adapted to its class count and input channels, which is logged.

    Other input channels adapt the first convolution (repeated or summed, as timm does); with another class count the
    classifier keeps its initial weights.

    Args:
        model: one of ours, wrapped or not.
        state: tensors under the network's names.
        source: names them in messages.
        theirs: the spec of the network that they are of; None: as their shapes tell.
        head: whether they must cover the head of a multipath network, too.

    Raises:
        WeightsError: a tensor is missing, is not the network's, has another shape, or holds what is no number.
    """
    model, spec = unwrapped(model), spec_of(model)
    own = model.state_dict()
    places = plain_names({key: key for key in own})
    own = {name: own[key] for name, key in places.items()}
    taken = plain_names(state, source)
    theirs = theirs or _spec_of_forms(_forms(taken), spec)
    anew = () if head else ("head.",)
    if theirs.classes != spec.classes:
        taken = {key: value for key, value in taken.items() if not key.startswith("classifier.")}
        anew = (*anew, "classifier.")
    stem = f"{spec.first_conv}.weight"
    if theirs.input.channels != spec.input.channels and stem in taken:
        taken[stem] = adapt_input_conv(spec.input.channels, taken[stem], theirs.input.channels)
        _logger.warning(
            "%s: the weights of %s are for %d input channels: the first convolution is adapted to %d",
            spec.name,
            source,
            theirs.input.channels,
            spec.input.channels,
        )
    missing = {key for key in own.keys() - taken.keys() if key.startswith(anew)}
    _check(_forms(taken), _forms({key: value for key, value in own.items() if key not in missing}), spec, source)
    for key, value in taken.items():
        if value.is_floating_point() and not (finite := value.to(own[key].dtype).isfinite()).all():
            count = int((~finite).sum())
            raise WeightsError(f"{source}: {key}: found {count:,} values that are infinite or no number, expected none")
    model.load_state_dict({places[key]: value for key, value in taken.items()}, strict=not missing)
    if modules := sorted({key.rpartition(".")[0] for key in missing}):
        names = ", ".join(modules)
        _logger.warning("%s: the weights of %s do not cover %s, which starts untrained", spec.name, source, names)


def _expected(spec: ArchSpec) -> dict[str, Form]:
    """The tensors of a network that is not built: on the meta device they take no memory."""
    with torch.device("meta"):
        return _forms(network_of(spec, initialise=False).state_dict())


def _forms(state: Mapping[str, Tensor]) -> dict[str, Form]:
    return {key: Form.of(value) for key, value in state.items()}


def _check(found: Mapping[str, Form], expected: Mapping[str, Form], spec: ArchSpec, source: str) -> None:
    if dict(found) != dict(expected):
        raise _complaint(found, expected, spec, source)


def _complaint(
    found: Mapping[str, Form],
    expected: Mapping[str, Form],
    spec: ArchSpec,
    source: str,
    naming: Naming | None = None,
) -> WeightsError:
    """What differs first, by our names of the tensors."""
    key = min(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
    theirs, ours = found.get(key), expected.get(key)
    named = naming.their_name(key, spec) if naming else None
    name = f"{named} (our {key})" if named else key
    what = f"{spec.name} in weights of {naming.whose}" if naming and naming.modules else spec.name
    if theirs and ours and theirs.shape == ours.shape:
        return WeightsError(f"{source}: {name}: found {theirs.numbers}, expected {ours.numbers} for {what}")
    shapes = [form.shape if form else "no such tensor" for form in (theirs, ours)]
    return WeightsError(f"{source}: {name}: found {shapes[0]}, expected {shapes[1]} for {what}")
