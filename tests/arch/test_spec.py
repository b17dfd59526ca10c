"""Specs and family files: what is accepted, kept and refused."""

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from scalenet_zoo import ArchSpec, create_model, list_models, load_spec
from scalenet_zoo.arch.family import Family
from scalenet_zoo.arch.schemas import SCHEMAS, SCHEMAS_FOLDER, schema_text
from scalenet_zoo.arch.spec import Input, Layer, Module, spec_of
from scalenet_zoo.arch.trace import Trace, trace
from scalenet_zoo.core.errors import SpecError
from scalenet_zoo.core.files import format_json
from scalenet_zoo.zoo.catalog import FAMILIES, load_family
from tests.helpers.bad_specs import BAD_MBCONV, BAD_MULTIPATH, corrupt, setting
from tests.helpers.random_specs import specs


def as_json(spec: ArchSpec) -> Any:
    return json.loads(spec.to_json())


# --- what is kept ---------------------------------------------------------------------------------


@settings(max_examples=60)
@given(specs)
def test_round_trip(spec: ArchSpec) -> None:
    again = ArchSpec.from_dict(as_json(spec), source="text")
    assert again == spec
    assert again.hash == spec.hash
    assert again.to_json() == spec.to_json()


@settings(max_examples=60)
@given(specs, st.randoms())
def test_hash_depends_on_the_network_alone(spec: ArchSpec, random: Any) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = [(key, shuffled(item)) for key, item in value.items()]
            random.shuffle(items)
            return dict(items)
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    assert ArchSpec.from_dict(shuffled(as_json(spec)), source="text").hash == spec.hash
    assert spec.replace(name="other", classes=3, channels=2, height=17, width=23).hash == spec.hash

    network = spec.network
    if network.type == "mbconv":
        other: Any = network.model_copy(
            update={"gate": "sigmoid" if network.gate == "hard_sigmoid" else "hard_sigmoid"}
        )
    else:
        other = network.model_copy(update={"width": network.width + 1})
    assert ArchSpec.create(spec.name, spec.task, spec.input, 1, other, spec.provenance).hash != spec.hash


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("scalenet_s0", "e87c15957314c112217241b90bc5c5503da6da96c73bdb1f1a41d2b52bac4857"),
        ("scalenas_s1", "c322f61ecda173a75b7853306349ef5cdc3b185c6f2c6578e6aed0f759721804"),
    ],
)
def test_hash_is_the_one_that_files_carry(name: str, digest: str) -> None:
    assert load_spec(name).hash == digest


def test_defaults_are_left_out_of_files_and_hashes() -> None:
    """So specs that were written before padding and the like existed keep their hashes."""
    spec = load_spec("scalenet_s0")
    text = as_json(spec)
    assert text["network"].keys() == {"type", "stem", "stages", "head", "activation", "gate"}
    assert all("expand" not in layer for stage in text["network"]["stages"] for layer in stage)
    usual = copy.deepcopy(text)
    usual["network"] |= {"padding": "symmetric", "norm_eps": 1e-5}
    usual["network"]["stages"][0][0]["expand"] = False
    stated = ArchSpec.from_dict(usual, source="text")
    assert (stated.hash, stated.to_json()) == (spec.hash, spec.to_json())
    others = {spec.hash}
    for field, value in (("padding", "same"), ("norm_eps", 1e-3), ("activation", "relu6")):
        changed = copy.deepcopy(text)
        changed["network"][field] = value
        other = ArchSpec.from_dict(changed, source="text")
        assert as_json(other) == changed
        others.add(other.hash)
    assert len(others) == 4
    family = json.loads(load_family("scalenet").to_json())
    assert not {"padding", "norm_eps"} & family["base"].keys()
    assert "scales_stem" not in family
    assert all("scales_depth" not in stage for stage in family["base"]["stages"])


def test_an_expansion_to_equal_channels_is_written(tmp_path: Path) -> None:
    """An expansion to more or fewer channels goes without saying; writing it gives another file."""
    text = as_json(load_spec("scalenet_s0"))
    layer = text["network"]["stages"][0][0]
    assert layer["hidden"] == text["network"]["stem"]["channels"]
    layer["expand"] = True
    with pytest.raises(SpecError, match=r"cost\.macs: found \d+, expected \d+"):
        ArchSpec.from_dict(text, source="text")
    expanded, hidden = Layer(**layer), layer["hidden"]
    assert expanded.expands(hidden)
    assert expanded.expands(hidden + 1)
    plain = expanded.model_copy(update={"expand": False})
    assert not plain.expands(hidden)
    assert plain.expands(hidden + 1)


def test_save_and_load(tmp_path: Path) -> None:
    spec = load_spec("scalenas_p2")
    path = tmp_path / "new" / "spec.json"
    spec.save(path)
    assert ArchSpec.load(path) == load_spec(path) == spec
    assert [p.name for p in path.parent.iterdir()] == ["spec.json"]


def test_replace_recomputes_the_cost() -> None:
    spec = load_spec("scalenet_s0")
    smaller = spec.replace(name="tiny", classes=10, height=112, width=112)
    assert smaller.cost.params == spec.cost.params - 990 * 1281
    assert smaller.cost.macs < spec.cost.macs / 3
    assert smaller.input == Input(height=112, width=112)
    with pytest.raises(SpecError, match=r"classes: found -1, expected greater than or equal to 0"):
        spec.replace(classes=-1)


def test_a_network_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    given = load_spec("scalenet_s0")
    traced: list[int] = []

    def counting(network: Any, image: Input, classes: int) -> Trace:
        traced.append(image.height)
        return trace(network, image, classes)

    monkeypatch.setattr("scalenet_zoo.arch.spec.trace", counting)
    made = ArchSpec.create(given.name, given.task, given.input, given.classes, given.network, given.provenance)
    assert made == given
    assert made.trace == given.trace
    assert made.replace(classes=7).trace == trace(given.network, given.input, 7)
    changed = made.replace(height=96)
    assert changed.trace == trace(given.network, changed.input, changed.classes)
    assert changed.replace(name="other").trace is changed.trace
    assert traced == [given.input.height, given.input.height, 96]
    fields = {name: getattr(given, name) for name in ArchSpec.model_fields}
    with pytest.raises(ValidationError, match="found 1, expected"):  # a cost is not believed, whoever traced
        ArchSpec.model_validate({**fields, "cost": {"macs": 1, "params": given.cost.params}}, context=given.trace)


def test_networks_that_no_machine_can_hold_are_refused() -> None:
    spec = load_spec("scalenet_s0")
    network: Any = spec.network
    layer = network.stages[0][0].model_copy(update={"hidden": 60_000, "channels": 60_000})
    network = network.model_copy(update={"stages": ((layer,) * 250,)})
    with pytest.raises(ValidationError, match="less than or equal to 10000000000"):
        ArchSpec.create("huge", spec.task, spec.input, 5, network, spec.provenance)


def test_spec_of_a_foreign_network_is_refused() -> None:
    assert spec_of(create_model("scalenet_s0")).name == "scalenet_s0"
    with pytest.raises(TypeError, match="found str, expected a whole network"):
        spec_of("a string")


def test_long_lines_are_broken_and_short_ones_are_not() -> None:
    value = {"short": [1, 2, 3], "long": [list(range(40)), []]}
    text = format_json(value)
    assert json.loads(text) == value
    assert '"short": [1, 2, 3]' in text
    assert max(map(len, text.splitlines())) <= 170  # an array of 40 numbers has one number per line
    assert format_json([list(range(60))]).count("\n") > 60


# --- schemas --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_current(name: str) -> None:
    assert (SCHEMAS_FOLDER / name).read_text() == schema_text(SCHEMAS[name]), "run `make schema`"


def schema(name: str) -> Any:
    return json.loads((SCHEMAS_FOLDER / name).read_text())


@pytest.mark.parametrize("path", sorted(SCHEMAS_FOLDER.glob("*/*.json")), ids=lambda path: path.name)
def test_files_of_the_zoo_fit_the_schema(path: Path) -> None:
    kind = "family" if path.name.endswith(".family.json") else "arch"
    jsonschema.validate(json.loads(path.read_text()), schema(f"{kind}.schema.json"))


def test_schema_refuses_what_the_code_refuses() -> None:
    for change in ({"version": 2}, {"extra": 1}, {"classes": -1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(as_json(load_spec("scalenet_s0")) | change, schema("arch.schema.json"))
    even = as_json(load_spec("scalenet_s0"))
    even["network"]["stages"][0][0]["kernel"] = 4
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(even, schema("arch.schema.json"))


# --- bad fields -----------------------------------------------------------------------------------


def refusal(data: Any) -> str:
    with pytest.raises(SpecError) as caught:
        ArchSpec.from_dict(data, source="bad.json")
    message = str(caught.value)
    assert message.startswith("bad.json: ")
    assert "\n" not in message
    assert len(message) < 300
    return message


@pytest.mark.parametrize(("change", "complaint"), BAD_MBCONV, ids=lambda x: getattr(x, "__name__", ""))
def test_bad_mbconv_specs_are_refused(change: Callable[[Any], Any], complaint: str) -> None:
    assert complaint in refusal(change(as_json(load_spec("scalenet_s0"))))


@pytest.mark.parametrize(("change", "complaint"), BAD_MULTIPATH, ids=lambda x: getattr(x, "__name__", ""))
def test_bad_multipath_specs_are_refused(change: Callable[[Any], Any], complaint: str) -> None:
    assert complaint in refusal(change(as_json(load_spec("scalenas_s1"))))


def test_stages_must_follow_one_another() -> None:
    data = as_json(load_spec("scalenas_s1"))
    del data["network"]["modules"][1:5]
    assert "found modules of [2, 4, 4, 4] branches, expected 2, then 3, then 4" in refusal(data)


@pytest.mark.parametrize("value", [None, [], "text", 3, True])
def test_a_file_of_something_else_is_refused(value: Any) -> None:
    assert "expected" in refusal(value)


# --- bad files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("missing", "cannot be read: No such file or directory"),
        ("truncated", "is not valid JSON: Unterminated string"),
        ("empty", "is not valid JSON: Expecting value"),
        ("binary", "is not UTF-8 text: found the byte 0x"),
        ("duplicate", "found the key 'version' twice in one object, expected it once"),
        ("nan", "input.height: found NaN, expected a finite number"),
        ("infinite", "provenance.details.x: found '1e999', expected a finite number"),
        ("endless", "input.height: found an integer of 5,000 digits, expected one of 64 bits"),
        ("deep", "is nested too deeply to be read"),
        ("deep_field", "is nested too deeply to be read"),
        ("deeper_field", "is nested too deeply to be read"),
        ("surrogate", "Invalid JSON: "),
        ("huge", "found 2,147,483,648 bytes, expected at most 8,388,608"),
        ("directory", "is a directory, expected a file"),
        ("pipe", "is not a regular file, expected one"),
    ],
)
@pytest.mark.parametrize("document", [ArchSpec, Family])
def test_bad_files_are_refused(tmp_path: Path, name: str, complaint: str, document: Any) -> None:
    path = corrupt(tmp_path, name)
    with pytest.raises(SpecError) as caught:
        document.load(path)
    assert str(caught.value).startswith(f"{path}: {complaint}")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="Linux only: a file that is there and cannot be read")
def test_a_file_that_fails_while_being_read() -> None:
    with pytest.raises(SpecError, match=r"/proc/self/mem: cannot be read: Input/output error"):
        ArchSpec.load("/proc/self/mem")


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.json"
    load_spec("scalenet_s0").save(path)
    path.chmod(0)
    program = f"import os, sys; sys.path[:] = {sys.path!r}; from scalenet_zoo import ArchSpec; "
    program += "os.getuid() or os.setuid(65534); "  # root may read anything: become nobody, once all is imported
    program += f"ArchSpec.load({str(path)!r})"
    for folder in [tmp_path, *list(tmp_path.parents)[:-2]]:
        if os.getuid() == 0:
            folder.chmod(folder.stat().st_mode | 0o111)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.stderr.splitlines()[-1].endswith("secret.json: cannot be read: Permission denied")


# --- families -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES["classification"])
def test_family_round_trip(name: str, tmp_path: Path) -> None:
    family = load_family(name)
    family.save(tmp_path / "family.json")
    assert Family.load(tmp_path / "family.json") == family


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            setting("strategies", 0, "depth", value=0.0),
            "strategies.0.depth: found 0.0, expected greater than or equal to 0.01",
        ),
        (setting("strategies", 0, "width", value="1"), "strategies.0.width: found '1', expected a valid number"),
        (setting("strategies", value=[]), "strategies: found [], expected at least 1 item"),
        (
            setting("base", "stages", 1, "kernels", value=[2]),
            "base.stages.1.kernels.0: found 2, expected an odd number",
        ),
        (
            setting("base", "squeeze", value="both"),
            "base.squeeze: found 'both', expected 'input', 'expanded' or 'none'",
        ),
        (
            setting("format", value="scalenet-zoo/arch"),
            "format: found 'scalenet-zoo/arch', expected 'scalenet-zoo/family'",
        ),
        (setting("divisor", value=0), "divisor: found 0, expected greater than or equal to 1"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_bad_families_are_refused(change: Callable[[Any], Any], complaint: str) -> None:
    data = change(copy.deepcopy(json.loads(load_family("scalenet").to_json())))
    with pytest.raises(SpecError) as caught:
        Family.from_dict(data, source="bad.json")
    assert str(caught.value).startswith(f"bad.json: {complaint}")


def test_every_entry_loads_by_name() -> None:
    assert [load_spec(name).name for name in list_models()] == list_models()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"stages": [', '"stages": [[' + "{}," * 150_000 + "{}],"),
        ('"details": {', '"details": {"x": [' + "[]," * 150_000 + "[]],"),
        ('"format": ', "".join(f'"field{i}": 1,' for i in range(200_000)) + '"format": '),
    ],
    ids=["layers", "lists", "fields"],
)
def test_files_of_too_many_values_are_refused_at_once(old: str, new: str, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(load_spec("scalenet_s0").to_json().replace(old, new, 1))
    start = time.process_time()
    with pytest.raises(SpecError, match=r"spec.json: found about \d+,\d+ values, expected at most 200,000"):
        ArchSpec.load(tmp_path / "spec.json")
    assert time.process_time() - start < 2


def test_only_the_first_of_many_complaints_is_computed() -> None:
    data = load_spec("scalenet_s0").model_dump(mode="json")
    data["network"]["stages"] = [[{}] * 60_000]  # five fields are missing in each
    with pytest.raises(SpecError, match=r"network.stages.0.0.kernel: is missing \(and \d more\)"):
        ArchSpec.from_dict(data, "spec")


def test_a_branch_keeps_itself_up_to_its_depth_and_reads_nothing_past_it() -> None:
    ones, none = (1, 1), (0, 0)
    fusion = [[ones, ones, none, none, none], [ones, none, none, none, none]]
    Module.model_validate_json(json.dumps({"depth": (2, 1), "fusion": fusion}))
    for to, step, row, complaint in (
        (0, 1, (0, 1), r"fusion\[0\]\[1\]\[0\]: found 0, expected 1"),
        (1, 0, (1, 0), r"fusion\[1\]\[0\]\[1\]: found 0, expected 1"),
        (0, 2, (0, 1), r"fusion\[0\]\[2\]: found \[0, 1\], expected zeros past the depth 2"),
        (1, 1, (1, 0), r"fusion\[1\]\[1\]: found \[1, 0\], expected zeros past the depth 1"),
    ):
        changed = copy.deepcopy(fusion)
        changed[to][step] = row
        with pytest.raises(ValidationError, match=complaint):
            Module.model_validate_json(json.dumps({"depth": (2, 1), "fusion": changed}))
