from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from msfnet_calibration.onnx_files import count_operators, load_model
from msfnet_export import export_checkpoint, export_network
from msfnet_export.parity import random_image
from msfnet_runtime import DepthEstimator, Frame, MsfnetError, open_engine
from msfnet_runtime.preprocess import finish, prepare
from msfnet_train import load_checkpoint
from msfnet_train.checkpoint import save_checkpoint
from msfnet_train.recipe import at_size, load_recipe
from tests.networks import DEPLOY_SIZE, FRAME_SIZE, NETWORK_SIZE, Exports

FORBIDDEN = {"ArgMin", "TopK", "Gather", "GatherND", "Where", "NonZero", "Loop", "If", "Shape"}
"""What a careless export of pooling, shuffles and minima leaves in the graph."""


class Strided(nn.Module):
    """The smallest network: one strided convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 1, 3, stride=2, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 1, H/2, W/2)."""
        output: Tensor = self.conv(image)
        return output


class Treacherous(Strided):
    """Answers differently once it is exported."""

    def forward(self, image: Tensor) -> Tensor:
        """A thousandth more in the exported graph."""
        factor = 1.001 if torch.compiler.is_exporting() else 1.0
        return super().forward(image) * factor


def test_the_network_graph_answers_as_pytorch(exports: Exports) -> None:
    """Held against PyTorch here again, on an image the export has not compared."""
    artifact = exports.plain.artifact
    image = prepare(random_image(NETWORK_SIZE, seed=77), artifact.spec)

    with open_engine(artifact.path) as engine, torch.inference_mode():
        answer, expected = engine.infer(image), exports.network(torch.from_numpy(image)).numpy()

    assert answer.shape == (1, 1, 38, 50)
    np.testing.assert_allclose(answer, expected, rtol=1e-4)
    assert 0 < exports.plain.max_relative_difference < 1e-4


def test_the_deploy_graph_is_the_runtimes_contract_around_pytorch(exports: Exports) -> None:
    """A frame of another size than the network's: prepare, PyTorch and finish are the reference."""
    frame = random_image(FRAME_SIZE, seed=78)
    network_spec = exports.plain.artifact.spec
    spec = at_size(network_spec, DEPLOY_SIZE)

    with DepthEstimator.open(exports.deploy.artifact.path) as estimator, torch.inference_mode():
        depth = estimator(Frame(frame))
        raw = exports.network(torch.from_numpy(prepare(frame, spec))).numpy()
    expected, _ = finish(raw, FRAME_SIZE, spec)

    assert depth.values.shape == FRAME_SIZE
    np.testing.assert_allclose(depth.values, expected, rtol=1e-4)
    assert np.ptp(depth.values) > 0.01


def test_the_body_keeps_one_shuffle_per_up_block_and_no_index_arithmetic(exports: Exports) -> None:
    """Three of five Up-blocks still shuffle; pooling and the channel minimum export plainly."""
    operators = exports.plain.operators

    assert operators["DepthToSpace"] == 3
    assert operators["ReduceMin"] == operators["ReduceMax"] == 1
    assert not FORBIDDEN & set(operators)
    assert "Transpose" not in operators
    model = load_model(exports.plain.artifact.path)
    modes = [
        attribute.s
        for node in model.graph.node
        if node.op_type == "DepthToSpace"
        for attribute in node.attribute
        if attribute.name == "mode"
    ]
    assert modes == [b"CRD"] * 3


def test_a_deploy_graph_casts_before_it_transposes(exports: Exports) -> None:
    """TensorRT refuses to transpose uint8."""
    model = load_model(exports.deploy.artifact.path)

    assert [node.op_type for node in model.graph.node[:2]] == ["Cast", "Transpose"]
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_the_file_carries_its_spec_and_nothing_of_this_machine(exports: Exports) -> None:
    """The exporter would note source lines with their paths."""
    spec = exports.deploy.artifact.spec
    content = exports.deploy.artifact.path.read_bytes()

    assert (spec.graph, spec.size, spec.inputs[0].shape) == ("deploy", DEPLOY_SIZE, (1, 97, 131, 3))
    assert spec.depth_range_m == (0.1, 10.0)
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b"site-packages" not in content


def test_a_graph_that_differs_is_not_written(tmp_path: Path) -> None:
    """A thousandth is too much; the folder stays empty."""
    with pytest.raises(MsfnetError, match=r"differs from PyTorch by 1\.\de-03"):
        export_network(Treacherous(), tmp_path / "model.onnx", size=(32, 64))

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (31, 64)}, "32 pixels or more"),
        ({"size": (32, 64), "precision": "int8"}, "calibrate makes int8"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    """Before any work is done."""
    with pytest.raises(MsfnetError, match=message):
        export_network(Strided(), tmp_path / "model.onnx", **arguments)  # type: ignore[arg-type]


def test_the_target_must_be_an_onnx_file_in_a_folder_that_can_be_written(tmp_path: Path) -> None:
    """One line each, and nothing is left behind."""
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(MsfnetError, match=r"does not end in \.onnx"):
        export_network(Strided(), tmp_path / "model.bin", size=(32, 64))
    with pytest.raises(MsfnetError, match="cannot write"):
        export_network(Strided(), tmp_path / "file/model.onnx", size=(32, 64))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_exporting_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    """A network in training stays in training."""
    network = Strided().train()

    report = export_network(network, tmp_path / "model.onnx", size=(32, 64))

    assert network.training
    assert report.parameters == 28
    assert count_operators(load_model(report.artifact.path)) == {"Conv": 1}


def test_a_checkpoint_exports_at_its_recipes_size(tmp_path: Path, exports: Exports) -> None:
    """The spec names the checkpoint by its hash, in FP16 as well."""
    recipe = load_recipe(
        "nyu_mini",
        [
            f"network.encoder={exports.network.config.encoder}",
            "network.decoder_width=0.125",
            "network.usf_width=8",
            "network.usf_output=16",
            "data.inference_size=[64, 96]",
        ],
    )
    save_checkpoint(tmp_path / "best.ckpt", exports.network, recipe)

    report = export_checkpoint(tmp_path / "best.ckpt", tmp_path / "model.onnx", precision="fp16")

    spec = report.artifact.spec
    assert (spec.graph, spec.precision) == ("deploy", "fp16")
    assert spec.inputs[0].shape == (1, 64, 96, 3)
    assert spec.checkpoint_sha256 == load_checkpoint(tmp_path / "best.ckpt").spec.checkpoint_sha256
    assert "median depth change" in report.text()
