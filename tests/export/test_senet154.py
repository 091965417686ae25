"""The paper's own encoder, at the size of a small deployment; slow, because it is large."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from msfnet_calibration import convert_fp16, quantize_int8
from msfnet_export import ExportReport, export_network
from msfnet_export.parity import random_image
from msfnet_runtime import EngineArtifact, Frame
from msfnet_train import MSFNet, NetworkConfig
from tests.tensorrt_types import needs_rtx

SIZE = (224, 320)
ARCHITECTURES = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")

BUILD = """
import json, re, sys
from pathlib import Path
from msfnet_export.build_engine import build_engine
from msfnet_export.build_options import BuildOptions, parse_profile
source, target, architectures, profile = sys.argv[1:]
profiles = (parse_profile(profile),) if profile else ()
options = BuildOptions(architectures=tuple(architectures.split(",")), profiles=profiles)
seconds = build_engine(source, target, options=options).build_seconds
kilobytes = re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())
print(json.dumps({"seconds": seconds, "gigabytes": int(kilobytes[1]) * 1024 / 1e9}))
"""
"""The kernel's ``ru_maxrss`` would start from that of the process that starts this one."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExportReport]:
    """Export 135 M seeded parameters, static and dynamic."""
    folder = tmp_path_factory.mktemp("senet154")
    torch.manual_seed(0)
    network = MSFNet(NetworkConfig(encoder="legacy_senet154", pretrained=False))
    return {
        "static": export_network(network, folder / "static.onnx", size=SIZE),
        "dynamic": export_network(
            network, folder / "dynamic.onnx", size=SIZE, dynamic=("batch", "size")
        ),
    }


def in_precision(source: Path, precision: str) -> Path:
    """Write the FP16 or INT8 form beside an FP32 model."""
    target = source.with_name(f"{source.stem}_{precision}.onnx")
    if precision == "fp32" or target.exists():
        return source if precision == "fp32" else target
    frames = [Frame(random_image(SIZE, seed)) for seed in range(4)]
    if precision == "fp16":
        return convert_fp16(source, target, frames=frames[:1]).path
    return quantize_int8(source, target, frames, method="minmax").path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_senet154_exports_exactly(reports: dict[str, ExportReport]) -> None:
    """The static graph within 90 s; the dynamic one takes longer, compared at six shapes."""
    for report in reports.values():
        print(report.text())
        assert report.max_relative_difference < 1e-4
        assert 130e6 < report.parameters < 140e6
    assert reports["static"].seconds < 90


@needs_rtx
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shape", ["static", "dynamic"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_senet154_builds_for_all_architectures_in_one_engine(
    reports: dict[str, ExportReport], shape: str, precision: str
) -> None:
    """It takes under 60 s and 8 GB, measured in a process that does nothing else."""
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells a process's peak memory")
    source = in_precision(reports[shape].artifact.path, precision)
    target = source.with_suffix(".engine")
    profile = "1x64x96:1x224x320:2x448x640" if shape == "dynamic" else ""
    command = [sys.executable, "-c", BUILD, str(source), str(target)]

    done = subprocess.run(
        [*command, ",".join(ARCHITECTURES), profile], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    used = json.loads(done.stdout)
    artifact = EngineArtifact.read(target)
    print(f"{shape} {precision}: {used}, {artifact.bytes / 1e6:.0f} MB, {dict(artifact.types)}")
    target.unlink()
    assert used["seconds"] < 60
    assert used["gigabytes"] < 8
    assert artifact.architectures == ARCHITECTURES
    assert len(artifact.profiles) == (shape == "dynamic")
    assert artifact.spec.precision == precision
