"""`sweeps export --format onnx`: a checkpoint for the edge, beside what it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from sweeps import work
from sweeps.spec import load_specs
from sweeps.tables import TextTable
from sweeps.terminal import console, say
from trainables.catalog import DETECTORS
from trainables.complexity import complexity
from trainables.edge_score import EdgeExport, Form
from trainables.export import export_student, load_exported


def export_edge(
    checkpoint: Path, folder: Path, detector: str | None, classes: Sequence[str], data: Path, int8: bool
) -> None:
    """Write the ONNX file, and say what it is and what it lost.

    Args:
        data: sweep file.
    """
    spec, out = load_specs(data)[0], console()
    splits = work.prepared(spec)
    with TemporaryDirectory() as temporary:
        exported, _ = export_student(checkpoint, Path(temporary), detector, classes)
        student = load_exported(exported)
        edge = EdgeExport(student, DETECTORS[student.dataset_meta["detector"]].recipe, splits.train, splits.test)
        forms = {"as trained": edge.as_trained()}
        folder.mkdir(parents=True, exist_ok=True)
        whole = (Path(temporary) if int8 else folder) / f"{exported.stem}.onnx"
        edge.write(whole)
        forms["ONNX"] = edge.scored(whole)
        if int8:
            path = folder / f"{exported.stem}-int8.onnx"
            edge.write_int8(whole, path)
            forms["ONNX, int8"] = edge.scored(path)
    height, width = edge.size
    out.print(_table(f"{exported.stem}, {height} x {width} px, {spec.data.kind} test split", forms))
    title = "Multiply-accumulates of one image; behind a frozen backbone, it is shared"
    parts = TextTable(title, "part", "parameters", "MMAC", words=("part",))
    for name, part in complexity(student, edge.size).items():
        parts.add(name, f"{part.params:,}", f"{part.macs / 1e6:.1f}")
    out.print(parts)
    say(out, f"{path if int8 else whole}")
    last = forms["ONNX, int8" if int8 else "ONNX"].footprint
    if int8 and last and last.in_float:
        say(out, f"in float32 still: {', '.join(last.in_float)}")


def _table(title: str, forms: dict[str, Form]) -> TextTable:
    columns = ("", "AP", "file MB", "weights MB", "activations MB", "ms")
    table = TextTable(f"{title}: AP in COCO points; one CPU thread, without NMS", *columns, words=("",))
    for name, form in forms.items():
        needs = form.footprint
        sizes = (
            [f"{value / 1e6:.2f}" for value in (needs.file, needs.weights, needs.activations)] if needs else [""] * 3
        )
        latency = f"{form.latency_ms:.1f}" if form.latency_ms is not None else ""
        table.add(name, f"{100 * form.ap:.1f}", *sizes, latency)
    return table
