"""The Hub: networks pushed and pulled with its real client, against a server on this machine."""

import dataclasses
import json
import logging
import shlex
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import EntryNotFoundError
from torch import nn

from scalenet_zoo import create_model, load_spec
from scalenet_zoo.arch.spec import ArchSpec, Provenance, Result
from scalenet_zoo.core.errors import OutputError, SpecError, WeightsError, ZooError
from scalenet_zoo.zoo.model_card import render_card
from scalenet_zoo.zoo.model_folder import CARD, CONFIG, SPEC, WEIGHTS, read_folder, save_model
from scalenet_zoo.zoo.publish import pull, push
from tests.helpers.command import Run
from tests.helpers.hub_server import TOKEN, Fault, Hub
from tests.helpers.model_folders import HOSTILE, LABELS, TIMMS, network, put, same_outputs
from tests.helpers.networks import random_model
from tests.helpers.shapes import SPECS

# From the client's own upload, by its HTTP library.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NAME = "org/tiny"
TINY = SPECS["classification"]


@pytest.fixture
def logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The model folder of a tiny classifier."""
    path = tmp_path / "tiny"
    path.mkdir()
    save_model(network(TINY), path)
    return path


def publish(hub: Hub, folder: Path, repository: str = NAME, **kind: bool) -> str:
    """Upload a folder to a repository unchanged, as anybody could."""
    return hub.publish(repository, {path.name: path.read_bytes() for path in folder.iterdir()}, **kind)


def refused(message: str, repository: str = NAME, **options: Any) -> None:
    """Neither we nor timm load it; the error is one line."""
    with pytest.raises(ZooError, match=message) as caught:
        create_model(f"hf-hub:{repository}", **options)
    assert "\n" not in str(caught.value)
    with pytest.raises((*TIMMS, OSError, EntryNotFoundError)):  # the client's errors, if timm makes the first request
        timm.create_model(f"hf-hub:{repository}", pretrained=True)


# --- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.task)
def test_push_then_pull(hub: Hub, logged_in: None, spec: ArchSpec, tmp_path: Path) -> None:
    ours = network(spec)
    save_model(ours, tmp_path)
    pushed = push(tmp_path, NAME, license="apache-2.0")
    assert {file.path for file in HfApi().list_repo_tree(NAME)} == {".gitattributes", CONFIG, SPEC, WEIGHTS, CARD}
    assert hub.repositories[NAME].branches == {"main": pushed.oid}
    pulled = pull(NAME, tmp_path / "pulled")
    for name in (CONFIG, SPEC, WEIGHTS):
        assert (tmp_path / "pulled" / name).read_bytes() == (tmp_path / name).read_bytes()
    assert (pulled.path / CARD).read_bytes() == hub.files(NAME)[CARD]
    for model in (
        create_model(f"hf-hub:{NAME}"),
        create_model(pulled.path),
        timm.create_model(f"hf-hub:{NAME}", pretrained=True),
        timm.create_model(f"hf-hub:{NAME}@{pushed.oid}", pretrained=True, cache_dir=tmp_path / "elsewhere"),
    ):
        assert same_outputs(ours, model)
    assert load_spec(f"hf-hub:{NAME}") == spec


def test_a_network_is_pushed_as_it_is(hub: Hub) -> None:
    ours: Any = network(TINY)
    with torch.no_grad():
        ours.classifier.bias += 1
    push(ours, f"hf-hub:{NAME}", token=TOKEN, message="One up")
    assert same_outputs(ours, create_model(f"hf-hub:{NAME}"))


def test_other_classes_and_channels(hub: Hub, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    publish(hub, folder)
    with caplog.at_level(logging.WARNING):
        models = [
            create_model(f"hf-hub:{NAME}", num_classes=9, in_chans=1),
            timm.create_model(f"hf-hub:{NAME}", pretrained=True, num_classes=9, in_chans=1),
        ]
    assert caplog.text.count("do not cover classifier, which starts untrained") == 2
    stem = create_model(folder).state_dict()["stem.conv.weight"].sum(1, keepdim=True)
    for model in models:
        assert model(torch.randn(2, 1, 32, 32)).shape == (2, 9)
        torch.testing.assert_close(model.state_dict()["stem.conv.weight"], stem)


def test_timm_without_weights_fetches_none(hub: Hub, folder: Path) -> None:
    publish(hub, folder)
    assert not same_outputs(timm.create_model(f"hf-hub:{NAME}"), create_model(folder))
    assert hub.asked(WEIGHTS) == []


def test_specs_are_had_without_weights(hub: Hub, folder: Path) -> None:
    publish(hub, folder)
    assert load_spec(f"hf-hub:{NAME}") == TINY
    assert hub.asked(WEIGHTS) == []


# --- revisions and the cache ----------------------------------------------------------------------


def test_revisions_are_pinned(hub: Hub, folder: Path, tmp_path: Path) -> None:
    first = publish(hub, folder)
    newer: Any = create_model(folder)
    with torch.no_grad():
        newer.classifier.bias += 1
    save_model(newer, folder)
    publish(hub, folder)
    assert same_outputs(newer, create_model(f"hf-hub:{NAME}"))
    for model in (
        create_model(f"hf-hub:{NAME}", revision=first),
        create_model(f"hf-hub:{NAME}@{first}"),
        create_model(pull(NAME, tmp_path / "pulled", revision=first)),
    ):
        assert not same_outputs(newer, model)
    assert load_spec(f"hf-hub:{NAME}", revision="main") == TINY
    with pytest.raises(WeightsError, match="org/tiny: cannot fetch config.json .*: found no such revision"):
        create_model(f"hf-hub:{NAME}", revision="v9")
    with pytest.raises(WeightsError, match=f"org/tiny: found the revisions main and {first}, expected one"):
        create_model(f"hf-hub:{NAME}@main", revision=first)


def test_all_files_are_of_one_commit(hub: Hub, folder: Path, tmp_path: Path) -> None:
    before = create_model(folder)
    publish(hub, folder)
    other = tmp_path / "other"
    other.mkdir()
    save_model(random_model(SPECS["segmentation"]), other)
    hub.faults = [Fault(SPEC, meanwhile=lambda: publish(hub, other))]
    assert same_outputs(before, create_model(f"hf-hub:{NAME}"))
    assert hub.faults[0].times == 0


def test_the_cache_serves_again_and_offline(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(hub, folder)
    ours = create_model(f"hf-hub:{NAME}")
    asked = len(hub.requests)
    create_model(f"hf-hub:{NAME}")
    assert {request.rpartition("/")[2] for request in hub.asked()[asked:]} == {CONFIG}  # which commit is it now
    assert all(request.startswith("HEAD") for request in hub.asked()[asked:])
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert same_outputs(ours, create_model(f"hf-hub:{NAME}"))
    assert same_outputs(ours, timm.create_model(f"hf-hub:{NAME}", pretrained=True))
    refused("org/other: cannot fetch config.json .* it is not in the cache, and offline mode is on", "org/other")
    with pytest.raises(WeightsError, match=r"org/tiny: cannot push .*: offline mode is on \(HF_HUB_OFFLINE\)"):
        push(folder, NAME)
    assert len(hub.requests) == asked


# --- when the Hub or the network fails ------------------------------------------------------------


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client retry without waiting."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


def test_a_server_error_is_tried_again(hub: Hub, folder: Path, no_waiting: None) -> None:
    publish(hub, folder)
    hub.faults = [Fault("HEAD /org/tiny", status=500, times=2)]
    assert same_outputs(create_model(folder), create_model(f"hf-hub:{NAME}"))


def test_a_cut_download_is_resumed(hub: Hub, folder: Path, no_waiting: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    publish(hub, folder)
    hub.faults = [Fault("GET /cdn", cut=5500)]
    assert same_outputs(create_model(folder), create_model(f"hf-hub:{NAME}"))
    ranges = [headers.get("range") for request, headers in hub.requests if request.startswith("GET /cdn")]
    assert ranges == [None, "bytes=5000-"]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"the Hub answers 401; log in \(`hf auth login`, or HF_TOKEN\)"),
        (403, "the Hub answers 403; the token has no permission"),
        (404, "the Hub answers 404"),
        (500, "it is not in the cache, and the Hub answers 500"),
    ],
)
def test_answers_other_than_files(hub: Hub, folder: Path, no_waiting: None, status: int, message: str) -> None:
    publish(hub, folder)
    hub.faults = [Fault("HEAD", status=status, times=99)]
    refused(rf"org/tiny: cannot fetch config.json from the Hugging Face Hub: .*{message}")


def test_repositories_that_are_not_there_or_not_open(hub: Hub, folder: Path) -> None:
    hub.publish("org/other", {CONFIG: (folder / CONFIG).read_bytes(), "pytorch_model.bin": b""})
    refused("org/other: cannot fetch spec.json .*: the repository has no such file, and no other file is", "org/other")
    refused(r"org/none: cannot fetch config.json .*: found no such repository; if it is private, log in", "org/none")
    publish(hub, folder, "org/gated", gated=True)
    refused(r"org/gated: cannot fetch config.json .*: access is gated; request it on the repository's", "org/gated")
    publish(hub, folder, "org/private", private=True)
    refused("org/private: cannot fetch config.json .*: found no such repository", "org/private")
    refused(r"\.\./\.\./etc: cannot fetch config.json .*: Repo id must", "../../etc")


def test_a_server_that_is_not_there(hub: Hub, monkeypatch: pytest.MonkeyPatch, no_waiting: None) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
    )
    refused("org/tiny: cannot fetch config.json .*: it is not in the cache, and .*Connection refused")


def test_tokens_open_private_repositories_and_go_nowhere_else(hub: Hub, folder: Path, logged_in: None) -> None:
    publish(hub, folder, "org/gated", gated=True)
    publish(hub, folder, "org/private", private=True)
    for name in ("org/gated", "org/private"):
        assert same_outputs(create_model(folder), create_model(f"hf-hub:{name}"))
    senders = {request.split("/")[1]: headers.get("authorization") for request, headers in hub.requests}
    assert senders["org"] == f"Bearer {TOKEN}"
    assert senders["cdn"] is None


# --- hostile repositories -------------------------------------------------------------------------


def test_pickles_are_not_even_fetched(hub: Hub, folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    publish(hub, folder)
    refused("org/tiny: cannot fetch model.safetensors .*: the repository has no such file, and no other file is")
    assert hub.asked("GET /org/tiny/resolve/main/config.json")
    assert hub.asked("pytorch_model") == []
    assert hub.asked("/cdn") == []


@pytest.mark.parametrize(("change", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_configs(hub: Hub, folder: Path, change: Any, message: str) -> None:
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps(config))
    publish(hub, folder)
    with pytest.raises(SpecError, match=f"{CONFIG}: .*{message}"):
        create_model(f"hf-hub:{NAME}")
    assert hub.asked(WEIGHTS) == []


def test_files_larger_than_they_may_be_are_not_fetched(hub: Hub, folder: Path) -> None:
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(weights + b"\0")
    publish(hub, folder)
    refused(f"org/tiny: model.safetensors: found {len(weights) + 1:,} bytes, expected at most {len(weights):,}")
    assert hub.asked("/cdn") == []
    (folder / CONFIG).write_text(" " * (9 * 2**20))
    publish(hub, folder, "org/large")
    with pytest.raises(WeightsError, match=r"org/large: config.json: found 9,437,184 bytes, expected at most"):
        create_model("hf-hub:org/large")
    assert not hub.asked("GET /org/large")


def test_other_weights_than_stated(hub: Hub, folder: Path, tmp_path: Path) -> None:
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    publish(hub, folder)
    refused(r"found the sha256 \w+\.\.\., expected \w+\.\.\., as config.json says")
    (folder / WEIGHTS).write_bytes(weights[:-9])
    publish(hub, folder)
    refused(rf"found {len(weights) - 9:,} bytes, expected {len(weights):,}, as config.json says")
    with pytest.raises(WeightsError, match="as config.json says"):
        pull(NAME, tmp_path / "pulled")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub-cache", "tiny"]


# --- pull -----------------------------------------------------------------------------------------


def test_pull_leaves_other_files_alone(hub: Hub, folder: Path, tmp_path: Path) -> None:
    publish(hub, folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(OutputError, match="mine: found thesis.tex, expected a new folder, or a model folder"):
        pull(NAME, tmp_path / "mine")
    assert hub.requests == []
    newer: Any = create_model(folder)
    with torch.no_grad():
        newer.classifier.bias += 1
    pulled = pull(NAME, tmp_path / "pulled")
    assert not (pulled.path / CARD).exists()  # the repository has none
    save_model(newer, folder)
    publish(hub, folder)
    assert same_outputs(newer, create_model(pull(NAME, tmp_path / "pulled")))


# --- push -----------------------------------------------------------------------------------------


def test_pushing_again_adds_what_is_new(hub: Hub, folder: Path, logged_in: None) -> None:
    first = push(folder, NAME)
    assert push(folder, NAME).oid == first.oid
    assert len(hub.asked("PUT /lfs")) == 1
    newer: Any = create_model(folder)
    with torch.no_grad():
        newer.classifier.bias += 1
    other = push(newer, NAME, revision="better", message="A better one")
    assert hub.repositories[NAME].branches == {"main": first.oid, "better": other.oid}
    assert same_outputs(newer, create_model(f"hf-hub:{NAME}", revision="better"))
    assert not same_outputs(newer, create_model(f"hf-hub:{NAME}"))


def test_private_means_private(hub: Hub, folder: Path, logged_in: None) -> None:
    push(folder, "org/new", private=True)
    assert hub.repositories["org/new"].private
    publish(hub, folder, "org/public")
    with pytest.raises(WeightsError, match="org/public: found a public repository, expected a private one"):
        push(folder, "org/public", private=True)
    assert hub.asked("POST /api/models/org/public") == []


def test_only_whole_networks_are_pushed(hub: Hub, folder: Path, logged_in: None) -> None:
    with pytest.raises(WeightsError, match="a b/c: cannot push to the Hugging Face Hub: Repo id must"):
        push(folder, "a b/c")
    (folder / WEIGHTS).write_bytes(b"")
    with pytest.raises(WeightsError, match="found 0 bytes, expected"):
        push(folder, NAME)
    assert hub.requests == []


def test_only_a_folders_own_files_are_pushed(hub: Hub, folder: Path, logged_in: None, tmp_path: Path) -> None:
    (folder / "training.safetensors").write_bytes(b"the optimiser's")
    (tmp_path / "secret").write_text("of the user's")
    (folder / CARD).symlink_to(tmp_path / "secret")
    with pytest.raises(WeightsError, match="README.md: is not a regular file, expected a model card"):
        push(folder, NAME)
    assert hub.requests == []
    (folder / CARD).unlink()
    (folder / CARD).write_text("---\nlicense: mit\n---\n# My own words\n")
    with pytest.raises(
        WeightsError, match=r"README.md: found a model card and a licence, expected the licence in the card"
    ):
        push(folder, NAME, license="mit")
    push(folder, NAME)
    assert set(hub.files(NAME)) == {".gitattributes", CONFIG, SPEC, WEIGHTS, CARD}
    assert hub.files(NAME)[CARD] == (folder / CARD).read_bytes()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("create", status=403, times=9), "the Hub answers 403; the token has no permission for this"),
        (Fault("preupload", status=403), "the Hub answers 403"),
        (Fault("PUT", status=403), r"Error while uploading 'model.safetensors' to the Hub.: the Hub answers 403"),
        (Fault("/commit/", status=500), "the Hub answers 500"),
    ],
    ids=["create", "preupload", "upload", "commit"],
)
def test_pushes_that_fail(hub: Hub, folder: Path, logged_in: None, fault: Fault, message: str) -> None:
    hub.faults = [dataclasses.replace(fault)]
    with pytest.raises(WeightsError, match=f"{NAME}: cannot push to the Hugging Face Hub: .*{message}") as caught:
        push(folder, NAME)
    assert "\n" not in str(caught.value)
    hub.faults.clear()
    push(folder, NAME)
    assert same_outputs(create_model(folder), create_model(f"hf-hub:{NAME}"))


def test_pushing_without_a_token(hub: Hub, folder: Path) -> None:
    with pytest.raises(WeightsError, match=rf"{NAME}: cannot push .*; (if it is private, )?log in \(`hf auth login`"):
        push(folder, NAME)


# --- the model card -------------------------------------------------------------------------------


def trained() -> nn.Module:
    """A network with the provenance that a training run writes."""
    measured = Result(metric="top1", value=0.9125, data="hfds:org/shapes test", origin="measured")
    quoted = Result(metric="top-1 accuracy, %", value=77.1, data="ImageNet-1k", origin="paper")
    training: dict[str, Any] = {
        "data": "hfds:org/shapes",
        "epochs": 3,
        "recipe": {"lr": 0.001, "scale": [0.08, 1.0]},
        "command": "scalenet-zoo train tiny --data 'hfds:org/shapes'\n  --lr 0.001",
    }
    provenance = Provenance(
        source="a test | <b>of tables</b>", license="MIT", results=(measured, quoted), details={"training": training}
    )
    return network(TINY.model_copy(update={"provenance": provenance}))


def test_the_card_says_what_is_known(hub: Hub, logged_in: None) -> None:
    push(trained(), NAME, license="apache-2.0")
    text = hub.files(NAME)[CARD].decode()
    card = ModelCard(text)
    about: Any = card.data.to_dict()  # type: ignore[no-untyped-call]
    assert (about["license"], about["library_name"], about["pipeline_tag"], about["datasets"]) == (
        "apache-2.0",
        "timm",
        "image-classification",
        ["org/shapes"],
    )
    assert about["metrics"] == ["accuracy"]
    (figures,) = about["model-index"]
    (result,) = figures["results"]
    assert result["dataset"]["name"] == "hfds:org/shapes test"
    assert result["metrics"] == [{"type": "accuracy", "value": 0.9125, "name": "top1"}]  # not the paper's
    rows = text.splitlines()
    for row in (
        "| top1 | 91.2% | hfds:org/shapes test |",
        "| top-1 accuracy, % | 77.1 | ImageNet-1k | paper |",
        "| epochs | 3 |",
        "| lr | 0.001 |",
        "| scale | 0.08, 1.0 |",
        "    scalenet-zoo train tiny --data 'hfds:org/shapes' --lr 0.001",
        r"| source | a test \| \<b\>of tables\</b\> |",
        f"| total |  |  | {TINY.cost.macs:,} | {TINY.cost.params:,} |",
        f"| classes | {', '.join(LABELS.names)} |",
        "The weights: apache-2.0.",
        f'model = scalenet_zoo.create_model("hf-hub:{NAME}").eval()',
    ):
        assert row in rows
    assert any(row.startswith("| stem | conv 3x3 /2 | 8x16x16 |") for row in rows)


def test_the_cards_program_runs(hub: Hub, logged_in: None) -> None:
    ours = trained()
    push(ours, NAME)
    text = hub.files(NAME)[CARD].decode()
    program = text.partition("```python\n")[2].partition("```")[0]
    lines = program.splitlines()
    first, second = (number for number, line in enumerate(lines, 1) if line.startswith("model = "))
    for end in (first, second):
        found: dict[str, Any] = {}
        exec("\n".join(lines[:end]), found)
        assert same_outputs(ours, found["model"])


def of_a_run(home: str) -> Provenance:
    """The provenance that a run on the user's own files writes."""
    measured = {"top1": 0.585938, "top1_of_these": 1.0, "ece": 0.03125, "loss": 1.23456789}
    return Provenance(
        source=f"found by a search of {home}/spaces/mine.yaml",
        results=tuple(
            Result(metric=metric, value=value, data=f"imagefolder:{home}/my pets val", origin="measured")
            for metric, value in measured.items()
        ),
        details={
            "training": {
                "data": f"imagefolder:{home}/my pets",
                "epochs": 3,
                "command": shlex.join(
                    [
                        "scalenet-zoo",
                        "train",
                        "tiny",
                        "--data",
                        f"imagefolder:{home}/my pets",
                        f"--output={home}/runs/1",
                    ]
                ),
                "recipe": {"lr": 0.001, "mixup": 0.2, "heatmap_sigma": 2.0, "ohem_threshold": 0.7, "unknown": 1},
            },
            "pretraining": {"data": f"coco:{home}/coco", "files": [f"{home}/a.tar", "~/b.tar", "org/name"]},
        },
    )


HOMES = ["/home/me", "~", "../me", "C:\\Users\\me"]


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("source", ["a network", "a folder"])
def test_no_paths_of_this_machine_are_published(
    hub: Hub, logged_in: None, home: str, source: str, tmp_path: Path
) -> None:
    ours = network(TINY.model_copy(update={"provenance": of_a_run(home)}))
    if source == "a folder":
        (tmp_path / "run").mkdir()
        save_model(ours, tmp_path / "run")
    push(ours if source == "a network" else tmp_path / "run", NAME)
    files = hub.files(NAME)
    escaped = json.dumps(json.dumps(home)[1:-1])[1:-1]  # as in the JSON inside of the weights' JSON
    for name in (CONFIG, SPEC, WEIGHTS, CARD):
        for written in (home, json.dumps(home)[1:-1], escaped):
            assert f"{written}/".encode() not in files[name], name
    found: Any = create_model(f"hf-hub:{NAME}")
    assert same_outputs(ours, found)
    assert {result.data for result in found.spec.provenance.results} == {"imagefolder:my pets val"}
    assert found.spec.provenance.source == "found by a search of mine.yaml"
    assert found.spec.provenance.details["pretraining"] == {
        "data": "coco:coco",
        "files": ["a.tar", "b.tar", "org/name"],
    }
    rows = files[CARD].decode().splitlines()
    assert "    scalenet-zoo train tiny --data 'imagefolder:my pets' --output=1" in rows
    assert "| data | imagefolder:my pets |" in rows


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.task)
def test_a_card_is_written_for_people(spec: ArchSpec, tmp_path: Path) -> None:
    save_model(network(spec.model_copy(update={"provenance": of_a_run("/home/me")})), tmp_path)
    rows = render_card(read_folder(tmp_path), NAME).splitlines()
    for row in (
        "    pip install scalenet-zoo",
        "| top1 | 58.6% | imagefolder:my pets val |",
        "| top1\\_of\\_these | 100.0% | imagefolder:my pets val |",
        "| ece | 3.1% | imagefolder:my pets val |",
        "| loss | 1.235 | imagefolder:my pets val |",
        "The best epoch was chosen by these figures, on imagefolder:my pets val: expect somewhat less on new data.",
        f"| crop | {'90' if spec.task == 'classification' else '100'}% |",
        f"| interpolation | {'nearest' if spec.task == 'classification' else 'bilinear'} |",
    ):
        assert row in rows
    # Training records only what matters for its task; the card shows all of it.
    assert {"| lr | 0.001 |", "| mixup | 0.2 |", "| unknown | 1 |"} <= set(rows)


def test_control_characters_in_a_card_are_shown(tmp_path: Path) -> None:
    nasty = "a\x1b[31m\nb\u202e<script>"
    model: Any = network(TINY)
    model.pretrained_cfg["labels"] = {"names": [nasty, "b", "c"]}
    result = Result(metric=nasty, value=0.5, data=nasty, origin="measured")
    model.spec = TINY.model_copy(update={"provenance": Provenance(source=nasty, results=(result,))})
    save_model(model, tmp_path)
    text = render_card(read_folder(tmp_path), NAME)
    assert not any(character in text for character in "\x1b\u202e")
    assert r"| classes | a\\x1b\[31m b\\u202e\<script\>, b, c |" in text.splitlines()
    about: Any = ModelCard(text).data.to_dict()  # type: ignore[no-untyped-call]
    assert about["model-index"][0]["results"][0]["metrics"][0]["name"] == r"a\x1b[31m b\u202e<script>"


def test_a_card_of_what_is_not_known(folder: Path) -> None:
    text = render_card(read_folder(folder), NAME)
    assert "No figures of these weights are recorded." in text
    assert "How these weights were trained is not recorded." in text
    assert "No licence of the weights is stated." in text
    about: Any = ModelCard(text).data.to_dict()  # type: ignore[no-untyped-call]
    assert "license" not in about
    assert "model-index" not in about


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.task)
def test_tables_of_a_card_are_whole(spec: ArchSpec, tmp_path: Path) -> None:
    hostile = Provenance(source="| a\n| --- |\n# no heading `x` [link](javascript:1)", method="---\nlicense: mit\n---")
    save_model(network(spec.model_copy(update={"provenance": hostile})), tmp_path)
    text = render_card(read_folder(tmp_path), NAME)
    assert "license" not in ModelCard(text).data.to_dict()  # type: ignore[no-untyped-call]
    body = text.partition("\n---\n")[2]
    headings = [line for line in body.splitlines() if line.startswith("#")]
    assert headings[0].replace("\\", "") == f"# {spec.name}"
    assert headings[1:] == [
        f"## {name}" for name in ("Use", "Measured", "Training", "Architecture", "Images and labels", "Licence")
    ]
    width = 0
    for line in body.splitlines():
        if line.startswith("|"):
            cells = line.replace("\\|", "").count("|")
            assert cells == (width or cells), line
            width = cells
        else:
            width = 0


# --- the command line -----------------------------------------------------------------------------


def test_the_command_line(hub: Hub, logged_in: None, run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.move(folder, tmp_path / "run" / "best")
    pushed = run.json("push", "run", NAME, "--licence", "mit", "--private", "--message", "Mine")
    assert pushed["commit"] == hub.repositories[NAME].branches["main"]
    assert pushed["url"].endswith(f"{NAME}/commit/{pushed['commit']}")
    pulled = run.json("pull", f"hf-hub:{NAME}@{pushed['commit']}")
    assert (pulled["folder"], pulled["files"]) == ("tiny", [CARD, CONFIG, WEIGHTS, SPEC])
    assert pulled["hash"] == TINY.hash
    code, out, _ = run("pull", NAME, "--revision", "main", "--output", "again")
    assert code == 0
    assert out.splitlines()[0].startswith("tiny: classification, 3 classes, ")
    assert out.splitlines()[-1] == "use it in other commands as local-dir:again"
    assert run.json("show", f"hf-hub:{NAME}")["hash"] == TINY.hash
    built = run.json("build", f"hf-hub:{NAME}", "--output", "built")
    assert built["trained"]
    assert Path("built/tiny.safetensors").read_bytes() == Path("again/model.safetensors").read_bytes()
    code, out, _ = run("push", "again", "org/copy")
    assert code == 0
    assert out.startswith("pushed again to org/copy: http")
    assert hub.files("org/copy")[CARD] == hub.files(NAME)[CARD]


def test_errors_of_the_command_line(hub: Hub, run: Run, folder: Path) -> None:
    assert run.error("pull", "org/none")[1].startswith("org/none: cannot fetch config.json from the Hugging Face Hub")
    assert run.error("push", "nothing", NAME)[1].startswith("nothing: found no such folder, expected a folder that")
    assert run.error("export", "hf-hub:org/none")[1].startswith("org/none: cannot fetch config.json")
    put("architecture", value="resnet50")(config := json.loads((folder / CONFIG).read_text()))
    (folder / CONFIG).write_text(json.dumps(config))
    assert "architecture: found 'resnet50'" in run.error("push", folder, NAME)[1]
    assert hub.asked("POST") == []
