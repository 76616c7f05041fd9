"""Recipes: how a detector is trained and tested when nothing is searched. Plain data, no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Photometric:
    """How far colours change while training: brightness (of 255) and hue by at most so much, contrast and saturation by
    a factor; each for half of the images."""

    brightness: int = 32
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: int = 18


@dataclass(frozen=True, kw_only=True)
class Affine:
    """How far images are zoomed about their centre and shifted, in shares of their sides, while training."""

    scale: tuple[float, float]
    translate: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Numbers of training and testing.

    `milestones` are fractions of the step's epochs (step schedule); `final_ratio` ends a cosine schedule. `scale` is
    (width, height) in px, kept in ratio or not; None leaves images as they are. `train_scales`, where there are any,
    are drawn from in its place while training. `mean`, `std` are RGB, 0 to 255.
    """

    optimizer: str
    base_lr: float
    batch_ref: int
    batch_size: int
    base_epochs: int
    epochs: int
    schedule: str
    warmup_ratio: float
    milestones: tuple[float, ...] = ()
    final_ratio: float = 0.0
    momentum: float = 0.9
    clip_norm: float | None = None
    scale: tuple[int, int] | None = None
    keep_ratio: bool = True
    train_scales: tuple[tuple[int, int], ...] = ()
    affine: Affine | None = None
    photometric: Photometric | None = None
    flip: float = 0.0
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    pad_divisor: int = 32
    score_thr: float = 0.05
    nms_iou: float = 0.6
    nms_pre: int = 1000
    max_per_img: int = 100

    @property
    def still(self) -> Recipe:
        """The recipe without augmentation."""
        return replace(self, train_scales=(), affine=None, photometric=None, flip=0.0)

    @property
    def drawn_anew(self) -> bool:
        """Whether an image is never seen twice as it was."""
        return bool(self.train_scales or self.affine or self.photometric)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in px of an image after the resize, as mmcv does it."""
        if (scale := self.scale) is None:
            return height, width
        if not self.keep_ratio:
            return scale[1], scale[0]
        factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
        return int(height * factor + 0.5), int(width * factor + 0.5)


def scaled_lr(recipe: Recipe, lr_scale: float, images_per_device: int, devices: int = 1, rule: str = "linear") -> float:
    """`lr_scale * base_lr * (images per device * devices) / reference batch`: the rule of LD, ERD and mmdet.

    Args:
        rule: `none` leaves the batch out of it, as ERD's code of 2022 does.
    """
    if rule == "none":
        return lr_scale * recipe.base_lr
    return lr_scale * recipe.base_lr * images_per_device * devices / recipe.batch_ref


def lr_line(recipe: Recipe, lr_scale: float, images_per_device: int, devices: int = 1, rule: str = "linear") -> str:
    """The rule with its numbers: users of the released codes have often forgotten to apply it."""
    lr = scaled_lr(recipe, lr_scale, images_per_device, devices, rule)
    if rule == "none":
        return f"learning rate {lr:g} = lr_scale {lr_scale:g} x {recipe.base_lr:g}, whatever the batch (lr_rule: none)"
    batch = f"{images_per_device} images x {devices} device{'s' * (devices > 1)} / {recipe.batch_ref}"
    return f"learning rate {lr:g} = lr_scale {lr_scale:g} x {recipe.base_lr:g} x ({batch})"


GFL_1X = Recipe(
    optimizer="SGD",
    base_lr=0.01,
    batch_ref=16,
    batch_size=16,
    base_epochs=12,
    epochs=12,
    schedule="step",
    warmup_ratio=0.001,
    milestones=(8 / 12, 11 / 12),
    scale=(1333, 800),
    flip=0.5,
)

TINY = Recipe(
    optimizer="AdamW",
    base_lr=4e-3,
    batch_ref=16,
    batch_size=16,
    base_epochs=10,
    epochs=5,
    schedule="cosine",
    warmup_ratio=0.05,
    final_ratio=0.01,
    clip_norm=10.0,
    mean=(127.5, 127.5, 127.5),
    std=(64.0, 64.0, 64.0),
)

YOLOY = replace(
    GFL_1X,
    base_lr=0.02,
    batch_ref=64,
    scale=(640, 640),
    train_scales=tuple((side, side) for side in range(416, 641, 32)),
    photometric=Photometric(),
    score_thr=0.01,
    nms_iou=0.65,
)
"""Of repository zhjpqq/ILYOLOX."""

YOLOY_TINY = replace(TINY, score_thr=0.01, nms_iou=0.65)

NANODET = Recipe(
    optimizer="AdamW",
    base_lr=1e-3,
    batch_ref=32,
    batch_size=32,
    base_epochs=100,
    epochs=100,
    schedule="cosine",
    warmup_ratio=1e-4,
    final_ratio=0.05,
    clip_norm=35.0,
    scale=(320, 320),
    keep_ratio=False,
    affine=Affine(scale=(0.6, 1.4), translate=0.2),
    photometric=Photometric(brightness=51, contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=0),
    flip=0.5,
)
"""Of repository pastifra/Continual_Nanodet."""

NANODET_TINY = replace(TINY, base_lr=1.6e-2)
