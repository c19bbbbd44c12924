"""The choices of how to compute, which `flowkit.model.Execution` and the command line offer."""

from typing import Literal

Precision = Literal["float32", "tf32", "bf16", "fp16"]
CropOn = Literal["auto", "host", "device"]
