"""Graphs whose batch or size is open: right at several, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from msfnet_export import ExportReport, export_network
from msfnet_export.parity import random_image
from msfnet_runtime import MsfnetError, open_engine
from msfnet_runtime.preprocess import prepare
from msfnet_train.recipe import at_size
from tests.networks import DEPLOY_SIZE, FORBIDDEN, FRAME_SIZE, Exports, Strided


@pytest.fixture(scope="module")
def dynamic(exports: Exports, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """Export the light network with nothing fixed."""
    path = tmp_path_factory.mktemp("dynamic") / "model.onnx"
    return export_network(exports.network, path, size=(64, 96), dynamic=("batch", "size"))


@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 96, 64), (3, 160, 224)])
def test_a_dynamic_graph_answers_at_sizes_it_was_not_exported_at(
    dynamic: ExportReport, exports: Exports, shape: tuple[int, int, int]
) -> None:
    """PyTorch is the reference; values' shapes are fractions of the input's."""
    count, height, width = shape
    spec = at_size(dynamic.artifact.spec, (height, width))
    batch = np.concatenate([prepare(random_image((height, width), i), spec) for i in range(count)])

    with open_engine(dynamic.artifact.path) as engine, torch.inference_mode():
        answer = engine.infer(batch)
        expected = exports.network(torch.from_numpy(batch)).numpy()

    np.testing.assert_allclose(answer, expected, rtol=1e-4)
    assert dynamic.artifact.spec.inputs[0].shape == ("batch", 3, "height", "width")
    assert dynamic.artifact.spec.outputs[0].shape == ("batch", 1, "height/2", "width/2")


def test_a_dynamic_graph_is_compared_at_several_sizes_and_batches(dynamic: ExportReport) -> None:
    """The report lists them."""
    assert (1, 3, 64, 96) in dynamic.parity.shapes
    assert len({shape[2:] for shape in dynamic.parity.shapes}) >= 3
    assert {shape[0] for shape in dynamic.parity.shapes} == {1, 2, 3}
    assert not FORBIDDEN & set(dynamic.operators)


def test_a_deploy_graph_takes_several_frames_where_asked(exports: Exports, tmp_path: Path) -> None:
    """Each gets the depth that it gets alone."""
    report = export_network(
        exports.network,
        tmp_path / "model.onnx",
        size=DEPLOY_SIZE,
        graph="deploy",
        frame_size=FRAME_SIZE,
        spec=exports.plain.artifact.spec,
        dynamic=["batch"],
    )
    frames = np.stack([random_image(FRAME_SIZE, seed) for seed in (5, 6)])

    with (
        open_engine(report.artifact.path) as several,
        open_engine(exports.deploy.artifact.path) as single,
    ):
        together = several.infer(frames)
        alone = np.concatenate([single.infer(frame[None]) for frame in frames])

    np.testing.assert_allclose(together, alone, rtol=1e-5)


class SizeInside(Strided):
    """Adds a ramp over the columns of the size it was exported at."""

    def forward(self, image: Tensor) -> Tensor:
        """Correct at one size only."""
        output = super().forward(image)
        return output + torch.linspace(0, 1, int(output.shape[-1]))


def test_a_network_that_knows_its_size_cannot_be_dynamic(tmp_path: Path) -> None:
    """The parity gate runs other sizes and fails; nothing is written."""
    export_network(SizeInside(), tmp_path / "fixed.onnx", size=(64, 64))

    with pytest.raises(MsfnetError, match=r"does not run|do not fit"):
        export_network(SizeInside(), tmp_path / "open.onnx", size=(64, 64), dynamic=["size"])
    assert [path.name for path in tmp_path.iterdir()] == ["fixed.onnx"]
