"""Opens every file of a folder as one kind of input; run as a process, which a file may kill.

``python opening.py KIND FOLDER``: prints each file's name before it is opened, and what it raised
unless that was one line for the user. A file that takes too long ends the process.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from msfnet_runtime import EngineArtifact, ModelSpec, MsfnetError, OnnxArtifact
from msfnet_runtime.images import read_image, read_raw
from msfnet_runtime.sources import SourceOptions, open_source
from msfnet_runtime.sources.kitti import read_intrinsics

LONGEST_S = 20
"""For one file."""

FRAMES = 60


def open_image(path: Path) -> None:
    """Read it as colour and as it is stored."""
    read_raw(path)
    image = read_image(path)
    assert image.ndim == 3
    assert image.shape[2] == 3


def open_frames(path: Path) -> None:
    """Stream it, strictly and skipping what is bad."""
    for options in (SourceOptions(skip_bad=True), SourceOptions()):
        with open_source(str(path), options) as source:
            for frame in islice(source, FRAMES):
                assert frame.image.ndim == 3


def open_calibration(path: Path) -> None:
    """Read it as a date's calibration."""
    camera = read_intrinsics(path)
    assert camera is None or min(camera.width, camera.height) >= 0


def open_spec(path: Path) -> None:
    """Read it as a spec."""
    ModelSpec.from_json(path.read_text(encoding="utf-8", errors="replace"))


KINDS: dict[str, Callable[[Path], object]] = {
    "image": open_image,
    "video": open_frames,
    "drive": open_frames,
    "list": open_frames,
    "calibration": open_calibration,
    "spec": open_spec,
    "manifest": EngineArtifact.read,
    "onnx": OnnxArtifact.read,
}


def main() -> int:
    """Open all; return how many raised what they should not."""
    faults = 0
    for path in sorted(Path(sys.argv[2]).iterdir()):
        if path.name.endswith(".engine.json"):
            continue
        print(path.name, flush=True)
        faulthandler.dump_traceback_later(LONGEST_S, exit=True)
        try:
            KINDS[sys.argv[1]](path)
        except MsfnetError as error:
            if "\n" in str(error):
                faults += 1
                print(f"  several lines: {error!r}", flush=True)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is a fault
            faults += 1
            print(f"  {type(error).__name__}: {error}", flush=True)
        faulthandler.cancel_dump_traceback_later()
    return min(faults, 100)


if __name__ == "__main__":
    sys.exit(main())
