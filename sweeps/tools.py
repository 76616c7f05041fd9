"""What people do with a checkpoint: export its student, and time it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from sweeps.spec import load_specs
from sweeps.tables import TextTable
from sweeps.terminal import console
from trainables.export import export_student, load_exported
from trainables.timing import gpu_there, threads, timed, untrained


def export_checkpoint(checkpoint: Path, folder: Path, detector: str | None, classes: Sequence[str]) -> None:
    """Export, and say what became smaller."""
    path, parameters = export_student(checkpoint, folder, detector, classes)
    before, after = (file.stat().st_size / 1e6 for file in (checkpoint, path))
    click.echo(f"{checkpoint}: {before:.2f} MB")
    click.echo(f"{path}: {after:.2f} MB; {parameters:,} numbers, of which int8 would take a byte each")


def show_speed(
    subject: Path, batch_sizes: tuple[int, ...], batches: int, device: str, mixed: bool, shape: tuple[int, int]
) -> None:
    """A table of latency and throughput of an exported checkpoint, or of a sweep file's detector."""
    if device == "cuda" and not gpu_there():
        raise click.UsageError("--device cuda: torch sees no GPU")
    if mixed and device == "cpu":
        raise click.UsageError("--mixed: acts only with --device cuda")
    if subject.suffix in (".yaml", ".yml"):
        spec = load_specs(subject)[0]
        name, detector = spec.detector, untrained(spec.detector, len(spec.scenario.class_names))
    else:
        name, detector = subject.name, load_exported(subject)
    detector = detector.to(device)
    where = f"{device}, {'mixed precision' if mixed else 'float32'}" + (f", {threads()} threads" * (device == "cpu"))
    title = f"{name}, {shape[0]} x {shape[1]} px, {where}: forward pass and post-processing"
    table = TextTable(title, "batch", "latency ms", "between quartiles", "images/s")
    for batch_size in batch_sizes:
        found = timed(detector, shape, batch_size, batches, mixed)
        table.add(str(batch_size), f"{found.latency_ms:.2f}", f"{found.spread_ms:.2f}", f"{found.images_per_s:.1f}")
    console().print(table)
