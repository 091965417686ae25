"""The network, its losses and its data as Lightning trains and validates them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from msfnet_benchmarks.scoring.constant import ConstantAccumulator, ConstantDepth
from msfnet_benchmarks.scoring.metrics import SHARES, DepthSummary, MetricsAccumulator
from msfnet_benchmarks.scoring.protocols import find_protocol
from msfnet_runtime import MsfnetError
from msfnet_runtime.preprocess import finish
from msfnet_runtime.words import counted
from msfnet_train.blocks import ChannelPooling
from msfnet_train.checkpoint import KEY, describe
from msfnet_train.data import (
    EpochSampler,
    TrainingBatch,
    TrainingPairs,
    ValidationBatch,
    ValidationFrames,
    join_training,
    join_validation,
    start_worker,
)
from msfnet_train.losses import MSFNetLoss
from msfnet_train.network import MSFNet, TrainingOutput
from msfnet_train.recipe import Recipe, TrainerConfig
from msfnet_train.split import Split

Batch = TypeVar("Batch")

LOGGED_METRICS = ("rel", "rmse", "rmse_pooled", "log10", *SHARES)


class ZeroMinimum:
    """Counts the pixels at which the channel minimum of Eq. 2 is exactly 0.

    After a ReLU the minimum is 0 almost everywhere, and EDA computes the same as CBAM-S
    (``[avg ; max]``). After the default projection it is almost never 0.
    """

    def __init__(self) -> None:
        self._zero = self._pixels = 0

    @property
    def share(self) -> float | None:
        """The share of the counted pixels; None if nothing was counted, as without EDA."""
        return self._zero / self._pixels if self._pixels else None

    @contextmanager
    def watch(self, network: MSFNet) -> Iterator[None]:
        """Count in every forward pass of the network inside the ``with`` block."""
        with ExitStack() as handles:
            for part in network.modules():
                if isinstance(part, ChannelPooling) and part.minimum:
                    handles.callback(part.register_forward_pre_hook(self._count).remove)
            yield

    def _count(self, pooling: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        minimum = inputs[0].detach().amin(dim=1)
        self._zero += int((minimum == 0).sum())
        self._pixels += minimum.numel()


class DepthModule(lightning.LightningModule):
    """MSFNet with its losses, its optimiser, and validation under the recipe's protocol.

    Args:
        recipe: everything that decides the run.
        data: fingerprint of the training data; checkpoints carry it.
        pretrained: load the recipe's pretrained encoder weights. Switch it off when a checkpoint
            replaces all weights anyway.
    """

    def __init__(self, recipe: Recipe, data: Mapping[str, Any], *, pretrained: bool = True) -> None:
        super().__init__()
        self.recipe = recipe
        config = recipe.network if pretrained else replace(recipe.network, pretrained=False)
        self.network = MSFNet(config)
        head = self.network.decoder.head
        if recipe.trainer.initial_prediction and head.bias is not None:
            torch.nn.init.constant_(head.bias, recipe.trainer.initial_prediction)
        if recipe.trainer.channels_last:
            self.network.to(memory_format=torch.channels_last)
        if recipe.trainer.compile:
            self.network.compile()  # in place: the names of the weights do not change
        self.loss = MSFNetLoss(recipe.loss)
        self.validation: DepthSummary | None = None
        """Metrics of the last validation."""
        self.constant: ConstantDepth | None = None
        """What the best constant depth scores on the frames of the last validation."""
        self.zero_minimum: float | None = None
        """Share of zero channel minima in EDA in the last validation; None without EDA."""
        self.images_seen = 0
        """Training images that this process has learnt from."""
        self._data = dict(data)
        self._protocol = find_protocol(recipe.data.protocol)
        self._spec = recipe.spec()
        self._metrics, self._constant = MetricsAccumulator(), ConstantAccumulator()
        self._minimum = ZeroMinimum()
        self._watch = ExitStack()

    def on_train_epoch_start(self) -> None:
        """Let what is random in the network, such as dropout, depend on seed, epoch and process."""
        key = (self.recipe.trainer.seed, self.current_epoch, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def training_step(self, batch: TrainingBatch, index: int) -> Tensor:
        """Return the loss of one batch.

        Raises:
            MsfnetError: the loss is not finite; the message names the samples.
        """
        terms = self.terms(batch)
        if not torch.isfinite(terms["loss"]):
            raise MsfnetError(
                f"the loss is {terms['loss'].item()} at step {self.global_step}, on samples "
                f"{', '.join(batch.names)}; check these samples or lower the learning rate"
            )
        self.images_seen += len(batch.names)
        self.log_dict(
            {f"train/{name}": value.detach() for name, value in terms.items()},
            batch_size=len(batch.names),
        )
        return terms["loss"]

    def terms(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Return the weighted terms of Eq. 3 for one batch, and their sum as ``loss``."""
        image = batch.image
        if self.recipe.trainer.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        output = self.network(image)
        assert isinstance(output, TrainingOutput)
        return self.loss(output.prediction, output.auxiliary, batch.target, batch.valid)

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics and start counting zero minima."""
        self._metrics, self._minimum = MetricsAccumulator(), ZeroMinimum()
        self._constant = ConstantAccumulator()
        self._watch.enter_context(self._minimum.watch(self.network))

    def validation_step(self, batch: ValidationBatch, index: int) -> dict[str, Any]:
        """Score every frame as evaluation would score the exported model.

        Every process scores all frames, so that the metrics equal those of a single process. A
        validation set is small beside its training set.

        Returns:
            ``depths``: the batch's depth maps, (H, W) float32 metres each.
        """
        output = self.network(batch.image)
        depths = []
        for prediction, depth in zip(output.float().cpu().numpy(), batch.ground_truth, strict=True):
            size = depth.shape[0], depth.shape[1]
            values, _ = finish(prediction[None], size, self._spec)
            pixels = self._protocol.pixels(prediction=values, ground_truth=depth)
            self._metrics.add(pixels.metrics())
            self._constant.add(pixels.ground_truth)
            depths.append(values)
        return {"depths": depths}

    def on_validation_epoch_end(self) -> None:
        """Log the means over the validation frames."""
        self._watch.close()
        self.validation, self.zero_minimum = self._metrics.summary(), self._minimum.share
        self.constant = self._constant.best()
        self.log_dict({name: getattr(self.validation, name) for name in LOGGED_METRICS})
        if self.zero_minimum is not None:
            self.log("eda_zero_minimum", self.zero_minimum)

    def configure_optimizers(self) -> Any:
        """Return Adam with the recipe's schedule (Sec. IV)."""
        config = self.recipe.optimizer
        adam = torch.optim.Adam(
            self.network.parameters(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler: torch.optim.lr_scheduler.LRScheduler
        if config.schedule == "onecycle":
            scheduler = torch.optim.lr_scheduler.OneCycleLR(
                adam,
                config.learning_rate,
                total_steps=steps,
                pct_start=config.warmup_share,
                cycle_momentum=False,
            )
        elif config.schedule == "step":
            # Counted in steps, not epochs: a checkpoint is written before Lightning advances the
            # schedulers of an epoch, so a resumed run would be one epoch behind.
            period = config.step_epochs * max(1, steps // self.recipe.trainer.epochs)
            scheduler = torch.optim.lr_scheduler.StepLR(adam, period, config.step_factor)
        else:
            return adam
        return {"optimizer": adam, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what makes the file readable without this module."""
        checkpoint[KEY] = describe(self.recipe, self._data)


def check_batch(recipe: Recipe, pairs: int) -> None:
    """Check that no normalisation of the network would see a single value in training.

    Only shapes are computed, for the smallest batch that the run has.

    Args:
        recipe: sets the network, the crop and the batch size.
        pairs: training pairs.

    Raises:
        MsfnetError: a batch or instance norm would have one value per channel.
    """
    config = recipe.trainer
    batch = max(1, min(config.batch_size, pairs // processes(config)))
    if config.sync_batchnorm and torch.cuda.is_available():
        batch *= processes(config)
    with torch.device("meta"), torch.no_grad():
        network = MSFNet(replace(recipe.network, pretrained=False)).train()
        try:
            network(torch.zeros(batch, 3, *recipe.data.crop))
        except ValueError as error:
            if "Expected more than 1" not in str(error):
                raise
            height, width = recipe.data.crop
            raise MsfnetError(
                f"a batch of {counted(batch, 'pair')} with data.crop {height}x{width} leaves a "
                "normalisation of the network one value per channel; use a larger "
                "trainer.batch_size (and as many pairs) or a larger data.crop"
            ) from None


def processes(config: TrainerConfig) -> int:
    """Return in how many processes a run trains."""
    return (config.devices or max(torch.cuda.device_count(), 1)) * config.nodes


class DepthData(lightning.LightningDataModule):
    """Loads the training and validation batches of a run."""

    def __init__(self, split: Split, recipe: Recipe) -> None:
        super().__init__()
        self.split = split
        self.recipe = recipe

    def train_dataloader(self) -> DataLoader[TrainingBatch]:
        """Return augmented batches, in an order that depends on seed and epoch only."""
        trainer, config = self.trainer, self.recipe.trainer
        assert trainer is not None
        sampler = EpochSampler(
            len(self.split.train),
            config.seed,
            lambda: trainer.current_epoch,
            trainer.global_rank,
            trainer.world_size,
        )
        pairs = TrainingPairs(self.split.train, self.recipe)
        return make_loader(pairs, config.batch_size, config, join_training, sampler)

    def val_dataloader(self) -> DataLoader[ValidationBatch]:
        """Return frames as a deployed model sees them, with their ground truth."""
        config, frames = self.recipe.trainer, ValidationFrames(self.split.validation, self.recipe)
        return make_loader(frames, min(config.batch_size, 8), config, join_validation)


class LazyLoader(DataLoader[Batch]):
    """Starts to read when the first batch is asked for.

    Reading processes would ask for the epoch's samples as soon as Lightning makes the iterator,
    which is before it knows from which epoch a resumed run continues.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # PyTorch names its own type
        """Yield the batches."""
        yield from super().__iter__()


def make_loader(
    dataset: Dataset[Batch],
    batch_size: int,
    config: TrainerConfig,
    join: Callable[[Sequence[Batch]], Batch],
    sampler: EpochSampler | None = None,
) -> DataLoader[Batch]:
    """Return batches of a data set, read by the recipe's processes.

    With a sampler, an incomplete last batch is dropped unless it is the only one.
    """
    return LazyLoader(
        dataset,
        batch_size,
        sampler=sampler,
        collate_fn=join,
        drop_last=sampler is not None and len(sampler) >= batch_size,
        num_workers=config.workers,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # its own: starting to read leaves PyTorch's as it is
        pin_memory=torch.cuda.is_available(),
    )
