"""The losses of Sec. III-D, each averaged over the valid pixels only.

Every function takes ``prediction`` and ``target`` as (N, 1, H, W) floating tensors in the
target's unit and ``valid`` as (N, 1, H, W) bool, computes in float32 even under autocast, and
returns a scalar. An image without a valid pixel is an error that names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, distributed
from torch.nn import functional

from msfnet_runtime import MsfnetError

Weighting = Literal["sample", "pixel"]

SSIM_WINDOW = 11
"""Side of SSIM's Gaussian window, pixels."""
SSIM_SIGMA = 1.5
"""Standard deviation of SSIM's Gaussian window, pixels."""


@dataclass(frozen=True)
class LossConfig:
    """The weights and switches of Eq. 3; the defaults are the paper's for NYU."""

    batch_weight: float = 0.1
    """Weight of the batch loss, lambda in Eq. 3."""
    auxiliary_weight: float = 0.1
    """Weight of the auxiliary loss, mu in Eq. 3."""
    batch: bool = True
    """Use the batch loss; plain L1 replaces it in the first four rows of Table III."""
    weighting: Weighting = "sample"
    """Softmax of Eq. 4 over the images of the batch (``sample``, as the paper's text says) or over
    the pixels of each image (``pixel``, as its formula says)."""
    ssim: bool = True
    """Use SSIM; sparse targets have no complete windows for it."""
    dynamic_range: float = 100.0
    """L of SSIM, the range of the target: 100 for NYU's inverse depth, 80 for KITTI's metres."""

    def __post_init__(self) -> None:
        """Check that no weight would reward errors."""
        if min(self.batch_weight, self.auxiliary_weight) < 0 or self.dynamic_range <= 0:
            raise MsfnetError(
                "loss.batch_weight and auxiliary_weight must be 0 or more, dynamic_range positive"
            )


class MSFNetLoss:
    """Eq. 3: ``lambda L_batch + L_grad + L_SSIM + mu L_aux``."""

    def __init__(self, config: LossConfig) -> None:
        self.config = config

    def __call__(
        self,
        prediction: Tensor,
        auxiliary: tuple[Tensor, ...],
        target: Tensor,
        valid: Tensor,
    ) -> dict[str, Tensor]:
        """Return every term, weighted as in Eq. 3, and their sum as ``loss``."""
        config = self.config
        if config.batch:
            main = batch_loss(prediction, target, valid, weighting=config.weighting)
        else:
            main = l1_loss(prediction, target, valid)
        terms = {
            "batch": config.batch_weight * main,
            "gradient": gradient_loss(prediction, target, valid),
        }
        if config.ssim:
            terms["ssim"] = ssim_loss(prediction, target, valid, config.dynamic_range)
        if auxiliary:
            terms["auxiliary"] = config.auxiliary_weight * auxiliary_loss(auxiliary, target, valid)
        return {**terms, "loss": torch.stack(list(terms.values())).sum()}


def l1_loss(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over the batch of each image's mean absolute error."""
    return image_errors(prediction, target, valid).mean()


def batch_loss(
    prediction: Tensor, target: Tensor, valid: Tensor, weighting: Weighting = "sample"
) -> Tensor:
    """Return the batch loss of Eq. 4, which gives hard samples a larger weight, plus plain L1.

    ``sample``: ``sum_b w_b l_b + mean_b l_b``, where l_b is the mean absolute error of image b
    and w the softmax of all l over the **global** batch, gathered from all processes.
    ``pixel``: the formula as printed, ``mean_b (1/n_b) sum_i w_i |e_i| + mean_b l_b``, where w is
    the softmax over the valid pixels of image b. No gradient flows through the weights.
    """
    errors = image_errors(prediction, target, valid)
    if weighting == "sample":
        # DDP divides the summed gradients by the number of processes; the factor undoes that.
        weighted = (_global_softmax(errors.detach()) * errors).sum() * _world_size()
        return weighted + errors.mean()
    error, mask = _difference(prediction, target, valid).abs().flatten(1), valid.flatten(1)
    weights = torch.softmax(error.detach().masked_fill(~mask, -torch.inf), dim=1)
    return ((weights * error).sum(1) / mask.sum(1)).mean() + errors.mean()


def _global_softmax(errors: Tensor) -> Tensor:
    """Return this process's part of the softmax over the images of all processes: (N,).

    ``torch.softmax`` subtracts the maximum; ``exp`` of an error of 100 would overflow float32.
    """
    if _world_size() == 1:
        return torch.softmax(errors, dim=0)
    gathered = [torch.empty_like(errors) for _ in range(_world_size())]
    distributed.all_gather(gathered, errors)
    start = distributed.get_rank() * len(errors)
    return torch.softmax(torch.cat(gathered), dim=0)[start : start + len(errors)]


def _world_size() -> int:
    """Return the number of processes that train together."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def gradient_loss(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return Eq. 5: the mean difference of the gradients in x and y where both pixels are valid.

    An image without two valid neighbours (sparse LiDAR) adds nothing.
    """
    difference = _difference(prediction, target, valid)
    loss = difference.new_zeros(())
    for dim in (-1, -2):
        size = difference.shape[dim]
        both = valid.narrow(dim, 1, size - 1) & valid.narrow(dim, 0, size - 1)
        loss = loss + _masked_mean(difference.diff(dim=dim).abs(), both)
    return loss


def ssim_loss(prediction: Tensor, target: Tensor, valid: Tensor, dynamic_range: float) -> Tensor:
    """Return Eq. 6: the mean of ``(1 - SSIM) / 2`` over windows with valid pixels only.

    Source: Wang et al. 2004, with Gaussian windows of 11x11 pixels and sigma 1.5, C1 = (0.01 L)^2
    and C2 = (0.03 L)^2. The loss is 0 if the batch has no such window.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        x, y = prediction.float(), target.float().masked_fill(~valid, 0.0)
        x = x.masked_fill(~valid, 0.0)
        # Local variance and covariance from E[xx] - E[x]^2 and E[xy] - E[x] E[y].
        moments = _window_means(torch.cat([x, y, x * x, y * y, x * y], dim=1))
        mean_x, mean_y, square_x, square_y, product = moments.chunk(5, dim=1)
        var_x, var_y = square_x - mean_x**2, square_y - mean_y**2
        covariance = product - mean_x * mean_y
        c1, c2 = (0.01 * dynamic_range) ** 2, (0.03 * dynamic_range) ** 2
        ssim = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
            (mean_x**2 + mean_y**2 + c1) * (var_x.clamp_min(0) + var_y.clamp_min(0) + c2)
        )
        # A window is complete if the minimum of its mask, a negated maximum, is 1.
        complete = -functional.max_pool2d(-valid.float(), SSIM_WINDOW, stride=1) > 0
        return _masked_mean((1 - ssim) / 2, complete)


def _window_means(images: Tensor) -> Tensor:
    """Return the Gaussian means of (N, C, H, W) over every window, by two 1-D convolutions."""
    channels = images.shape[1]
    offset = torch.arange(SSIM_WINDOW, dtype=torch.float32, device=images.device)
    line = torch.exp(-((offset - (SSIM_WINDOW - 1) / 2) ** 2) / (2 * SSIM_SIGMA**2))
    line = (line / line.sum()).expand(channels, 1, 1, -1)
    rows = functional.conv2d(images, line, groups=channels)
    return functional.conv2d(rows, line.transpose(-1, -2), groups=channels)


def auxiliary_loss(auxiliary: tuple[Tensor, ...], target: Tensor, valid: Tensor) -> Tensor:
    """Return Eq. 7: the sum of the L1 losses of y2 and y3, resized bilinearly to the target."""
    size = target.shape[-2:]
    resized = [
        functional.interpolate(y.float(), size=size, mode="bilinear", align_corners=False)
        for y in auxiliary
    ]
    return torch.stack([l1_loss(y, target, valid) for y in resized]).sum()


def image_errors(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return every image's mean absolute error over its valid pixels: (N,) float32.

    Raises:
        MsfnetError: an image has no valid pixel.
    """
    error = _difference(prediction, target, valid).abs()
    count = valid.sum(dim=(1, 2, 3))
    if not bool(count.all()):
        empty = ", ".join(str(i) for i in (count == 0).nonzero().flatten().tolist())
        raise MsfnetError(f"no valid depth in image(s) {empty} of the batch; check the data set")
    return error.sum(dim=(1, 2, 3)) / count


def _difference(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return prediction minus target in float32, 0 where invalid, even if the target is NaN."""
    return (prediction.float() - target.float()).masked_fill(~valid, 0.0)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the mask of the global batch; 0 if the mask is empty.

    With several processes, each divides its own sum by the mean of all counts. DDP averages the
    gradients over the processes, which gives those of one process with the global batch.
    """
    count = mask.sum()
    if _world_size() > 1:
        distributed.all_reduce(count)
    return values.masked_fill(~mask, 0.0).sum() * _world_size() / count.clamp_min(1)
