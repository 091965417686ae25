"""Tests the contract of all engines; those that cannot run here are skipped with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from msfnet_runtime import Engine, MsfnetError, open_engine
from msfnet_runtime.artifacts import Flavour
from msfnet_runtime.engines.fake import FakeEngine
from tests.onnx_models import conv_model, conv_reference
from tests.specs import network_spec


def fake_engine(folder: Path) -> Engine:
    """Return the fake engine, which computes the reference."""
    return FakeEngine(network_spec(), conv_reference)


def onnx_engine(provider: str) -> Callable[[Path], Engine]:
    """Return a function that opens an ONNX file with a provider."""

    def make(folder: Path) -> Engine:
        onnx.save(conv_model(network_spec()), folder / "model.onnx")
        return open_engine(folder / "model.onnx", provider=provider)

    return make


def tensorrt_engine(flavour: Flavour) -> Callable[[Path], Engine]:
    """Return a function that builds a TensorRT engine for this GPU."""

    def make(folder: Path) -> Engine:
        from msfnet_export.build_engine import build_engine
        from msfnet_export.build_options import BuildOptions
        from msfnet_runtime.cuda.device import open_device

        architecture = open_device().architecture
        onnx.save(conv_model(network_spec()), folder / "model.onnx")
        build_engine(
            folder / "model.onnx",
            folder / "model.engine",
            flavour=flavour,
            options=BuildOptions(
                architectures=(architecture,) if flavour == "tensorrt-rtx" else ()
            ),
        )
        return open_engine(folder / "model.engine")

    return make


MAKERS: dict[str, Callable[[Path], Engine]] = {
    "fake": fake_engine,
    "onnxruntime-cpu": onnx_engine("cpu"),
    "onnxruntime-cuda": onnx_engine("cuda"),
    "onnxruntime-tensorrt": onnx_engine("tensorrt"),
    "openvino": onnx_engine("openvino"),
    "tensorrt": tensorrt_engine("tensorrt"),
    "tensorrt-rtx": tensorrt_engine("tensorrt-rtx"),
}


@pytest.fixture(params=MAKERS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Return each engine in turn; skip those that this machine cannot run."""
    try:
        made = MAKERS[request.param](tmp_path)
    except MsfnetError as error:
        if request.param in ("fake", "onnxruntime-cpu", "openvino"):
            raise
        pytest.skip(f"{request.param}: {error}")
    with made:
        yield made


def test_it_computes_the_model(engine: Engine, rng: np.random.Generator) -> None:
    """The reference is the same model in NumPy."""
    batch = rng.normal(size=(1, 3, 32, 64)).astype(np.float32)

    np.testing.assert_allclose(engine.infer(batch), conv_reference(batch), rtol=1e-4, atol=1e-4)


def test_an_output_outlives_the_next_call(engine: Engine, rng: np.random.Generator) -> None:
    """No engine returns memory that it will overwrite."""
    batch = rng.normal(size=(1, 3, 32, 64)).astype(np.float32)
    first = engine.infer(batch)
    kept = first.copy()

    engine.infer(batch * 2 + 1)

    np.testing.assert_array_equal(first, kept)


def test_a_batch_that_is_not_contiguous_is_read_correctly(
    engine: Engine, rng: np.random.Generator
) -> None:
    """The caller need not know about strides."""
    batch = rng.normal(size=(1, 3, 64, 32)).astype(np.float32).transpose(0, 1, 3, 2)

    np.testing.assert_allclose(engine.infer(batch), conv_reference(batch), rtol=1e-4, atol=1e-4)


def test_another_shape_or_type_is_refused(engine: Engine) -> None:
    """The message names both shapes and types."""
    with pytest.raises(MsfnetError, match="1x3x32x64 float32, not 1x3x32x65 float32"):
        engine.infer(np.ones((1, 3, 32, 65), np.float32))
    with pytest.raises(MsfnetError, match="not 1x3x32x64 float64"):
        engine.infer(np.ones((1, 3, 32, 64)))


def test_it_has_a_spec_and_a_description(engine: Engine) -> None:
    """The spec is that of the file."""
    assert engine.spec == network_spec()
    assert engine.describe()


def test_closing_twice_is_allowed_and_later_use_refused(engine: Engine) -> None:
    """The second close does nothing."""
    engine.close()
    engine.close()

    with pytest.raises(MsfnetError, match="closed"):
        engine.infer(np.ones((1, 3, 32, 64), np.float32))


def test_every_engine_is_an_engine(engine: Engine) -> None:
    """The protocol can be checked at run time."""
    assert isinstance(engine, Engine)
