"""Writes small data sets for tests; the colours of a picture determine its depth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from msfnet_train.recipe import Recipe

SCENES = 8


def write_nyu(root: Path, *, scenes: int = SCENES, size: tuple[int, int] = (240, 320)) -> Path:
    """Write pairs in DenseDepth's layout; nearer patches have more blue and less green.

    Args:
        root: folder to write to.
        scenes: training pairs; the first quarter of them are the validation pairs as well.
        size: (height, width), pixels.

    Returns:
        The root.
    """
    names = []
    for number in range(scenes):
        rng = np.random.default_rng(number)
        small = rng.uniform(25, 200, (4, 5)).astype(np.float32)
        depth = cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC).clip(20, 250)
        image = np.stack([255 - depth, depth, np.full_like(depth, 128)], axis=-1)
        folder = root / "data" / "nyu2_train" / "room"
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{number}.png"), image.astype(np.uint8))
        cv2.imwrite(str(folder / f"{number}_depth.png"), depth.astype(np.uint8))
        prefix = "data/nyu2_train/room"
        names.append(f"{prefix}/{number}.png,{prefix}/{number}_depth.png\n")
    (root / "data/nyu2_train.csv").write_text("".join(names))
    (root / "data/nyu2_val.csv").write_text("".join(names[: max(1, scenes // 4)]))
    return root


def nyu_recipe(**changes: object) -> Recipe:
    """Return a recipe that trains on such a data set in seconds.

    Args:
        changes: values by ``table_key``, for example ``trainer_epochs=3``.
    """
    tables: dict[str, dict[str, object]] = {
        "data": {
            "layout": "nyu",
            "dataset": "test",
            "image_size": (72, 96),
            "crop": (64, 64),
            "inference_size": (64, 96),
            "protocol": "nyu_hu",
            "depth_kind": "inverse",
            "depth_range_m": (0.1, 10.0),
        },
        "network": {
            "encoder": "mobilenetv3_small_050",
            "pretrained": False,
            "decoder_width": 0.0625,
            "usf_width": 8,
            "usf_output": 8,
        },
        "loss": {"batch_weight": 1.0, "dynamic_range": 10.0},
        "optimizer": {"learning_rate": 3e-3, "weight_decay": 0.0, "schedule": "onecycle"},
        "trainer": {"epochs": 2, "batch_size": 4, "workers": 0, "initial_prediction": 0.3},
    }
    for key, value in changes.items():
        table, _, name = key.partition("_")
        tables.setdefault(table, {})[name] = value
    return Recipe.from_dict({"name": "tiny", **tables}, "test")
