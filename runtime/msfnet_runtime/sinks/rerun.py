"""Sends frames, depth and camera to the Rerun viewer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.files import Growing
from msfnet_runtime.images import encode_jpeg
from msfnet_runtime.libraries import require
from msfnet_runtime.sink import SinkBase
from msfnet_runtime.sinks.folder import counts_per_metre, encode_depth
from msfnet_runtime.sinks.options import SinkOptions
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.types import CameraIntrinsics, DepthMap, Frame

RECORDING_SUFFIX = ".rrd"

_JPEG_QUALITY = 90

_ROOM_BYTES = 16_000_000
"""Disk space that must stay free, for data that Rerun has not written yet and its index."""


class RerunSink(SinkBase):
    """Logs camera, image and depth on the timelines ``frame`` and ``time``.

    Depth is 16-bit counts with Rerun's ``meter``, so that the viewer shows metres and, if the
    camera is known, the points in space.

    Args:
        target: a ``.rrd`` file, which grows as ``NAME.partial.rrd``; ``HOST:PORT`` of a running
            viewer; or an empty text, which starts one.
        spec: the model's spec; its depth range sets the unit and the colours.
        options: unit, and the camera if the source does not know it.

    Raises:
        MsfnetError: Rerun is absent; on entering, the file exists or cannot be written, or no
            viewer starts.
    """

    def __init__(self, target: str | Path, spec: ModelSpec, options: SinkOptions) -> None:
        os.environ.setdefault("RUST_LOG", "off")  # it would print messages of its own
        require("rerun")
        import rerun

        self._rerun = rerun
        self._target = target
        self._options = options
        self._range = options.range_m or spec.depth_range_m
        self._counts = counts_per_metre(spec, options.unit)
        self._camera: CameraIntrinsics | None = None
        self._growing: Growing | None = None
        self._written = 0
        self._full = False

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Log one frame.

        Raises:
            MsfnetError: the disk is nearly full; the message says where the earlier frames are.
        """
        self._check_room(frame)
        rerun, stream = self._rerun, self._recording
        stream.set_time("frame", sequence=depth.index)
        stream.set_time("time", duration=depth.timestamp_s)
        if (frame.intrinsics or self._options.lens) is not None:
            self._log_camera(self._options.camera(frame))
        jpeg = encode_jpeg(frame.image, _JPEG_QUALITY)
        stream.log("camera/image", rerun.EncodedImage(contents=jpeg, media_type="image/jpeg"))
        ends = [metres * self._counts for metres in self._range]
        counts = encode_depth(depth, self._counts)
        stream.log(
            "camera/depth",
            rerun.DepthImage(counts, meter=float(self._counts), colormap="turbo", depth_range=ends),
        )
        self._written += 1

    def _check_room(self, frame: Frame) -> None:
        """Refuse a frame that might not fit: Rerun's file writer blocks for ever on a full disk.

        Raises:
            MsfnetError: there is too little space.
        """
        if self._growing is None or self._growing.path is None:
            return
        self._growing.check()
        partial = self._growing.path
        if shutil.disk_usage(partial.parent).free > _ROOM_BYTES + 2 * frame.image.nbytes:
            return
        self._full = True
        kept = f"; the recording so far is {partial}" if self._written else ""
        raise MsfnetError(
            f"cannot write {self._target}: the disk is nearly full{kept}; make room or choose "
            "another path"
        )

    @contextmanager
    def _opened(self) -> Iterator[None]:
        self._recording = self._rerun.RecordingStream("msfnet")
        if isinstance(self._target, Path):
            self._growing = Growing(self._target, force=self._options.force)
            self._recording.save(self._growing.begin())
        else:
            self._connect()
        try:
            yield
        finally:
            self._recording.disconnect()
            if self._growing and not self._written:
                self._growing.give_up(remove=True)
            elif self._growing and self._full:
                self._growing.give_up()
            elif self._growing:
                self._growing.finish()

    def _connect(self) -> None:
        """Connect to a running viewer, or start one."""
        try:
            if self._target:
                self._recording.connect_grpc(f"rerun+http://{self._target}/proxy")
            else:
                self._recording.spawn()
        except (RuntimeError, OSError, ValueError) as error:
            raise MsfnetError(
                f"cannot open a Rerun viewer: {str(error).partition(chr(10))[0]}; name a .rrd file "
                "instead"
            ) from None

    def _log_camera(self, camera: CameraIntrinsics) -> None:
        """Log the camera if it has changed; it applies to all later frames."""
        if camera == self._camera:
            return
        self._camera = camera
        pinhole = self._rerun.Pinhole(
            image_from_camera=camera.matrix,
            camera_xyz=self._rerun.ViewCoordinates.RDF,
            width=camera.width,
            height=camera.height,
        )
        self._recording.log("camera", pinhole)
