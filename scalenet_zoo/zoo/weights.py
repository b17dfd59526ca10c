"""Weights of our networks: check and load files from any source, and write our own files as safetensors.

    file --Weights.open--> names and shapes, checked against the spec --load_into--> network

A file is checked before a network is built for it. Its tensors may have our names or those of another library
(`namings.py`). They may belong to the same network with another number of classes or input channels; `adopt_weights`
then adapts them and logs it. All other differences are refused. Pickles are never written, and nothing that could run
code is loaded from a pickle of torch.save (`weights_files.py`).
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save
from timm.models import adapt_input_conv
from torch import Tensor, nn

from scalenet_zoo.arch.spec import ArchSpec, spec_of, unwrapped
from scalenet_zoo.core.documents import first_complaint
from scalenet_zoo.core.errors import SpecError, WeightsError
from scalenet_zoo.core.file_kinds import PICKLE, kind_of
from scalenet_zoo.core.files import replacing
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.networks import network_of
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.namings import Naming, kind_of_network, naming_of_other_task, namings_for
from scalenet_zoo.zoo.weights_files import AVERAGES, Form, OpenedWeights, open_weights_file, plain_names

SPEC_KEY, INTERFACE_KEY = "scalenet_zoo.spec", "scalenet_zoo.interface"
"""The keys of a file's metadata for the spec, and for the preparation of images."""

_ZERO = Form((), "integers")
_logger = logging.getLogger(__name__)


def save_weights(model: nn.Module, path: str | Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write a network's weights; the metadata hold its spec and how images are prepared for it.

    The same weights give the same bytes.

    Args:
        model: one of our networks, wrapped or not.
        path: the file to write.
        state: other weights for this network, such as their moving average; None: its own weights.

    Raises:
        WeightsError: the tensors are not those of the network: the network was changed, or they belong to another one.
        SpecError: its `pretrained_cfg` has a value that a file cannot hold, such as a crop of 200%.
        OutputError: the file cannot be written.
    """
    spec = spec_of(model)
    interface = Interface.of_network(model)
    metadata = {key: each.model_dump_json() for key, each in ((SPEC_KEY, spec), (INTERFACE_KEY, interface))}
    tensors = plain_names(unwrapped(model).state_dict() if state is None else state)
    for key, value in tensors.items():
        if not isinstance(value, Tensor) or value.is_meta:  # from a quantised network, or a network on the meta device
            raise WeightsError(f"{path}: {key}: found {quoted(value)}, expected a tensor with values")
    _check(_forms(tensors), _expected(spec), spec, str(path))
    content = save({key: value.contiguous() for key, value in tensors.items()}, metadata)
    with replacing(Path(path)) as temporary:  # save_file would make the file unreadable for other users
        temporary.write_bytes(_with_sorted_metadata(content))


def _with_sorted_metadata(content: bytes) -> bytes:
    """Sort the metadata of a safetensors file, because the library writes them in random order."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8 bytes
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(content)[8 + size :]))


@dataclass(frozen=True)
class Weights:
    """A file of weights whose names and shapes fit a network.

    Attributes:
        file: the opened file, so that it is read only once.
        spec: the spec of the network that the weights belong to.
        naming: the naming of its tensors.
        cfg: how images are prepared for the weights, as timm's dict; None: the file does not say.
    """

    file: OpenedWeights
    spec: ArchSpec
    naming: Naming
    cfg: Mapping[str, Any] | None = field(default=None, repr=False)

    @classmethod
    def open(
        cls, path: str | Path, spec: ArchSpec, theirs: ArchSpec | None = None, safetensors: bool = False
    ) -> "Weights":
        """Open and check a file of safetensors or torch.save, with our names, timm's or another library's.

        The naming is detected: it is the first one in `namings.py` by which the file has all tensors of the network,
        with the right shapes. If a checkpoint holds both the trained weights and their moving average, the average is
        used.

        Args:
            path: the file.
            spec: the spec of the network that the weights are for.
            theirs: the spec of the network that the weights, with our names, belong to; None: according to the file's
                metadata or shapes.
            safetensors: whether only a safetensors file is accepted.

        Raises:
            WeightsError: the file cannot be read, could run code, is for another architecture or task, or its tensors
                do not fit.
            BackendError: the file must be read whole, and does not fit into memory.
        """
        if safetensors and kind_of(Path(path)) == PICKLE:
            raise WeightsError(
                f"{path}: found what looks like a pickle, expected a safetensors file: pickles are never read here"
            )
        file = open_weights_file(path)
        forms = plain_names(file.forms, str(path))
        stated = _stated_spec(file.metadata, spec, str(path))
        theirs = theirs or stated
        namings = namings_for(spec)
        if theirs:
            _check(forms, _expected(theirs), theirs, str(path))
            interface = _stated_interface(file.metadata, str(path)) if stated else None
            return cls(file, theirs, namings[0], interface.to_timm(spec) if interface else None)
        fits: list[_Fit] = []
        known: dict[tuple[int, int], dict[str, Form]] = {}  # to build each network once
        for naming in namings:
            fit = _Fit(naming, forms, spec, known)
            if fit.is_whole:
                return cls(file, fit.spec, naming)
            fits.append(fit)
        if other := naming_of_other_task(forms, spec):
            raise WeightsError(
                f"{path}: found weights of {other.whose}, expected weights for {kind_of_network(spec)},"
                f" as {spec.name} needs"
            )
        raise max(fits, key=lambda fit: fit.fitting).complaint(str(path))

    def load_into(self, model: nn.Module) -> None:
        """Read the weights into a network; log their origin if it may surprise the user.

        Raises:
            WeightsError: the file cannot be read, does not fit, or holds NaN or infinite values.
            BackendError: the weights do not fit into memory.
        """
        spec, path, taken_from = spec_of(model), self.file.path, self.file.taken_from
        state = plain_names(self.file.read(), str(path))
        state = self.naming.renamed(state, spec, torch.tensor(0))
        adopt_weights(model, state, str(path), self.spec, head=self.naming.head)
        if set(AVERAGES) & set(taken_from.split(".")):
            _logger.warning("%s: %s: the moving average of the weights is used (%s)", spec.name, path, taken_from)
        if doubt := self.naming.doubt(spec):
            whose = self.naming.whose
            _logger.warning("%s: %s has weights of %s, %s: outputs differ", spec.name, path, whose, doubt)


class _Fit:
    """How well tensors fit a network if their names belong to a naming.

    Attributes:
        spec: the spec of the network, with the number of classes and the input channels of the tensors.
        fitting: the number of the network's tensors that are there with the right shape.
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
        """Whether all tensors of the network are there, and no others."""
        return self._forms == self._expected and not self._strangers

    def complaint(self, source: str) -> WeightsError:
        """Return an error about the first tensor that does not fit, by its name in the file."""
        if self._forms == self._expected:
            return _complaint(self._strangers, {}, self.spec, source, self._naming)
        return _complaint(self._forms, self._expected, self.spec, source, self._naming)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a file of weights that `save_weights` wrote, or any other that `Weights.open` accepts.

    Raises:
        WeightsError, BackendError: as for `Weights.open`.
    """
    Weights.open(path, spec_of(model)).load_into(model)


def _stated_spec(metadata: Mapping[str, str], spec: ArchSpec, source: str) -> ArchSpec | None:
    """Return the spec in a file's metadata, which must be of the same architecture; None: there is no spec."""
    if SPEC_KEY not in metadata:
        return None
    try:
        found = ArchSpec.from_text(metadata[SPEC_KEY], source="spec")
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{source}: found metadata that are not valid: {error}") from None
    if found.hash != spec.hash:
        raise WeightsError(f"{source}: found weights of the architecture {found.name}, expected {spec.name}")
    return found


def _stated_interface(metadata: Mapping[str, str], source: str) -> Interface | None:
    """Return how images are prepared for the weights, according to a file's metadata; None: they do not say."""
    if INTERFACE_KEY not in metadata:
        return None
    try:
        return Interface.model_validate_json(metadata[INTERFACE_KEY])
    except ValidationError as error:
        raise WeightsError(f"{source}: {INTERFACE_KEY}: {first_complaint(error)}") from None


def _spec_of_forms(forms: Mapping[str, Form], spec: ArchSpec) -> ArchSpec:
    """Return the spec with the number of classes and the input channels of the tensors."""
    stem = forms.get(f"{spec.first_conv}.weight", Form((), "")).shape
    biases = [forms[key].shape for key in ("classifier.fine.bias", "classifier.bias") if key in forms]
    classes = biases[0][0] if biases and len(biases[0]) == 1 else spec.classes
    if not any(key.startswith("classifier.") for key in forms):
        classes = 0
    try:
        return spec.replace(classes=classes, channels=stem[1] if len(stem) == 4 else None)
    except SpecError:  # no network has such numbers; the later comparison reports which tensor does not fit
        return spec


def adopt_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    theirs: ArchSpec | None = None,
    head: bool = True,
) -> None:
    """Load tensors into a network, adapted to its number of classes and input channels; log what was adapted.

    For another number of input channels the weights of the first convolution are repeated or summed, as in timm. For
    another number of classes the classifier keeps its initial weights.

    Args:
        model: one of our networks, wrapped or not, changed in place.
        state: tensors by the network's names.
        source: the name of the tensors in messages.
        theirs: the spec of the network that the tensors belong to; None: according to their shapes.
        head: whether the tensors must also cover the head of a multipath network.

    Raises:
        WeightsError: a tensor is missing, does not belong to the network, has another shape, or holds NaN or infinite
            values.
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
            raise WeightsError(f"{source}: {key}: found {count:,} infinite or NaN values, expected none")
    model.load_state_dict({places[key]: value for key, value in taken.items()}, strict=not missing)
    if modules := sorted({key.rpartition(".")[0] for key in missing}):
        names = ", ".join(modules)
        _logger.warning("%s: the weights of %s do not cover %s, which starts untrained", spec.name, source, names)


def _expected(spec: ArchSpec) -> dict[str, Form]:
    """Return the forms of a network's tensors; the network is built on the meta device and takes no memory."""
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
    """Return an error about the first difference, in the order of our names of the tensors."""
    key = min(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
    theirs, ours = found.get(key), expected.get(key)
    named = naming.their_name(key, spec) if naming else None
    name = f"{named} (our {key})" if named else key
    what = f"{spec.name} in weights of {naming.whose}" if naming and naming.modules else spec.name
    if theirs and ours and theirs.shape == ours.shape:
        return WeightsError(f"{source}: {name}: found {theirs.numbers}, expected {ours.numbers} for {what}")
    shapes = [form.shape if form else "no such tensor" for form in (theirs, ours)]
    return WeightsError(f"{source}: {name}: found {shapes[0]}, expected {shapes[1]} for {what}")
