"""``msfnet inspect`` as text, JSON and picture, and the blocks behind it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
import torch

from msfnet.__main__ import run
from msfnet.inspection import describe_model
from msfnet_benchmarks.report.block_picture import place_blocks
from msfnet_calibration import convert_fp16
from msfnet_export import build_engine
from msfnet_export.build_options import BuildOptions
from tests.networks import DEPLOY_SIZE, Exports


def macs_of(exports: Exports) -> dict[str, int]:
    """Count what PyTorch's own convolutions multiply where the export changes nothing."""
    counts: dict[str, int] = {}

    def record(name: str, conv: torch.nn.Conv2d, output: torch.Tensor) -> None:
        taps = conv.weight[0].numel()
        counts[name] = counts.get(name, 0) + output.numel() * taps

    handles = [
        module.register_forward_hook(lambda conv, _, output, name=name: record(name, conv, output))
        for name, module in exports.network.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    with torch.inference_mode():
        exports.network(torch.zeros(1, 3, *DEPLOY_SIZE))
    for handle in handles:
        handle.remove()
    return counts


def test_macs_by_block_are_those_of_its_convolutions(exports: Exports) -> None:
    """Counted by hooks in PyTorch, for blocks that lowering leaves as they are."""
    counts = macs_of(exports)
    blocks = {
        block.name: block for block in describe_model(exports.deploy.artifact.path).spec.blocks
    }

    encoder = sum(block.macs for name, block in blocks.items() if name.startswith("encoder"))
    assert encoder == sum(n for name, n in counts.items() if name.startswith("encoder"))
    for name in ("decoder.stage4", "decoder.stage1", "decoder.bottom", "usf.rdr", "eda"):
        expected = sum(n for module, n in counts.items() if module.startswith(name))
        assert blocks[name].macs == expected > 0
    folded = sum(n for module, n in counts.items() if module.startswith("usf.stage1"))
    assert 0 < blocks["usf.stage1"].macs < folded / 5


def test_blocks_know_their_feeders_and_shapes(exports: Exports) -> None:
    """EDA is between stage 3 and the USF, which joins the decoder at stride 4 (Fig. 2)."""
    blocks = {
        block.name: block for block in describe_model(exports.deploy.artifact.path).spec.blocks
    }

    assert blocks["encoder.stage1"].inputs == ("prepare",)
    assert blocks["eda"].inputs == ("encoder.stage3",)
    assert blocks["usf.stage3"].inputs == ("eda",)
    assert set(blocks["decoder.stage2"].inputs) == {"decoder.stage3", "encoder.stage2", "usf.rdr"}
    assert blocks["usf.stage5"].shape == (1, 8, 16, 24)
    assert blocks["finish"].shape == (1, 1, 97, 131)
    assert sum(block.parameters for block in blocks.values()) == pytest.approx(
        exports.deploy.parameters, rel=0.02
    )


def test_an_engine_tells_its_blocks_from_the_manifest(exports: Exports, tmp_path: Path) -> None:
    """The network runs in FP16, the tail in FP32; the ONNX file is not needed."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    convert_fp16(exports.deploy.artifact.path, tmp_path / "model.onnx")
    build_engine(
        tmp_path / "model.onnx",
        tmp_path / "model.engine",
        options=BuildOptions(architectures=("sm86",)),
    )
    (tmp_path / "model.onnx").unlink()

    blocks = {b.name: b.precision for b in describe_model(tmp_path / "model.engine").spec.blocks}

    assert blocks["encoder.stage3"] == blocks["decoder.stage1"] == "fp16"
    assert blocks["finish"] == "fp32"


def test_json_holds_what_the_text_shows(
    exports: Exports, capsys: pytest.CaptureFixture[str]
) -> None:
    """One object: facts, spec, blocks."""
    path = exports.plain.artifact.path
    assert run(["inspect", str(path), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert run(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out

    assert found["spec"]["inputs"][0]["shape"] == [1, 3, 76, 100]
    assert found["facts"]["opset"] == "18"
    assert sum(block["macs"] for block in found["blocks"]) == exports.plain.macs
    assert found["blocks"][0]["operators"]["Conv"] >= 1
    for block in found["blocks"]:
        assert block["name"] in shown
    assert f"{exports.plain.macs / 1e9:.3f} GMAC for one image" in shown


def test_the_picture_shows_every_block_once(exports: Exports, tmp_path: Path) -> None:
    """No two in one place; a PNG of a size that a page takes."""
    names = [block.name for block in describe_model(exports.deploy.artifact.path).spec.blocks]
    places = place_blocks([*names, "other", "another"])

    assert (
        run(["inspect", str(exports.plain.artifact.path), "--plot", str(tmp_path / "b.png")]) == 0
    )

    image = cv2.imread(str(tmp_path / "b.png"))
    assert len(set(places.values())) == len(names) + 2
    assert image is not None
    assert image.shape[0] > 500
    assert image.std() > 10
