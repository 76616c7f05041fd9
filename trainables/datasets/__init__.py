"""Data sets: from what a person has on disk to checked train, tune and test splits in COCO format.

In: a `DataConfig`. Out: `Splits`, whose annotation files are complete, checked and written by us. Then
`steps` cuts out what a step sees and `detection` feeds it to mmdet. Importing this package loads neither numpy nor
torch; only `detection` imports torch, mmengine and mmdet.
"""

# No `from __future__ import annotations` here: it would hide the submodule of that name.

from dataclasses import dataclass
from pathlib import Path

from trainables.datasets.splits import Split, Splits
from trainables.errors import DataError
from trainables.files import digest

__all__ = ["KINDS", "DataConfig", "Split", "Splits", "missing", "prepare"]

KINDS = ("digits", "coco", "voc", "custom")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data a sweep runs on.

    Args:
        kind: one of `KINDS`.
        root: coco, voc: the folder of the official layout. custom: the folder that the paths below are relative to.
            digits: where the scenes are kept, by default in the workspace.
        sizes: digits: number of train, tune and test scenes.
        seed: of the digit scenes, and of the part of train that becomes tune.
        num_tune: coco, voc, custom: number of tune images; None: 5000 of COCO, a tenth of train otherwise.
        train_annotations: custom: a COCO-format file, and so on for `test` and, optionally, `tune`.
        train_images: custom: the folder that its file names are relative to, and so on.

    Raises:
        DataError: every option that is unknown, missing or not of this kind.
    """

    kind: str
    root: str | None = None
    sizes: tuple[int, int, int] = (2000, 300, 500)
    seed: int = 0
    num_tune: int | None = None
    train_annotations: str | None = None
    train_images: str | None = None
    tune_annotations: str | None = None
    tune_images: str | None = None
    test_annotations: str | None = None
    test_images: str | None = None

    def __post_init__(self) -> None:
        if problems := self._problems():
            raise DataError("data", problems)

    def split(self, part: str) -> Split | None:
        """The given paths of a custom data set's `part`, or None."""
        files, images = self._paths(part)
        root = Path(self.root or ".")
        return Split(root / files, root / images) if files and images else None

    def _paths(self, part: str) -> tuple[str | None, str | None]:
        return getattr(self, f"{part}_annotations"), getattr(self, f"{part}_images")

    def _problems(self) -> list[str]:
        if self.kind not in KINDS:
            return [f"kind: {self.kind!r} is unknown; available: {', '.join(KINDS)}"]
        problems = []
        if self.kind in ("coco", "voc") and not self.root:
            problems.append(f"root: {self.kind} needs the folder of its official layout")
        if len(self.sizes) != 3 or min(self.sizes) < 1:
            problems.append(f"sizes: three numbers above 0 (train, tune, test) must be given, but got {self.sizes!r}")
        if self.seed < 0:
            problems.append(f"seed: `0 <= seed` must hold, but got {self.seed}")
        if self.num_tune is not None and self.num_tune < 1:
            problems.append(f"num_tune: `1 <= num_tune` must hold, but got {self.num_tune}")
        for part in ("train", "tune", "test"):
            given = [name for name, path in zip(("annotations", "images"), self._paths(part), strict=True) if path]
            if self.kind != "custom":
                problems += [f"{part}_{name}: only custom data have it, but kind is {self.kind}" for name in given]
            elif len(given) == 1 or (not given and part != "tune"):
                problems.append(f"{part}_annotations and {part}_images: custom data need both")
        return problems


def missing(config: DataConfig) -> list[str]:
    """A line for each file or folder that `config` needs and that is not there, by its key; opens no file."""
    root = Path(config.root or ".")
    if config.kind == "digits":
        return []
    if not root.is_dir():
        return [f"root: there is no folder {root}"]
    if config.kind == "voc":
        from trainables.datasets import voc

        return [f"root: {line}" for line in voc.missing(root)]
    if config.kind == "coco":
        from trainables.datasets import coco

        return [f"root: {line}" for split in coco.official(root).values() for _, line in _absent(split)]
    given = {part: split for part in ("train", "tune", "test") if (split := config.split(part))}
    return [f"{part}_{name}: {line}" for part, split in given.items() for name, line in _absent(split)]


def _absent(split: Split) -> list[tuple[str, str]]:
    there = {
        "annotations": ("file", split.annotations, split.annotations.is_file()),
        "images": ("folder", split.images, split.images.is_dir()),
    }
    return [(name, f"there is no {kind} {path}") for name, (kind, path, exists) in there.items() if not exists]


def prepare(config: DataConfig, workspace: Path) -> Splits:
    """The checked splits of `config`.

    What is derived is written to a folder in `workspace`, named by the kind and a digest of the configuration and
    of the source annotations, and is built only once.

    Raises:
        DataError: every fault of all annotation files.
    """
    root = Path(config.root or ".")
    if config.kind == "digits":
        from trainables.datasets import digits

        key = digest({"version": digits.VERSION, "sizes": config.sizes, "seed": config.seed})
        folder = root if config.root else workspace / f"digits-{key}"
        return digits.write(folder, config.sizes, config.seed)
    if config.kind == "coco":
        from trainables.datasets import coco

        return coco.write(root, workspace, 5000 if config.num_tune is None else config.num_tune, config.seed)
    if config.kind == "voc":
        from trainables.datasets import voc

        return voc.write(root, workspace, config.num_tune, config.seed)
    from trainables.datasets.coco import custom

    train, test = config.split("train"), config.split("test")
    assert train is not None
    assert test is not None
    return custom(train, test, workspace, config.split("tune"), config.num_tune, config.seed)
