"""Pictures for the small data sets that the tests write."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainables.datasets.files import pets, write_image


@pytest.fixture
def pets_images(tmp_path: Path) -> Path:
    """The image folder of `pets`."""
    folder = tmp_path / "pets"
    for image in pets()["images"]:
        write_image(folder / image["file_name"])
    return folder
