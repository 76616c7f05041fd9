"""How fast a detector is, from a ready batch to its detections."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median, quantiles

import torch
from mmdet.models import BaseDetector
from mmdet.structures import DetDataSample
from torch import Tensor

from trainables.catalog import DETECTORS
from trainables.detectors.growth import build_detector
from trainables.engine import autocast
from trainables.environment import prepare_process

WARM_UPS = 5


@dataclass(frozen=True)
class Timing:
    """Seconds of each timed batch."""

    batch_size: int
    seconds: list[float]

    @property
    def latency_ms(self) -> float:
        """Median time of a batch."""
        return 1000 * median(self.seconds)

    @property
    def spread_ms(self) -> float:
        """Between the quartiles."""
        low, _, high = quantiles(self.seconds, n=4)
        return 1000 * (high - low)

    @property
    def images_per_s(self) -> float:
        """Images over the sum of all times."""
        return self.batch_size * len(self.seconds) / sum(self.seconds)


def untrained(name: str, num_classes: int) -> BaseDetector:
    """A detector of the catalogue with random weights, as fast as a trained one but for what its NMS finds."""
    prepare_process()
    return build_detector(name, num_classes, DETECTORS[name].recipe).eval()


def gpu_there() -> bool:
    """Whether torch sees a GPU."""
    return torch.cuda.is_available()


def threads() -> int:
    """CPU threads of torch."""
    return torch.get_num_threads()


@torch.no_grad()
def timed(detector: BaseDetector, size: tuple[int, int], batch_size: int, batches: int, mixed: bool = False) -> Timing:
    """Times of forward pass and post-processing of random images, where the detector is; loading is left out.

    Args:
        size: (height, width) in px of the images, as the detector gets them.
        mixed: in mixed precision, on a GPU.
    """
    device = next(detector.parameters()).device
    drawn = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, *size, generator=drawn).to(device)
    samples = [_sample(size) for _ in range(batch_size)]
    seconds = [_one(detector, images, samples, mixed) for _ in range(WARM_UPS + batches)]
    return Timing(batch_size, seconds[WARM_UPS:])


def _one(detector: BaseDetector, images: Tensor, samples: list[DetDataSample], mixed: bool) -> float:
    _synchronise(images.device)
    begin = time.perf_counter()
    with autocast(images.device.type if mixed else "cpu"):
        detector.predict(images, samples, rescale=False)
    _synchronise(images.device)
    return time.perf_counter() - begin


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _sample(size: tuple[int, int]) -> DetDataSample:
    return DetDataSample(metainfo={"img_shape": size, "batch_input_shape": size, "scale_factor": (1.0, 1.0)})
