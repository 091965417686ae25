"""Trains MSFNet: network, losses, data, recipes and checkpoints."""

from msfnet_train.checkpoint import Checkpoint, load_checkpoint
from msfnet_train.network import TABLE_III, MSFNet, NetworkConfig

__all__ = ["TABLE_III", "Checkpoint", "MSFNet", "NetworkConfig", "load_checkpoint"]
