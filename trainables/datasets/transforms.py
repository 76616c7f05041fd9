"""Augmentation that mmdet lacks."""

from __future__ import annotations

import numpy as np
from mmcv.transforms.utils import cache_randomness
from mmdet.datasets.transforms import RandomAffine
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class CenteredAffine(RandomAffine):
    """mmdet's, but about the centre of the image; what comes in from outside is black, as in repository
    RangiLyu/nanodet."""

    def __init__(self, scale: tuple[float, float], translate: float) -> None:
        super().__init__(0.0, translate, scale, 0.0, border_val=(0, 0, 0))

    @cache_randomness
    def _get_random_homography_matrix(self, height: int, width: int) -> np.ndarray:
        there = self._get_translation_matrix(width / 2, height / 2)
        back = self._get_translation_matrix(-width / 2, -height / 2)
        return there @ super()._get_random_homography_matrix(height, width) @ back
