"""Trains MSFNet: network, losses, data, recipes and checkpoints."""

from msfnet_runtime.threads import sleep_while_waiting

sleep_while_waiting()  # before the next lines import torch

from msfnet_train.checkpoint import Checkpoint, load_checkpoint  # noqa: E402
from msfnet_train.network import TABLE_III, MSFNet, NetworkConfig  # noqa: E402

__all__ = ["TABLE_III", "Checkpoint", "MSFNet", "NetworkConfig", "load_checkpoint"]
