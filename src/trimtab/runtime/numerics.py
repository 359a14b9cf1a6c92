"""Whatever decides how floating-point sums are ordered on this machine, besides what a recipe sets."""

from __future__ import annotations

import os
from typing import Any

import torch


def fingerprint(device: torch.device) -> dict[str, Any]:
    """JSON-able; two starts with the same fingerprint, inputs and settings compute the same bits."""
    made_of: dict[str, Any] = {
        "torch": torch.__version__,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "mkldnn": torch.backends.mkldnn.enabled,
        "onednn_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
    }
    if device.type == "cuda":
        made_of["gpu"] = torch.cuda.get_device_name(device)
    return made_of
