"""Does EDA see what Eq. 2 means it to see? Counts where the channel minimum is exactly 0."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from msfnet_train.blocks import ChannelPooling
from msfnet_train.network import MSFNet


class ZeroMinimum:
    """Counts the pixels at which the minimum over the channels is 0, where EDA takes it.

    Behind a ReLU that is nearly everywhere; Eq. 2 is then CBAM-S (``[avg ; max]``) under another
    name. Behind the default projection it is nearly nowhere.
    """

    def __init__(self) -> None:
        self._zero = 0
        self._pixels = 0

    @property
    def share(self) -> float | None:
        """The share of the pixels seen so far; None before any, or without EDA."""
        return self._zero / self._pixels if self._pixels else None

    @contextmanager
    def watch(self, network: MSFNet) -> Iterator[None]:
        """Count every forward pass of the network inside the block."""
        handles = [
            part.register_forward_pre_hook(self._count)
            for part in network.modules()
            if isinstance(part, ChannelPooling) and part.minimum
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _count(self, pooling: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        minimum = inputs[0].detach().amin(dim=1)
        self._zero += int((minimum == 0).sum())
        self._pixels += minimum.numel()


def minimum_sentence(share: float) -> str:
    """Return what a share of zero minima means, in one line."""
    found = f"EDA: the channel minimum is 0 at {share:.1%} of the pixels"
    if share < 0.5:
        return found
    return f'{found}, so it acts as CBAM-S; network.eda_input = "projection" gives it signs'
