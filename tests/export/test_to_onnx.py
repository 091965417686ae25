from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from msfnet_calibration import convert_fp16, onnx_files
from msfnet_calibration.graph import count_operators
from msfnet_calibration.onnx_files import load_model
from msfnet_export import export_checkpoint, export_network, lowering
from msfnet_export.export_options import ExportOptions
from msfnet_export.parity import random_image
from msfnet_runtime import DepthEstimator, Frame, MsfnetError, OnnxArtifact, open_engine
from msfnet_runtime.preprocess import finish, prepare
from msfnet_runtime.sources import open_source
from msfnet_train import load_checkpoint
from msfnet_train.blocks import SubPixelUpsample
from msfnet_train.checkpoint import save_checkpoint
from msfnet_train.recipe import at_size, load_recipe
from tests.networks import (
    DEPLOY_SIZE,
    FORBIDDEN,
    FRAME_SIZE,
    NETWORK_SIZE,
    Exports,
    Strided,
    light_network,
)


class Treacherous(Strided):
    """Computes another result once it is exported."""

    def forward(self, image: Tensor) -> Tensor:
        """A thousandth more in the exported graph."""
        factor = 1.001 if torch.compiler.is_exporting() else 1.0
        return super().forward(image) * factor


def test_the_network_graph_answers_as_pytorch(exports: Exports) -> None:
    """The reference is PyTorch, on an image that the export has not compared."""
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


def test_unfolded_up_blocks_keep_one_shuffle_each_and_no_index_arithmetic(exports: Exports) -> None:
    """Three of five Up-blocks shuffle; poolings and the channel minimum are one operator each."""
    operators = exports.plain.operators

    assert operators["DepthToSpace"] == 3
    assert operators["ReduceMin"] == operators["ReduceMax"] == 1
    assert not FORBIDDEN & set(operators)
    model = onnx.load(exports.plain.artifact.path)
    modes = [
        attribute.s
        for node in model.graph.node
        if node.op_type == "DepthToSpace"
        for attribute in node.attribute
        if attribute.name == "mode"
    ]
    assert modes == [b"CRD"] * 3


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((228, 304), (114, 152)),
        pytest.param((385, 513), (193, 257), marks=pytest.mark.slow),
    ],
)
def test_the_papers_sizes_export_exactly(
    tmp_path: Path, size: tuple[int, int], grid: tuple[int, int]
) -> None:
    """Their pooling ratios are fractions; every block is equal, without index arithmetic."""
    report = export_network(light_network(), tmp_path / "model.onnx", size=size, verify="deep")

    assert report.artifact.spec.outputs[0].shape == (1, 1, *grid)
    assert report.max_relative_difference < 1e-5
    assert max(block.difference for block in report.blocks) < 1e-5
    assert not FORBIDDEN & set(report.operators)


def test_names_say_where_nodes_and_values_come_from(exports: Exports) -> None:
    """Names are the same in both graphs; auxiliary heads of training are absent."""
    for report in (exports.plain, exports.deploy):
        model = onnx.load(report.artifact.path)
        nodes = {node.name for node in model.graph.node}
        values = {name for node in model.graph.node for name in node.output}
        constants = {tensor.name for tensor in model.graph.initializer}
        assert {"eda.minimum", "usf.stage3.up.shuffle", "usf.stage1.up.expand"} <= nodes
        assert {f"encoder.stage{i}" for i in range(1, 6)} <= values
        assert {"eda", "usf.stage3", "usf.rdr", "decoder.bottom", "decoder.stage2"} <= values
        assert "decoder.stage4.first.conv.weight" in constants
        assert len(nodes) == len(model.graph.node)
        assert not [name for name in nodes | constants if "auxiliary" in name]
    assert {"prepare.transpose", "finish.clip", "finish.resize"} <= nodes


def test_every_value_has_a_shape(exports: Exports) -> None:
    """The shapes in the file are those of the arrays that ONNX Runtime computes."""
    model = onnx.load(exports.deploy.artifact.path)
    noted = {
        info.name: [d.dim_value for d in info.type.tensor_type.shape.dim]
        for info in (*model.graph.value_info, *model.graph.output)
    }
    made = [name for node in model.graph.node for name in node.output]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    session = onnxruntime.InferenceSession(model.SerializeToString())

    answers = session.run(made, {"frame": random_image(FRAME_SIZE, seed=1)[None]})

    assert set(noted) == set(made)
    for name, answer in zip(made, answers, strict=True):
        assert noted[name] == list(answer.shape), name


def test_a_block_that_differs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stage 2 is folded with an error of a thousandth, which all later blocks inherit."""
    honest = lowering.fold_up_block

    def treacherous(up: SubPixelUpsample, factor: int) -> lowering.FoldedUpBlock:
        folded = honest(up, factor)
        if factor == 2:
            folded.expand.weight.data *= 1.001
        return folded

    monkeypatch.setattr(lowering, "fold_up_block", treacherous)

    with pytest.raises(
        MsfnetError, match=r"usf\.stage2 is the first block that differs, by 1\.0e-03"
    ):
        export_network(light_network(), tmp_path / "model.onnx", size=(64, 96), verify="deep")
    assert not list(tmp_path.iterdir())


def test_real_frames_are_compared_as_well(tmp_path: Path, real_data: Path) -> None:
    """Photographs of any size are accepted."""
    with open_source(str(real_data / "nyu_mini")) as source:
        frames = list(islice(source, 3))

    report = export_network(
        light_network(), tmp_path / "model.onnx", size=(64, 96), graph="deploy", frames=frames
    )

    assert (report.parity.frames, report.parity.random_images) == (3, 3)
    assert "3 random images and 3 frames" in report.text()


def test_weights_beyond_the_limit_lie_beside_the_file(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is lowered here; replacing the model removes its old weights."""
    monkeypatch.setattr(onnx_files, "EXTERNAL_BYTES", 1000)
    path = tmp_path / "model.onnx"
    report = export_network(exports.network, path, size=(64, 96), precision="fp16")
    (first,) = (file for file in tmp_path.iterdir() if file.suffix == ".data")
    image = prepare(random_image((64, 96), seed=1), report.artifact.spec)

    with open_engine(path) as engine, torch.inference_mode():
        expected = exports.network(torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(engine.infer(image), expected, rtol=1e-2)
    assert path.stat().st_size < 200_000 < first.stat().st_size
    assert report.artifact.bytes == path.stat().st_size + first.stat().st_size

    export_network(exports.network, path, size=(64, 96))
    assert first not in tmp_path.iterdir()
    assert len(list(tmp_path.iterdir())) == 2
    next(tmp_path.glob("*.data")).unlink()
    with pytest.raises(MsfnetError, match="copy both"):
        OnnxArtifact.read(path)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow)])
def test_weights_lie_beside_the_file_where_that_is_asked_for(
    exports: Exports, tmp_path: Path, precision: Literal["fp32", "fp16"]
) -> None:
    """One file of weights, depth equal to the bit; a converted model has such a file, too."""
    paths = [tmp_path / f"{place}.onnx" for place in ("inside", "beside")]
    for path in paths:
        export_network(
            exports.network,
            path,
            size=(64, 96),
            precision=precision,
            weights=path.stem,  # type: ignore[arg-type]
        )
    image = prepare(random_image((64, 96), seed=1), OnnxArtifact.read(paths[0]).spec)

    with open_engine(paths[0]) as inside, open_engine(paths[1]) as beside:
        np.testing.assert_array_equal(beside.infer(image), inside.infer(image))
    (weights,) = tmp_path.glob("beside.*.data")
    assert paths[1].stat().st_size < 200_000 < weights.stat().st_size
    assert not list(tmp_path.glob("inside.*.data"))
    if precision == "fp32":
        convert_fp16(paths[1], tmp_path / "half.onnx")
        assert len(list(tmp_path.glob("half.*.data"))) == 1
    with pytest.raises(MsfnetError, match="inside the file or beside it"):
        export_network(exports.network, paths[0], size=(64, 96), weights="away")  # type: ignore[arg-type]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """The operating system refuses files beyond 100 kB, as a full disk refuses them."""
    resource = pytest.importorskip("resource", reason="only Unix limits files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    network = light_network()
    (tmp_path / "model.onnx").write_bytes(b"precious")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(MsfnetError, match=r"cannot write .*model\.onnx: .*; make room"):
            export_network(network, tmp_path / "model.onnx", size=(64, 96))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"precious"


def test_leaving_passes_out_keeps_their_operators_and_multiplications(
    exports: Exports, tmp_path: Path
) -> None:
    """Equal results, more MACs, more nodes."""
    unfolded = export_network(
        exports.network,
        tmp_path / "model.onnx",
        size=NETWORK_SIZE,
        without=("up-blocks", "convolutions", "batch-norm"),
    )

    assert unfolded.macs > 1.05 * exports.plain.macs
    assert unfolded.operators["DepthToSpace"] == 5
    assert unfolded.operators["BatchNormalization"] > 30
    assert unfolded.max_relative_difference < 1e-5


def test_a_deploy_graph_casts_before_it_transposes(exports: Exports) -> None:
    """TensorRT refuses to transpose uint8."""
    model = onnx.load(exports.deploy.artifact.path)

    assert [node.op_type for node in model.graph.node[:2]] == ["Cast", "Transpose"]
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_the_file_carries_its_spec_and_nothing_of_this_machine(exports: Exports) -> None:
    """The exporter adds source lines with their paths, which are removed."""
    spec = exports.deploy.artifact.spec
    assert spec.opset == 18
    content = exports.deploy.artifact.path.read_bytes()

    assert (spec.graph, spec.size, spec.inputs[0].shape) == ("deploy", DEPLOY_SIZE, (1, 97, 131, 3))
    assert spec.depth_range_m == (0.1, 10.0)
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b"site-packages" not in content


def test_a_graph_that_differs_is_not_written(tmp_path: Path) -> None:
    """A difference of a thousandth is refused; the folder stays empty."""
    with pytest.raises(MsfnetError, match=r"differs from PyTorch by 1\.\de-03"):
        export_network(Treacherous(), tmp_path / "model.onnx", size=(32, 64))

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (31, 64)}, "32 pixels or more"),
        ({"size": (32, 64), "precision": "int8"}, "calibrate makes int8"),
        ({"size": (48, 64), "dynamic": ("size",)}, "multiples of 32, not 48x64"),
        ({"size": (64, 64), "dynamic": ("size",), "graph": "deploy"}, "network graph"),
        ({"size": (64, 64), "dynamic": ("depth",)}, "choose batch, size or both"),
        ({"size": (64, 64), "without": ("speed",)}, "unknown pass 'speed'"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    """The error comes before any work."""
    with pytest.raises(MsfnetError, match=message):
        export_network(Strided(), tmp_path / "model.onnx", **arguments)  # type: ignore[arg-type]


def test_the_target_must_be_an_onnx_file_in_a_folder_that_can_be_written(tmp_path: Path) -> None:
    """Each error is one line, and no file is left behind."""
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

    report = export_checkpoint(
        tmp_path / "best.ckpt", tmp_path / "model.onnx", ExportOptions(precision="fp16")
    )

    spec = report.artifact.spec
    assert (spec.graph, spec.precision) == ("deploy", "fp16")
    assert spec.inputs[0].shape == (1, 64, 96, 3)
    assert spec.checkpoint_sha256 == load_checkpoint(tmp_path / "best.ckpt").spec.checkpoint_sha256
    facts = [f"{name}: {value}" for name, value in spec.precision_facts().items()]
    assert any(f"{spec.change.median:.1e}" in fact for fact in facts if spec.change)
    assert all(fact in report.text() for fact in facts)
