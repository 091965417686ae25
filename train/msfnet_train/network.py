"""Builds MSFNet from an encoder of timm, the paper's decoder, EDA, USF and auxiliary heads."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from msfnet_runtime import MsfnetError
from msfnet_train.blocks import (
    DecoderBlock,
    EnhancedDiverseAttention,
    UpsampleStageFusion,
    initialise,
)
from msfnet_train.pretrained import PACKAGES, load_weights

STRIDES = [2, 4, 8, 16, 32]
"""Strides of the five encoder stages, which the paper numbers 1 to 5."""

DECODER_WIDTHS = (1024, 512, 256, 128, 64)
"""Channels after the 1x1 convolution and after the four decoder blocks at width 1."""

_GRIDS = ((65, 97), (61, 100), (76, 95))
"""Sizes of images, pixels: at each stage some side is odd, and some is even."""

MAX_CHANNELS = 1024
"""Channels of the USF, at most; the paper's has 128."""

_ADVICE = "choose another, such as mobilenetv3_large_100, resnet50 or legacy_senet154"


@dataclass(frozen=True)
class NetworkConfig:
    """The options of the network; the defaults are the paper's full network."""

    encoder: str = "legacy_senet154"
    """timm name of an encoder with five stages at strides 2 to 32."""
    pretrained: bool | str = True
    """ImageNet weights: true downloads timm's, ``package`` reads an installed Python package (extra
    ``weights``, for ``tf_efficientnet_lite0`` to ``2``), a path a file with the encoder's state
    dict, false: none."""
    attention: Literal["eda", "cbam_s", "none"] = "eda"
    """Attention on stage 3 before the USF; ``none`` without USF is the baseline of Table III."""
    usf: bool = True
    """Fuse the five stages into the decoder block at stride 4."""
    auxiliary: bool = True
    """Train with the heads y2 and y3 of Eq. 7; evaluation and exports do not use them."""
    eda_input: Literal["projection", "stage"] = "projection"
    """Project stage 3 to signed features before the pools, or use the stage directly."""
    eda_placement: Literal["side", "inline"] = "side"
    """Use the attended stage 3 in the USF only, or in the decoder's skip connection as well."""
    decoder_width: float = 1.0
    """Scale of the decoder's channels; below 1 for light encoders."""
    usf_width: int = 64
    """Output channels of every Up-block."""
    usf_output: int = 128
    """Channels of the USF's output."""
    rdr_merge: Literal["add", "concat"] = "add"
    """How the RDR merges with its input."""
    auxiliary_source: Literal["decoder", "usf"] = "decoder"
    """Where y3 branches off: the decoder block that uses the USF, or the USF itself."""

    def __post_init__(self) -> None:
        """Check that the options fit together."""
        if self.attention != "none" and not self.usf:
            raise MsfnetError(
                f"attention = {self.attention!r} needs the USF; set usf = true, "
                "or attention = 'none'"
            )
        if not 0 < self.decoder_width <= 4:
            raise MsfnetError(f"decoder_width is {self.decoder_width}; use 0 < decoder_width <= 4")
        if not 2 <= self.usf_width <= MAX_CHANNELS or self.usf_width % 2:
            raise MsfnetError(
                f"usf_width is {self.usf_width}; use an even number from 2 to {MAX_CHANNELS}"
            )
        if not 1 <= self.usf_output <= MAX_CHANNELS:
            raise MsfnetError(f"usf_output is {self.usf_output}; use 1 to {MAX_CHANNELS}")


PRESETS: Mapping[str, NetworkConfig] = MappingProxyType(
    {
        "paper": NetworkConfig(),
        "lite": NetworkConfig(
            encoder="mobilenetv3_large_100", decoder_width=0.25, usf_width=16, usf_output=16
        ),
        "nano": NetworkConfig(
            encoder="mobilenetv3_small_100", decoder_width=0.125, usf_width=16, usf_output=16
        ),
    }
)
"""Networks by name; recipes select one with ``network.preset``.

``lite`` and ``nano`` were chosen by measurement (docs/decisions/0006). Their encoders' convolutions
run near the peak arithmetic rate of a CPU. Their USF and decoder are the narrowest that keep
the REL of wider ones (``lite``) or still give a useful REL (``nano``)."""


class Ablation(NamedTuple):
    """One row of Table III."""

    usf: bool
    """Whether the network has the USF."""
    attention: Literal["eda", "cbam_s", "none"]
    """The attention on stage 3."""
    batch_loss: bool
    """Whether the batch loss of Eq. 4 is used instead of plain L1."""


TABLE_III: Mapping[str, Ablation] = MappingProxyType(
    {
        "baseline": Ablation(usf=False, attention="none", batch_loss=False),
        "usf": Ablation(usf=True, attention="none", batch_loss=False),
        "usf+cbam_s": Ablation(usf=True, attention="cbam_s", batch_loss=False),
        "usf+eda": Ablation(usf=True, attention="eda", batch_loss=False),
        "usf+eda+batch_loss": Ablation(usf=True, attention="eda", batch_loss=True),
    }
)
"""The five rows of the paper's ablation, by name."""


class TrainingOutput(NamedTuple):
    """Output in training mode; every tensor is (N, 1, h, w) in the target's unit."""

    prediction: Tensor
    """Depth or inverse depth as in evaluation mode, at (ceil(H/2), ceil(W/2))."""
    auxiliary: tuple[Tensor, ...]
    """y2 at stride 8 and y3 at stride 4, as far as the network has these heads (Eq. 7)."""


class MSFNet(nn.Module):
    """The network of Fig. 2.

    Maps a normalised image (N, 3, H, W) float32 to the prediction (N, 1, ceil(H/2), ceil(W/2)) in
    the target's unit; in training mode to a :class:`TrainingOutput`.

    Raises:
        MsfnetError: the encoder is unknown or unsuitable, or its weights cannot be loaded.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, channels = make_encoder(config.encoder, config.pretrained)
        self.eda: nn.Module | None = None
        if config.attention != "none":
            self.eda = EnhancedDiverseAttention(
                channels[2],
                projection=config.eda_input == "projection",
                minimum=config.attention == "eda",
            )
        self.usf: UpsampleStageFusion | None = None
        if config.usf:
            self.usf = UpsampleStageFusion(
                channels, config.usf_width, config.usf_output, config.rdr_merge
            )
        self.decoder = Decoder(
            channels, config.decoder_width, config.usf_output if config.usf else 0
        )
        self.auxiliary = AuxiliaryHeads(*self._auxiliary_channels(channels))
        for part in (self.eda, self.usf, self.decoder, self.auxiliary):
            if part is not None:
                initialise(part)

    def _auxiliary_channels(self, channels: tuple[int, ...]) -> tuple[int, int]:
        """Return the input channels of the heads y2 and y3; 0 for a head that does not exist."""
        config = self.config
        y3 = config.usf_output if config.auxiliary_source == "usf" else self.decoder.widths[3]
        return (
            channels[2] if config.auxiliary and self.eda is not None else 0,
            y3 if config.auxiliary and config.usf else 0,
        )

    def forward(self, image: Tensor) -> Tensor | TrainingOutput:
        """Return the prediction; the class states the shapes."""
        stages: list[Tensor] = self.encoder(image)
        attended = self.eda(stages[2]) if self.eda is not None else None
        fused = self._fuse(stages, attended)
        if attended is not None and self.config.eda_placement == "inline":
            stages[2] = attended  # the decoder's skip connection sees the attention too
        prediction: Tensor
        prediction, merged = self.decoder(stages, fused)
        if not self.training:
            return prediction
        y3 = fused if self.config.auxiliary_source == "usf" else merged
        return TrainingOutput(prediction, self.auxiliary(attended, y3))

    def _fuse(self, stages: list[Tensor], attended: Tensor | None) -> Tensor | None:
        if self.usf is None:
            return None
        inputs = [*stages[:2], stages[2] if attended is None else attended, *stages[3:]]
        fused: Tensor = self.usf(inputs, (stages[1].shape[-2], stages[1].shape[-1]))
        return fused


class Decoder(nn.Module):
    """A 1x1 convolution on stage 5, blocks at strides 16, 8, 4 and 2, and a linear 3x3 head.

    Args:
        channels: channels of the five encoder stages.
        width: scale of :data:`DECODER_WIDTHS`; results are rounded to multiples of 8.
        fused_channels: channels of the USF's output, concatenated at stride 4; 0 without USF.
    """

    def __init__(self, channels: tuple[int, ...], width: float, fused_channels: int) -> None:
        super().__init__()
        self.widths = tuple(max(8, round(w * width / 8) * 8) for w in DECODER_WIDTHS)
        self.bottom = nn.Conv2d(channels[4], self.widths[0], 1)
        self.stage4 = DecoderBlock(self.widths[0], channels[3], self.widths[1])
        self.stage3 = DecoderBlock(self.widths[1], channels[2], self.widths[2])
        self.stage2 = DecoderBlock(self.widths[2], channels[1] + fused_channels, self.widths[3])
        self.stage1 = DecoderBlock(self.widths[3], channels[0], self.widths[4])
        self.head = nn.Conv2d(self.widths[4], 1, 3, padding=1)

    def forward(self, stages: list[Tensor], fused: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the prediction (N, 1, h, w) and the output of the block that uses the USF."""
        x = self.stage4(self.bottom(stages[4]), stages[3])
        x = self.stage3(x, stages[2])
        merged = self.stage2(x, *([stages[1]] if fused is None else [stages[1], fused]))
        return self.head(self.stage1(merged, stages[0])), merged


class AuxiliaryHeads(nn.Module):
    """1x1 convolutions that give y2 from EDA and y3 from the USF or the block after it (Eq. 7)."""

    def __init__(self, y2_channels: int, y3_channels: int) -> None:
        super().__init__()
        self.y2 = nn.Conv2d(y2_channels, 1, 1) if y2_channels else None
        self.y3 = nn.Conv2d(y3_channels, 1, 1) if y3_channels else None

    def forward(self, attended: Tensor | None, fused: Tensor | None) -> tuple[Tensor, ...]:
        """Return the predictions of the existing heads, each at its own grid."""
        pairs = ((self.y2, attended), (self.y3, fused))
        return tuple(head(x) for head, x in pairs if head is not None and x is not None)


def make_encoder(name: str, pretrained: bool | str) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a timm encoder that outputs its five stages, and their channels.

    Raises:
        MsfnetError: the name is unknown, the encoder has other stages than five at strides 2 to
            32, or its weights cannot be loaded.
    """
    import timm

    if name not in timm.list_models(include_tags=True) and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else "; see timm.list_models()"
        raise MsfnetError(f"unknown encoder {name!r}{hint}")
    with torch.device("meta"):  # shapes alone: what does not fit reserves no memory
        probe = _create(name, False)
    strides = list(probe.feature_info.reduction())
    if strides != STRIDES:
        raise MsfnetError(
            f"encoder {name} has stages at strides {', '.join(map(str, strides))}; MSFNet needs "
            f"2, 4, 8, 16, 32; {_ADVICE}"
        )
    _check_grids(probe, name)
    encoder = _create(name, pretrained is True)
    if isinstance(pretrained, str):
        load_weights(encoder, name, pretrained)
    return encoder, tuple(map(int, encoder.feature_info.channels()))


def _check_grids(encoder: nn.Module, name: str) -> None:
    """Check that the encoder takes images of every size, its first stage half, rounded up.

    The encoder lies on PyTorch's device for shapes, ``meta``.

    Raises:
        MsfnetError: it does not.
    """
    for height, width in _GRIDS:
        try:
            with torch.no_grad():
                image = torch.zeros(1, 3, height, width, device="meta")
                stages: list[Tensor] = encoder.eval()(image)
            first = stages[0].shape[-2], stages[0].shape[-1]
        except Exception:  # noqa: BLE001 - encoders assert, index and add as they like
            first = 0, 0
        if first != (-(-height // 2), -(-width // 2)):
            raise MsfnetError(
                f"encoder {name} does not take images of every size, {height}x{width} for one (its "
                f"first stage must be half of the image, rounded up); {_ADVICE}"
            )


def _create(name: str, pretrained: bool) -> Any:
    import timm

    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # it logs every retry
    try:
        return timm.create_model(name, features_only=True, pretrained=pretrained)
    except (AttributeError, AssertionError, NotImplementedError, IndexError, KeyError) as error:
        raise MsfnetError(
            f"encoder {name} does not return feature maps ({type(error).__name__}); {_ADVICE}"
        ) from None
    except Exception as error:
        if not pretrained:
            raise
        package = ' to "package",' if name in PACKAGES else ""
        raise MsfnetError(
            f"the ImageNet weights of {name} cannot be downloaded ({type(error).__name__}); set "
            f"network.pretrained{package} to false or to a local file of the encoder's weights"
        ) from None
    finally:
        hub.setLevel(level)
