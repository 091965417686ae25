"""Every command answers bad input with one line and exit status 1 or 2, and leaves no file."""

from __future__ import annotations

import shlex
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from msfnet.__main__ import run
from msfnet.cli import app
from msfnet_train.checkpoint import save_checkpoint
from msfnet_train.recipe import load_recipe
from tests.networks import light_network
from tests.onnx_models import conv_model
from tests.specs import network_spec

COMMANDS = (
    "demo",
    "data synthesize",
    "data check",
    "train",
    "evaluate",
    "export",
    "calibrate",
    "build",
    "triton",
    "stream",
    "bench",
    "latency",
    "inspect",
    "doctor",
)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return a good checkpoint, one with another network's weights, one of an unknown encoder."""
    path = tmp_path_factory.mktemp("checkpoints") / "trained.ckpt"
    config = "network.decoder_width=0.125", "network.usf_width=8", "network.usf_output=16"
    recipe = load_recipe("nyu_mini", ["network.encoder=mobilenetv3_small_100", *config])
    save_checkpoint(path, light_network(), recipe)
    files = {"trained.ckpt": path.read_bytes()}
    save_checkpoint(path, light_network(), load_recipe("nyu_mini", config))
    files["other.ckpt"] = path.read_bytes()
    content = torch.load(path)
    content["msfnet"]["recipe"]["network"]["encoder"] = "resnet19"
    torch.save(content, path)
    return {**files, "unknown.ckpt": path.read_bytes()}


@pytest.fixture
def folder(
    tmp_path: Path,
    photo: NDArray[np.uint8],
    checkpoints: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Work in a folder with a good model, bad models, an image, and data without ground truth."""
    onnx.save(conv_model(network_spec()), tmp_path / "good.onnx")
    (tmp_path / "corrupt.onnx").write_bytes(b"\x08\x0anothing that could be a model")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "corrupt.ckpt").write_bytes(b"no checkpoint")
    for name, checkpoint in checkpoints.items():
        (tmp_path / name).write_bytes(checkpoint)
    (tmp_path / "bare.engine").write_bytes(b"an engine without a manifest")
    (tmp_path / "typo.toml").write_text('[data]\nlayuot = "nyu"\n')
    (tmp_path / "file").write_text("in the way of a folder")
    (tmp_path / "images").mkdir()
    (tmp_path / "empty").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), photo)
    cv2.imwrite(str(tmp_path / "picture.png"), photo)
    write_rooms(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_rooms(root: Path) -> None:
    """Make a room with depth, one without any, and depth maps for it in wrong units and sizes."""
    millimetres = np.linspace(1000, 9000, 480 * 640).reshape(480, 640).astype(np.uint16)
    for name, depth in (("rooms", millimetres), ("blind", np.zeros_like(millimetres))):
        (root / name / "data").mkdir(parents=True)
        (root / name / "data/nyu2_test.csv").write_text("data/a.png,data/d.png\n")
        cv2.imwrite(str(root / name / "data/a.png"), np.full((480, 640, 3), 90, np.uint8))
        cv2.imwrite(str(root / name / "data/d.png"), depth)
    for name, depth in (("maps", millimetres), ("small", millimetres[:50, :60])):
        (root / name).mkdir()
        cv2.imwrite(str(root / name / "a.png"), depth)


BAD = {
    # a missing file
    "evaluate none.onnx --data images --protocol nyu_hu": "none.onnx",
    "export none.ckpt out.onnx": "none.ckpt",
    "calibrate none.onnx out.onnx --data images": "none.onnx",
    "build none.onnx out.engine": "none.onnx",
    "stream none.onnx images --out out": "none.onnx",
    "stream good.onnx none.mp4 --out out.mp4": "none.mp4",
    "bench none.onnx": "none.onnx",
    "inspect none.onnx": "none.onnx",
    "train none.toml --data images --out out": "none.toml",
    "train quick --data none --out out": "none",
    "data check none": "none",
    # a corrupt model
    "evaluate corrupt.onnx --data images --protocol nyu_hu": "corrupt.onnx",
    "bench corrupt.onnx": "corrupt.onnx",
    "export corrupt.ckpt out.onnx": "corrupt.ckpt",
    "calibrate corrupt.onnx out.onnx --data images": "corrupt.onnx",
    "calibrate empty.onnx out.onnx --data images": "empty.onnx",
    "build corrupt.onnx out.engine": "corrupt.onnx",
    "stream corrupt.onnx images --out out": "corrupt.onnx",
    "inspect corrupt.onnx": "corrupt.onnx",
    "inspect bare.engine": "manifest",
    "inspect picture.png": "picture.png",
    # a source that is not a video, an output that cannot hold depth
    "stream good.onnx text.mp4 --out out.mp4": "text.mp4",
    "stream good.onnx picture.png --out depth.png": "16-bit PNG",
    # an output that cannot be written
    "export corrupt.ckpt file/out.onnx": "file/out.onnx",
    "build good.onnx file/out.engine --arch sm86": "file/out.engine",
    "stream good.onnx images --out file/out.mp4": "file",
    "stream good.onnx images --out file/out": "file",
    "stream good.onnx images --out out.txt": "out.txt",
    "stream good.onnx images --out nzp:out": "nzp:",
    "stream good.onnx images": "--out",
    "bench good.onnx --frames 1 --rounds 1 --report file/report.html": "file/report.html",
    "evaluate good.onnx --data images --protocol nyu_hu --json file/out.json": "file/out.json",
    "data synthesize file/out --layout kitti --scenes 1 --frames 1 --size 64x64": "file/out",
    "demo --out file": "file",
    "demo --out rooms": "(--out)",
    # an unknown recipe, key or value
    "train nothing --data images --out out": "unknown recipe",
    "train typo.toml --data images --out out": "data.layuot",
    "train quick --data images --out out --set trainer.epoch=5": "trainer.epochs",
    "train quick --data images --out out --set trainer.epochs=many": "trainer.epochs",
    # a wrong size
    "export other.ckpt out.onnx": "do not fit the network its recipe describes",
    "export unknown.ckpt out.onnx": "unknown encoder 'resnet19'",
    "export trained.ckpt out.onnx --size 64x64 --dynamic size": "(--graph)",
    "export trained.ckpt out.onnx --size 70x64 --graph network --dynamic size": "multiples of 32",
    "export trained.ckpt out.onnx --data none": "none does not exist",
    "export trained.ckpt out.bin": "does not end in .onnx",
    "export trained.ckpt good.onnx": "--force",
    "calibrate good.onnx good.onnx --data images": "good.onnx is read",
    "calibrate good.onnx good.onnx --data images --force": "good.onnx is read",
    "inspect trained.ckpt --plot blocks.png": "holds no list of blocks",
    "inspect good.onnx --plot file/blocks.png": "file/blocks.png",
    "export trained.ckpt out.onnx --graph network --frame-size 64x64": "(--frame-size)",
    "calibrate good.onnx out.bin --data images": "does not end in .onnx",
    # unknown words
    "evaluate good.onnx --data images --protocol nyu_hu": "images",
    "bench good.onnx --protocol nyu_hu": "--data",
    "bench good.onnx --frames 0": "(--frames)",
    "bench good.onnx --data rooms --list nothing": "nothing",
    "export trained.ckpt out.onnx --size 64x64 --data rooms --list nothing": "nothing",
    "calibrate good.onnx out.onnx --data rooms --list nothing": "nothing",
    "bench good.onnx --against pytorch": "--against",
    "build good.onnx out.engine --arch sm90": "sm90",
    "build good.onnx out.bin": "out.bin",
    "stream good.onnx synthetic:castle --out out": "castle",
    "data check empty": "empty",
    "data check rooms --list nyu2_none": "no list nyu2_nyu2_none.csv",
    "data check rooms --list test --depth uint8_10m": "declares uint8, 255 = 10 m",
    "data check rooms --layout kitti": "holds no KITTI drive",
    "data check images --sheet sheet.png": "no ground truth to draw",
    "data check rooms --sheet file/sheet.png": "file",
    "train nyu_ablation --data rooms --out out": "nyu_depth_v2_labeled.mat does not exist",
    "train nyu_mini --data rooms --out out --rows usf": "--ablation",
    "train nyu_mini --data rooms --out out --ablation --rows none": "unknown ablation 'none'",
    # a model or provider of an unknown kind
    "evaluate picture.png --data rooms --protocol nyu_hu": ".ckpt, .onnx or .engine",
    # an evaluation that cannot be
    "evaluate": "MODEL",
    "evaluate good.onnx": "--static",
    "evaluate good.onnx --data rooms": "--protocol",
    "evaluate good.onnx --static images --csv out.csv": "--data",
    "evaluate good.onnx --predictions maps --data rooms --protocol nyu_hu": "either a MODEL",
    "evaluate good.onnx --data rooms --protocol nyu_hu --prediction-unit uint16_mm": (
        "--predictions"
    ),
    "evaluate good.onnx --data rooms --protocol nyu_hu --list elsewhere": "elsewhere",
    "evaluate good.onnx --data rooms --protocol nyu_hu --sheet file/out.png": "file/out.png",
    "evaluate good.onnx --data rooms --protocol nyu_hu --csv file/out.csv": "file/out.csv",
    "evaluate good.onnx --data rooms --protocol nyu_hu --against none.onnx": "none.onnx",
    "evaluate good.onnx --data blind --protocol nyu_hu": "blind/data/d.png",
    "evaluate good.onnx --static picture.png": "at least two frames",
    "evaluate --predictions maps --static images": "MODEL",
    "evaluate --predictions none --data rooms --protocol nyu_hu": "none",
    "evaluate --predictions maps --data rooms --protocol nyu_hu": "--prediction-unit",
    "evaluate --predictions maps --data rooms --protocol nyu_hu --prediction-unit uint16_256": (
        "like uint16_mm"
    ),
    "evaluate --predictions small --data rooms --protocol nyu_hu --prediction-unit uint16_mm": (
        "small/a.png"
    ),
    "evaluate --predictions empty --data rooms --protocol nyu_hu --prediction-unit uint16_mm": (
        "lacks 1 of 1"
    ),
    "bench good.onnx --report report.json": "report.json",
}

BAD_USAGE = {
    "evaluate good.onnx --data rooms --protocol nyu_hu --align mean": "least_squares",
    "evaluate --predictions maps --data rooms --protocol nyu_hu --prediction-unit cm": "cm",
    "data check rooms --layout spheres": "spheres",
    "build good.onnx": "Missing argument",
    "build good.onnx out.engine --flavour cuda": "--flavour",
    "calibrate good.onnx out.onnx": "--data",
    "data synthesize out": "--layout",
    "export corrupt.ckpt out.onnx --graph whole": "--graph",
    "export corrupt.ckpt out.onnx --verify closely": "--verify",
    "build good.onnx out.engine --flavour tensorrt --optimization-level 7": "--optimization-level",
    "export corrupt.ckpt out.onnx --size 228": "HxW",
    "export trained.ckpt out.onnx --size 64x64 --no-fold speed": "unknown name 'speed'",
    "export trained.ckpt out.onnx --dynamic depth": "choose from batch, size",
    "export corrupt.ckpt out.onnx --size 8x8": "out of range",
    "export corrupt.ckpt out.onnx --frame-size 12x": "HxW",
    "data synthesize out --layout nyu --size big": "HxW",
    "calibrate good.onnx out.onnx --data rooms --budget 'rel 1%'": "write for example 'rel +1%'",
    "calibrate good.onnx out.onnx --data rooms --protocol nyu": "nyu_hu",
    "evaluate good.onnx --data images --protocol kitti": "unknown protocol",
    "stream good.onnx images --out out --colours pink": "--colours",
    "stream good.onnx images --out out --provider tpu": "tpu",
    "evaluate trained.ckpt --data rooms --protocol nyu_hu --provider tpu": "tpu",
    "train nyu_mini --data rooms --out out --ablation --seeds a,b": "are not whole numbers",
    "evaluate good.onnx --data rooms --protocol nyu_hu --sheet out.txt": "out.txt",
    "data check rooms --sheet out.txt": ".png",
    "inspect good.onnx --plot out.pdf": ".png",
    "stream good.onnx images --out out --range 9,1": "--range",
    "stream good.onnx images --out out --range far": "near,far",
    "stream good.onnx images --out out --intrinsics 200deg": "60deg",
    "stream good.onnx images --out out --rotate 45": "270",
    "stream good.onnx images --web-address 8000": "HOST:PORT",
    "bench good.onnx --provider tpu": "tpu",
    "bench good.onnx --provider cuda:speed=1": "cuda has no option",
    "bench good.onnx --tolerance much": "not a share",
    "calibrate good.onnx out.onnx --data images --budget much": "rel +1%",
    "build good.onnx out.engine --profile 1x2": "MIN:OPT:MAX",
    "launch": "launch",
    "stream good.onnx images --frames many": "--frames",
}


def failure(command: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command line that must fail; return its status and what it printed in all."""
    status = run(shlex.split(command))
    captured = capfd.readouterr()
    assert captured.out == ""
    return status, captured.err


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_line_and_status_1(
    folder: Path, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The line names what was wrong; no file is made, changed or lost."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    status, printed = failure(command, capfd)

    *progress, line = printed.rstrip("\n").split("\n")
    assert status == 1
    assert line.startswith("error: ")
    assert BAD[command] in line
    assert "fault in msfnet" not in line
    assert not [text for text in progress if "error" in text.lower() or "Traceback" in text]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("command", BAD_USAGE)
def test_bad_usage_is_one_line_and_status_2(
    folder: Path, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The line ends with the help that would have helped."""
    status, printed = failure(command, capfd)

    assert status == 2
    assert printed.count("\n") == 1
    assert BAD_USAGE[command] in printed
    assert "Value error" not in printed
    known = [words for words in COMMANDS if command.startswith(words)]
    assert f"see `{' '.join(['msfnet', *known, '--help'])}`" in printed


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The example is a call of that command with its required arguments."""
    assert run([*command.split(), "--help"]) == 0

    assert f"Example: msfnet {command}" in " ".join(capfd.readouterr().out.split())


def test_every_command_has_its_help_tested() -> None:
    """The list above is the whole command line."""
    groups = {group.name for group in app.registered_groups}
    single = {command.name for command in app.registered_commands}

    assert {words.split()[0] for words in COMMANDS} == groups | single


def test_an_existing_output_is_replaced_only_when_asked(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """``--force`` says so; without it the file stays as it was."""
    (folder / "out.engine").write_bytes(b"precious")

    status, printed = failure("build good.onnx out.engine --arch sm86", capfd)

    assert (status, "--force" in printed) == (1, True)
    assert (folder / "out.engine").read_bytes() == b"precious"


def test_debug_lets_the_error_through(folder: Path) -> None:
    """The error is raised with its traceback."""
    with pytest.raises(Exception, match=r"none\.onnx"):
        run(["inspect", "none.onnx", "--debug"])
