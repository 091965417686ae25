"""``msfnet bench`` as a user types it, on the smallest models, and its ways of running them."""

from __future__ import annotations

import json
import shlex
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from msfnet.__main__ import run
from msfnet.models import open_model
from msfnet_benchmarks.bench import BenchPlan, bench
from msfnet_benchmarks.candidates import peer_candidate
from msfnet_benchmarks.timing.cold_start import measure_cold_start
from msfnet_datasets.synthesize import synthesize_nyu
from msfnet_export import export_checkpoint, export_network
from msfnet_runtime import MsfnetError, open_engine
from msfnet_runtime.files import sha256
from msfnet_runtime.spec import METADATA_KEY
from msfnet_train.checkpoint import save_checkpoint
from msfnet_train.recipe import load_recipe
from msfnet_train.torch_engine import TorchEngine
from tests.networks import light_network
from tests.onnx_models import conv_model
from tests.specs import network_spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold a checkpoint, its exports of fixed and of open batch, and peers of both kinds."""
    made = tmp_path_factory.mktemp("bench")
    recipe = load_recipe(
        "nyu_mini",
        [
            *("network.encoder=mobilenetv3_small_100", "network.decoder_width=0.125"),
            *("network.usf_width=8", "network.usf_output=16", "data.inference_size=[64, 96]"),
        ],
    )
    save_checkpoint(made / "best.ckpt", light_network(), recipe)
    export_checkpoint(made / "best.ckpt", made / "model.onnx")
    export_network(light_network(), made / "open.onnx", size=(64, 96), dynamic=["batch"])
    for name, shape in (("peer", (1, 3, 32, 64)), ("wide", (1, 3, "h", "w"))):
        peer = conv_model(network_spec())
        del peer.metadata_props[:]
        for dim, side in zip(peer.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
            if isinstance(side, str):
                dim.dim_param = side
        onnx.save(peer, made / f"{name}.onnx")
    return made


@pytest.fixture
def batch(rng: np.random.Generator) -> NDArray[np.float32]:
    """Return an image as the checkpoint takes it."""
    return rng.normal(size=(1, 3, 64, 96)).astype(np.float32)


def test_one_command_compares_ways_to_run_models_and_peers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Baseline first; each file by each provider; a peer has no depth; costs stand beside."""
    monkeypatch.chdir(folder)

    status = run(
        shlex.split(
            "bench model.onnx open.onnx --against pytorch --pytorch eager,channels-last "
            "--provider cpu --provider openvino --peer peer.onnx --batch 1,2 --profile "
            "--frames 2 --rounds 3 --threads 1 --json out.json --markdown out.md"
        )
    )

    assert status == 0
    rows = {row["name"]: row for row in json.loads(Path("out.json").read_text())["rows"]}
    assert list(rows) == [
        *("PyTorch best.ckpt", "PyTorch best.ckpt channels-last"),
        *("model.onnx", "model.onnx openvino", "open.onnx", "open.onnx openvino"),
        *("peer.onnx", "peer.onnx openvino"),
    ]
    assert rows["peer.onnx"]["latency"] is None
    assert rows["peer.onnx"]["engine_latency"]["calls"] == 6
    assert "no depth error" in rows["peer.onnx"]["engine"]
    assert [r["batch"] for r in rows["open.onnx"]["throughput"]] == [1, 2]
    assert [r["batch"] for r in rows["model.onnx"]["throughput"]] == [1]
    assert rows["model.onnx"]["parity"]["maximum"] < 1e-3
    assert rows["model.onnx"]["layers"]
    assert list(rows["model.onnx"]["stages"]) == ["prepare", "infer", "finish", "write"]
    whole, inner = (rows["model.onnx"][part]["p50_ms"] for part in ("latency", "engine_latency"))
    assert 0 < inner < whole
    with open_model("model.onnx") as engine:
        assert rows["model.onnx"]["macs"] == sum(b.macs for b in engine.spec.blocks)
    assert rows["PyTorch best.ckpt"]["macs"] > rows["model.onnx"]["macs"]
    shown = capsys.readouterr().out
    assert "not every batch size is open to PyTorch best.ckpt" in shown
    assert "|" in Path("out.md").read_text()


def test_scored_rows_say_what_was_scored_and_pictures_show_its_rel(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Model, data and list; a training list is a warning; an error's caption is the frame's REL."""
    monkeypatch.chdir(folder)
    synthesize_nyu(tmp_path / "rooms", scenes=3, frames=2)

    status = run(
        shlex.split(
            f"bench model.onnx --data {tmp_path}/rooms --list train --frames 1 "
            f"--protocol nyu_bts --rounds 1 --report {tmp_path}/page.html"
        )
    )

    assert status == 0
    (row,) = json.loads((tmp_path / "page.json").read_text())["rows"]
    scored, page = row["accuracy"], (tmp_path / "page.html").read_text(encoding="utf-8")
    assert scored["model"]["path"] == "model.onnx"
    assert scored["model"]["sha256"] == sha256("model.onnx")
    assert (scored["data"]["split"], scored["data"]["training"]) == ("train", 1)
    printed = capsys.readouterr().out
    for text in (printed, page):
        flat = " ".join(text.split())
        assert f"{tmp_path}/rooms (layout nyu), list train" in flat
        assert "1 of 1 scored frame is from a training list" in flat
        assert f"{scored['constant']['summary']['rel']:.4f}" in flat
    assert f"model.onnx: REL {scored['scores'][0]['metrics']['rel']:.4f}<" in page


def test_peers_alone_have_no_pictures(folder: Path) -> None:
    """Their answer is no depth."""
    plan = BenchPlan(frames=1, rounds=1, pictures=True)

    report, pictures = bench([peer_candidate(folder / "peer.onnx")], plan)

    assert [row.name for row in report.rows] == ["peer.onnx"]
    assert pictures == []


def test_a_checkpoint_tells_what_its_network_costs(folder: Path) -> None:
    """Every convolution's MACs as its own sizes have them; more than the export's."""
    network, macs = light_network(), []

    def count(conv: torch.nn.Module, _: object, made: torch.Tensor) -> None:
        assert isinstance(conv, torch.nn.Conv2d)
        macs.append(made.numel() * conv.weight[0].numel())

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        network(torch.ones(1, 3, 64, 96))
    with TorchEngine(folder / "best.ckpt") as engine, open_model(folder / "model.onnx") as export:
        counted, parameters = engine.count()
        exported = sum(block.macs for block in export.spec.blocks)

    assert counted == sum(macs) > exported
    assert parameters == sum(parameter.numel() for parameter in network.parameters())


def test_an_earlier_run_decides_the_status(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same passes; once fewer MACs were enough, it fails."""
    monkeypatch.chdir(folder)
    command = "bench model.onnx --frames 2 --rounds 1"
    assert run(shlex.split(f"{command} --json old.json")) == 0
    assert run(shlex.split(f"{command} --compare old.json --tolerance 300%")) == 0
    old = json.loads(Path("old.json").read_text())
    old["rows"][0]["macs"] = int(old["rows"][0]["macs"] * 0.8)
    Path("better.json").write_text(json.dumps(old))

    assert run(shlex.split(f"{command} --compare better.json --tolerance 5%")) == 1
    assert "macs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("model.onnx --pytorch eager,warp", "need a checkpoint"),
        ("best.ckpt --pytorch warp", "PyTorch has no mode 'warp'"),
        ("model.onnx --provider warp", "unknown provider 'warp'"),
        ("model.onnx model.onnx", "two models are called model.onnx"),
        ("model.onnx --provider cpu --provider cpu", "two models are called"),
        ("model.onnx --peer absent.onnx", "absent.onnx does not exist"),
        ("model.onnx --peer wide.onnx", "export it at the size"),
        ("model.onnx --peer open.onnx", "not as a peer"),
        ("absent.onnx", "absent.onnx does not exist"),
        ("model.onnx --batch 1,x", "'1,x' are not whole numbers"),
        ("model.onnx --batch 0", "at least one image"),
        ("model.onnx --tolerance much", "'much' is not a share"),
        ("model.onnx --compare absent.json", "cannot read absent.json"),
        ("model.onnx --json best.ckpt/out.json", "cannot write"),
    ],
)
def test_what_cannot_be_measured_is_one_line_before_anything_is(
    folder: Path,
    arguments: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No model is opened for it."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("msfnet_benchmarks.bench.open_candidates", None)

    assert run(["bench", *shlex.split(arguments)]) != 0

    said = capsys.readouterr().err.strip()
    assert reason in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("mode", "tolerance"), [("channels-last", 1e-4), ("autocast", 0.1)])
def test_every_mode_answers_as_eager_does(
    folder: Path, batch: NDArray[np.float32], mode: str, tolerance: float
) -> None:
    """All modes use the same weights and do not change them; bfloat16 has 8 bits."""
    eager = TorchEngine(folder / "best.ckpt", "cpu")
    expected = eager.infer(batch)

    other = TorchEngine(folder / "best.ckpt", "cpu", mode=mode, weights=eager)

    answer = other.infer(batch)
    np.testing.assert_allclose(answer, expected, rtol=tolerance)
    np.testing.assert_array_equal(eager.infer(batch), expected)
    assert (answer != expected).any() or mode == "channels-last"
    assert mode in other.describe()


@pytest.mark.slow
def test_a_compiled_network_answers_as_eager_does(folder: Path, batch: NDArray[np.float32]) -> None:
    """It is compiled when it is opened."""
    eager = TorchEngine(folder / "best.ckpt", "cpu")

    with TorchEngine(folder / "best.ckpt", "cpu", mode="compile", weights=eager) as compiled:
        np.testing.assert_allclose(compiled.infer(batch), eager.infer(batch), rtol=1e-3)


@pytest.mark.parametrize(
    ("mode", "reason"), [("cuda-graph", "needs a GPU"), ("compile", "needs a C\\+\\+ compiler")]
)
def test_a_mode_that_cannot_be_had_here_is_refused(
    folder: Path, mode: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CUDA graph on a CPU, and compiling without a compiler."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)

    with pytest.raises(MsfnetError, match=reason):
        TorchEngine(folder / "best.ckpt", "cpu", mode=mode)


def test_threads_are_pytorchs_too(folder: Path) -> None:
    """They hold for the process."""
    before = torch.get_num_threads()
    try:
        with open_model(folder / "best.ckpt", threads=before + 1):
            assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_cold_start_is_timed_in_a_process_of_its_own(folder: Path) -> None:
    """Importing comes before opening, that before the first depth; torch is not in it."""
    start = measure_cold_start(partial(open_engine, folder / "model.onnx", threads=1), starts=1)

    assert 0.05 < start.imported_s < start.opened_s < start.first_depth_s < 30
    assert 30e6 < start.peak_bytes < 600e6
    assert start.starts == 1


def test_a_start_that_fails_says_why(folder: Path) -> None:
    """The error contains the process's own message."""
    with pytest.raises(MsfnetError, match=r"absent\.onnx does not exist"):
        measure_cold_start(partial(open_engine, folder / "absent.onnx"), starts=1)


def test_a_peer_carries_no_spec(folder: Path) -> None:
    """The fixture would else test nothing."""
    assert METADATA_KEY not in {p.key for p in onnx.load(folder / "peer.onnx").metadata_props}
