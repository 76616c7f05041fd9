"""Digit scenes: a small detection data set composed of scikit-learn's 1,797 real handwritten digits.

A scene has 128 x 128 pixels: a colour gradient with low-frequency noise, 2 to 5 clutter strokes, 1 to 5 digits and
pixel noise. The source digits of train, tune and test are disjoint: 60, 15 and 25 percent of each class, so that
a detector is scored on handwriting that it has never seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from trainables.datasets.annotations import write as write_annotations
from trainables.datasets.splits import PARTS, Splits, built_once
from trainables.errors import DataError
from trainables.scenarios import DIGITS

VERSION = 1  # raise it whenever the scenes of a seed change
SIDE = 128
MAX_DIGITS = 5
MIN_SIZE, MAX_SIZE = 16, 56
TRAIN_SHARE, TUNE_SHARE = 0.60, 0.15
MIN_CONTRAST = 70.0
VISIBLE = 0.3  # share of ink from which a pixel belongs to the digit
MAX_OVERLAP = 0.1
PLACE_TRIES = 40
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / (SIDE - 1) - 0.5

FloatArray = NDArray[np.float32]
Box = tuple[int, int, int, int]  # x, y, width, height in whole pixels


@dataclass(frozen=True)
class Scene:
    """One picture: `image` (128, 128, 3) uint8 RGB; `owner` (128, 128) holds the digit that a pixel shows, or -1.

    `sources` are rows of scikit-learn's digits, one a digit; `boxes` bound the visible ink.
    """

    image: NDArray[np.uint8]
    owner: NDArray[np.int8]
    sources: list[int]
    boxes: list[Box]


def write(root: Path, sizes: tuple[int, int, int] = (2000, 300, 500), seed: int = 0) -> Splits:
    """The splits of digit scenes in `root`: `{train,tune,test}/000001.png` and `annotations/{train,tune,test}.json`.

    The same seed gives the same bytes; a smaller set is the beginning of a larger one. An existing complete folder is
    reused.

    Args:
        root: a new folder, or one that was completed with the same arguments.
        sizes: number of train, tune and test scenes.

    Raises:
        DataError: a size below 1, or a folder that holds something else.
    """
    if wrong := [
        f"`1 <= {part}` must hold, but got {size}" for part, size in zip(PARTS, sizes, strict=True) if size < 1
    ]:
        raise DataError("digits sizes", wrong)
    recipe = {"kind": "digits", "version": VERSION, "sizes": list(sizes), "seed": seed}
    return built_once(root, recipe, partial(_build, sizes=sizes, seed=seed))


def source_digits(seed: int) -> dict[str, list[NDArray[np.intp]]]:
    """For each split, the rows of scikit-learn's digits that it may use, one array a class; disjoint."""
    rng = np.random.Generator(np.random.PCG64([seed, 0]))
    pools: dict[str, list[NDArray[np.intp]]] = {part: [] for part in PARTS}
    target = load_digits().target
    for label in range(len(DIGITS)):
        rows = rng.permutation(np.flatnonzero(target == label))
        cuts = [round(len(rows) * TRAIN_SHARE), round(len(rows) * (TRAIN_SHARE + TUNE_SHARE))]
        for part, pool in zip(PARTS, np.split(rows, cuts), strict=True):
            pools[part].append(pool)
    return pools


def draw_scene(rng: np.random.Generator, pool: list[NDArray[np.intp]], ink: FloatArray) -> Scene:
    """A scene with digits of `pool`.

    Args:
        rng: all randomness.
        pool: for each class, rows of `ink`.
        ink: (n, 8, 8), 0 for paper to 1 for full ink.
    """
    canvas = _background(rng).astype(np.float32)
    owner = np.full((SIDE, SIDE), -1, dtype=np.int8)
    sources: list[int] = []
    taken: list[Box] = []
    for _ in range(rng.integers(1, MAX_DIGITS + 1)):
        rows = pool[rng.integers(len(pool))]
        row = int(rows[rng.integers(len(rows))])
        if (place := _place(rng, ink[row], taken)) is None:
            continue
        alpha, x, y, box = place
        window = np.s_[y : y + len(alpha), x : x + len(alpha)]
        colour = _contrasting(rng, canvas[box[1] : box[1] + box[3], box[0] : box[0] + box[2]])
        canvas[window] += (colour - canvas[window]) * alpha[..., None]
        owner[window][alpha > VISIBLE] = len(sources)
        sources.append(row)
        taken.append(box)
    canvas += rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(rng.uniform(3, 10))
    image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return Scene(image, owner, sources, [_bounds(owner == index) for index in range(len(sources))])


def _build(folder: Path, sizes: tuple[int, int, int], seed: int) -> tuple[Mapping[str, Path], tuple[str, ...]]:
    digits = load_digits()
    ink = (digits.images / 16).astype(np.float32)
    pools = source_digits(seed)
    for number, (part, size) in enumerate(zip(PARTS, sizes, strict=True), start=1):
        rng = np.random.Generator(np.random.PCG64([seed, number]))
        (folder / part).mkdir()
        images: list[dict[str, Any]] = []
        boxes: list[dict[str, Any]] = []
        for image_id in range(1, size + 1):
            scene = draw_scene(rng, pools[part], ink)
            name = f"{image_id:06d}.png"
            (folder / part / name).write_bytes(_png(scene.image))
            images.append({"id": image_id, "file_name": name, "width": SIDE, "height": SIDE})
            for row, box in zip(scene.sources, scene.boxes, strict=True):
                boxes.append(_annotation(len(boxes) + 1, image_id, int(digits.target[row]), row, box))
        coco = {
            "info": {"description": f"Palimpsest digit scenes, version {VERSION}, seed {seed}, {part}"},
            "images": images,
            "annotations": boxes,
            "categories": [{"id": label + 1, "name": name} for label, name in enumerate(DIGITS)],
        }
        write_annotations(folder / "annotations" / f"{part}.json", coco)
    return {part: Path(part) for part in PARTS}, DIGITS


def _annotation(annotation_id: int, image_id: int, label: int, row: int, box: Box) -> dict[str, Any]:
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": label + 1,
        "bbox": list(box),
        "area": box[2] * box[3],
        "iscrowd": 0,
        "source": row,
    }


def _png(image: NDArray[np.uint8]) -> bytes:
    # Noise hardly compresses: level 1 would save a quarter of the bytes, and triple the time to decode them.
    done, data = cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 0])
    assert done
    return data.tobytes()


def _background(rng: np.random.Generator) -> NDArray[np.uint8]:
    start, end = rng.uniform(30, 225, (2, 3)).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.float32(np.cos(angle)) * _X + np.float32(np.sin(angle)) * _Y + np.float32(0.5)
    cells = int(rng.integers(4, 10))
    noise = rng.normal(0, rng.uniform(5, 18), (cells, cells, 3)).astype(np.float32)
    canvas = start + (end - start) * ramp[..., None] + cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    picture = np.clip(canvas, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(2, 6)):
        points = rng.integers(0, SIDE, 2) + np.cumsum(rng.integers(-30, 31, (3, 2)), axis=0)
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        line = points.astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(picture, [line], False, colour, int(rng.integers(1, 4)), cv2.LINE_AA)
    return picture


def _place(rng: np.random.Generator, ink: FloatArray, taken: list[Box]) -> tuple[FloatArray, int, int, Box] | None:
    """The digit at a random size, its window's corner and its box, or None if the scene is full."""
    for _ in range(PLACE_TRIES):
        size = round(float(np.exp(rng.uniform(np.log(MIN_SIZE), np.log(MAX_SIZE)))))
        alpha: FloatArray = np.clip(
            cv2.resize(ink, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1, dtype=np.float32
        )
        x, y = (int(value) for value in rng.integers(0, SIDE - size + 1, 2))
        left, top, width, height = _bounds(alpha > VISIBLE)
        box = (x + left, y + top, width, height)
        if all(_overlap(box, other) <= MAX_OVERLAP for other in taken):
            return alpha, x, y, box
    return None


def _contrasting(rng: np.random.Generator, surroundings: FloatArray) -> FloatArray:
    """A random colour whose luminance differs by more than `MIN_CONTRAST` from that of the surroundings."""
    luminance = float(surroundings.mean(axis=(0, 1)) @ LUMINANCE)
    colours = rng.uniform(0, 255, (64, 3)).astype(np.float32)
    far = np.flatnonzero(np.abs(colours @ LUMINANCE - luminance) > MIN_CONTRAST)
    if len(far):
        return colours[far[0]]
    return np.full(3, 255.0 if luminance < 128 else 0.0, dtype=np.float32)


def _bounds(mask: NDArray[np.bool_]) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)


def _overlap(one: Box, other: Box) -> float:
    """The shared area as a share of the smaller box."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0) / min(one[2] * one[3], other[2] * other[3])
