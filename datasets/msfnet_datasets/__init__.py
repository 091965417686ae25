"""Frames with ground truth: data sets, their lists and checks, and generated ones."""

from msfnet_datasets.layouts import open_dataset
from msfnet_datasets.sample import Sample, SampleList

__all__ = ["Sample", "SampleList", "open_dataset"]
