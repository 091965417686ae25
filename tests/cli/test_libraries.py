"""Every command says before any work which optional library is missing or does not load."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from msfnet import needs
from msfnet.__main__ import run
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.libraries import LIBRARIES, explain, is_installed, require
from tests.onnx_models import conv_model
from tests.specs import network_spec

SCORED = "--data none --protocol nyu_hu"

NEEDED = {
    "demo --out out": {*needs.TRAIN, *needs.EXPORT, "tensorrt_rtx", "av", "plotly"},
    "data check none": set(),
    "data check none --sheet out.png": {"matplotlib"},
    "data synthesize file/out --layout kitti": set(),
    "train quick --data none --out out": set(needs.TRAIN),
    f"evaluate none.onnx {SCORED}": {"onnxruntime"},
    f"evaluate none.onnx {SCORED} --provider openvino": {"openvino"},
    f"evaluate none.ckpt {SCORED}": set(needs.TORCH),
    f"evaluate none.engine {SCORED}": set(),
    f"evaluate --predictions none {SCORED}": set(),
    f"evaluate none.onnx {SCORED} --against none.ckpt": {"onnxruntime", *needs.TORCH},
    f"evaluate none.onnx {SCORED} --sheet out.png": {"onnxruntime", "matplotlib"},
    "export none.ckpt out.onnx": set(needs.EXPORT),
    "calibrate none.onnx out.onnx --data none": set(needs.CALIBRATE),
    "calibrate none.onnx out.onnx --data none --sensitivity": {*needs.CALIBRATE, "matplotlib"},
    "build none.onnx out.engine": {"tensorrt_rtx"},
    "build none.onnx out.engine --flavour tensorrt": {"tensorrt"},
    "triton none.onnx out": set(),
    "stream none.onnx none --out out": {"onnxruntime"},
    "stream none.pt none --out out": set(needs.TORCH),
    "bench none.onnx": {"onnxruntime"},
    "bench none.onnx --against pytorch": {"onnxruntime", *needs.TORCH},
    "bench none.onnx --provider cpu --provider openvino": {"onnxruntime", "openvino"},
    "bench none.engine --peer none.onnx": {"onnxruntime", "onnx"},
    "bench none.onnx --report out.html": {"onnxruntime", "plotly"},
    "bench --sweep preset=none": set(needs.EXPORT),
    "latency none.onnx": {"onnxruntime"},
    "inspect none.onnx": set(),
    "inspect none.ckpt": set(needs.TORCH),
    "inspect none.engine --plot out.png": {"matplotlib"},
}
"""Command lines, and the libraries that they need."""

PAIRS = [(command, library) for command, found in NEEDED.items() for library in sorted(found)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder that holds one file."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work/file").touch()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, code: str) -> None:
    """Install a package of this name with this code before the real one."""
    top = module.partition(".")[0]
    (tmp_path / top).mkdir()
    (tmp_path / top / "__init__.py").write_text(code)
    for name in {top, module, LIBRARIES[module].module}:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(("command", "library"), PAIRS)
def test_a_missing_library_is_one_line_before_any_work(
    command: str,
    library: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The line has the command that installs it; no input was looked for, nothing was written."""
    monkeypatch.setitem(sys.modules, library, None)

    assert run(shlex.split(command)) == 1

    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "not installed; run `pip install 'msfnet[" in printed.err
    assert LIBRARIES[library].name in printed.err
    assert f"{LIBRARIES[library].extra}" in printed.err
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.parametrize("library", sorted({library for _, library in PAIRS}))
def test_a_library_that_does_not_load_is_not_called_missing(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The line has the loader's reason, for one command of each library."""
    command = next(command for command, found in NEEDED.items() if library in found)
    if not is_installed(library):  # those before it are looked for first
        monkeypatch.setitem(sys.modules, library, None)
    broken(monkeypatch, tmp_path, library, 'raise ImportError("libx.so.9: cannot open\\nit")')

    assert run(shlex.split(command)) == 1

    printed = capfd.readouterr().err
    assert printed.count("\n") == 1
    named = f"{LIBRARIES[library].name} is installed but does not load: libx.so.9: cannot open it"
    assert named in printed
    assert "pip install" not in printed


ALONE = [each for each in NEEDED if not each.startswith(("demo", "train", "export", "bench --sw"))]
"""Without the commands of PyTorch's companions, which import each other."""


@pytest.mark.parametrize("command", ALONE)
def test_the_other_libraries_are_not_needed(
    command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without them a command gets as far as its input, which is missing here."""
    if not all(map(is_installed, NEEDED[command])):
        pytest.skip("a library that the command needs is not installed")
    for library in LIBRARIES.keys() - NEEDED[command] - {"torchvision", "scipy", "onnx", "onnx_ir"}:
        if library not in sys.modules:
            monkeypatch.setitem(sys.modules, library, None)

    assert run(shlex.split(command)) == 1

    assert "install" not in capfd.readouterr().err


def test_every_need_is_a_library_of_the_table() -> None:
    """And every extra of the table is one of the package."""
    assert {library for found in NEEDED.values() for library in found} <= LIBRARIES.keys()
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML library")
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    assert {library.extra for library in LIBRARIES.values()} - {""} <= extras.keys()


def test_what_a_removed_package_leaves_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty package, and a folder without code."""
    broken(monkeypatch, tmp_path, "onnxruntime", "")
    with pytest.raises(MsfnetError, match=r"not whole: .*onnxruntime.__init__\.py has no Infer"):
        require("onnxruntime")

    (tmp_path / "onnxruntime/__init__.py").unlink()
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(MsfnetError, match=rf"not whole: {tmp_path}/onnxruntime has no Infer"):
        require("onnxruntime")


def test_a_library_of_a_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of ours is missing itself; of another, the reason says which."""
    broken(monkeypatch, tmp_path, "timm", "import torchvision")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MsfnetError, match=r"^torchvision is not installed; run .*msfnet\[train\]"):
        require("timm")

    (tmp_path / "timm/__init__.py").write_text("import nothing_of_that_name")
    with pytest.raises(MsfnetError, match=r"timm is installed but .*'nothing_of_that_name'"):
        require("timm")


def test_a_failed_import_in_the_middle_of_a_command_is_explained(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of an optional library, of another, and of msfnet, which is a fault."""

    def fails(error: ImportError) -> str:
        def needed(_: needs.Options) -> Iterator[str]:
            raise error
            yield

        monkeypatch.setattr("msfnet.cli.require", lambda *_: list(needed({})))
        assert run(["latency", "none.onnx"]) == 1
        return capfd.readouterr().err

    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "h5py is not installed; run `pip install 'msfnet[nyu]'`" in fails(
        ModuleNotFoundError("No module named 'h5py'", name="h5py")
    )
    shown = fails(ImportError("libGL.so.1: cannot open shared object file"))
    assert "libGL.so.1: cannot open shared object file" in shown
    assert "fault in msfnet" not in shown
    assert "fault in msfnet" in fails(ImportError("cannot import x", name="msfnet_runtime.spec"))
    assert explain(ImportError("of nobody")) is None


def test_a_library_that_everything_needs_is_explained_too(tmp_path: Path) -> None:
    """OpenCV without the system's libGL is the usual one."""
    (tmp_path / "cv2").mkdir()
    code = 'raise ImportError("libGL.so.1: cannot open shared object file")'
    (tmp_path / "cv2/__init__.py").write_text(code)
    script = "import sys; sys.path[:] = eval(sys.argv.pop()); import msfnet.__main__ as m; m.main()"
    path = repr([str(tmp_path), *sys.path])

    done = subprocess.run(
        [sys.executable, "-c", script, "doctor", path], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stderr.startswith("error: a library is missing or does not load: libGL.so.1")
    assert done.stderr.count("\n") == 1


def test_usage_reports_are_off_unless_asked_for() -> None:
    """ONNX Runtime reads its variable when it is imported; a user's value is kept."""
    script = "import msfnet_runtime, os, json; print(json.dumps(dict(os.environ)))"
    for given, expected in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        environment = {"PYTHONPATH": ":".join(sys.path), **given}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, check=True
        )
        assert json.loads(done.stdout)["ORT_DISABLE_TELEMETRY"] == expected


def test_a_model_is_inspected_without_the_library_that_checks_its_graph(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And it is said that the graph was not checked."""
    onnx.save(conv_model(network_spec()), folder / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnx_ir", None)

    assert run(["inspect", "model.onnx"]) == 0

    assert "graph checked" in (shown := capsys.readouterr().out)
    assert "no: onnx-ir is not installed" in shown
