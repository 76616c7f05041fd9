"""A detector as ONNX, in float32 or int8, and what it costs on one CPU thread. Needs the extra `edge`."""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from mmdet.models import BaseDetector
from mmdet.models.layers import multiclass_nms
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

from trainables.detectors.families import family_of
from trainables.detectors.voting_nms import TYPE as VOTING
from trainables.detectors.voting_nms import voting_nms
from trainables.files import written_whole

OPSET = 18
QUANTISED = "Conv"
"""The operators whose inputs and weights become int8; all else is computed in float32 between them."""
WARM_UPS, RUNS = 5, 50
PROVIDERS = ["CPUExecutionProvider"]
Array = NDArray[Any]


class _Scored(nn.Module):
    """From preprocessed images to scores (B, N, C) and boxes (B, N, 4) in px of the padded, resized input."""

    def __init__(self, detector: BaseDetector) -> None:
        super().__init__()
        self.detector, self._family = detector, family_of(detector)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        output = self._family.forward(self.detector, images)
        return output.scores, output.boxes


def write_onnx(detector: BaseDetector, size: tuple[int, int], meta: Mapping[str, Any], path: Path) -> None:
    """Write preprocessed `images` (1, 3, height, width) -> `scores` (1, N, C), `boxes` (1, N, 4) x1, y1, x2, y2 in px.

    Batch norm is folded into the convolutions. What is left to do is NMS.

    Args:
        size: height and width of the images, in px, with the padding.
        meta: written into the file, by name.
    """
    with _quietly():
        program = torch.onnx.export(
            _Scored(detector).eval(), (torch.zeros(1, 3, *size),), dynamo=True, opset_version=OPSET,
            input_names=["images"], output_names=["scores", "boxes"], verbose=False,
        )  # fmt: skip
    assert program is not None
    _write(program.model_proto, path, meta)


def write_int8(source: Path, images: Iterable[Array], path: Path, without: Sequence[str] = ()) -> None:
    """Write the ONNX file `source` with int8 convolutions, a scale for each channel of their weights.

    Source: post-training static quantisation of onnxruntime, in QDQ form, calibrated by smallest and largest values.

    Args:
        images: (1, 3, height, width) each, preprocessed, to calibrate on.
        without: convolutions that stay as they are, by name.
    """
    meta = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
    with TemporaryDirectory() as folder, _quietly():
        aside = Path(folder, "quantised.onnx")
        quantize_static(
            source, aside, _Calibration(images), quant_format=QuantFormat.QDQ, op_types_to_quantize=[QUANTISED],
            per_channel=True, weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
            nodes_to_exclude=list(without),
        )  # fmt: skip
        model = onnx.load(aside)
    _write(model, path, meta)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Exporters tell of their stages, and of what else could be installed or done first."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _write(model: onnx.ModelProto, path: Path, meta: Mapping[str, Any]) -> None:
    """Write a model without what only its exporter wanted to say: a quarter of an int8 file."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output, model.graph, model):
        del value.metadata_props[:]
    onnx.helper.set_model_props(model, {key: str(value) for key, value in meta.items()})
    with written_whole(path) as aside:
        onnx.save(model, aside)


class _Calibration(CalibrationDataReader):
    def __init__(self, images: Iterable[Array]) -> None:
        self._images: Iterator[Array] = iter(images)

    def get_next(self) -> dict[str, Array] | None:
        """The next input, as onnxruntime asks for it."""
        image = next(self._images, None)
        return None if image is None else {"images": image}


class OnnxDetector:
    """An ONNX file of this module under onnxruntime, on one CPU thread."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=PROVIDERS)

    def __call__(self, images: Array) -> tuple[Array, Array]:
        """Scores (1, N, C) and boxes (1, N, 4)."""
        scores, boxes = self._session.run(None, {"images": images})
        return scores, boxes

    def latency_ms(self, images: Array) -> float:
        """Median time of an image, NMS left out."""
        seconds = [_seconds(lambda: self(images)) for _ in range(WARM_UPS + RUNS)]
        return 1000 * median(seconds[WARM_UPS:])


def _seconds(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def detections(scores: Array, boxes: Array, shape: tuple[int, int], test_cfg: Any) -> InstanceData:
    """What a detector's `test_cfg` makes of the outputs for one image of `shape` (height, width): NMS, best first."""
    inside = HorizontalBoxes(torch.from_numpy(boxes[0]))
    inside.clip_(shape)
    padded = torch.from_numpy(np.pad(scores[0], ((0, 0), (0, 1))))  # mmdet's last column is the background
    if test_cfg.nms.type == VOTING:
        rows, labels = (torch.from_numpy(scores[0]) > test_cfg.score_thr).nonzero().unbind(1)
        constants = {name: value for name, value in test_cfg.nms.items() if name != "type"}
        candidates = torch.from_numpy(scores[0])[rows, labels]
        voted, kept = voting_nms(inside.tensor[rows], candidates, labels, **constants)
        best = kept[: test_cfg.max_per_img]
        return InstanceData(bboxes=voted[: len(best)], scores=candidates[best], labels=labels[best])
    found, labels = multiclass_nms(inside.tensor, padded, test_cfg.score_thr, test_cfg.nms, test_cfg.max_per_img)
    return InstanceData(bboxes=found[:, :4], scores=found[:, 4], labels=labels)


@dataclass(frozen=True)
class Footprint:
    """What an ONNX file needs of memory, in bytes.

    Attributes:
        file: of the whole file.
        weights: of its tensors of weights: int8 where they are quantised, without scales and biases then.
        activations: the most that is alive at once while onnxruntime's nodes run in order, each value in its type.
        in_float: convolutions whose weights are not int8, by name.
    """

    file: int
    weights: int
    activations: int
    in_float: tuple[str, ...]


def footprint(path: Path) -> Footprint:
    """The footprint of a file of this module."""
    model = onnx.load(path)
    tensors = {one.name: one for one in model.graph.initializer}
    quantised = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in model.graph.node if node.op_type == QUANTISED]
    weights = {node.name: tensors[quantised.get(node.input[1], node.input[1])] for node in convolutions}
    is_int8 = {name: tensor.data_type == onnx.TensorProto.INT8 for name, tensor in weights.items()}
    return Footprint(
        file=path.stat().st_size,
        weights=sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in weights.values()),
        activations=_peak(path),
        in_float=tuple(name for name, is_so in is_int8.items() if not is_so),
    )


def _peak(path: Path) -> int:
    """The largest sum of values alive at a node, as onnxruntime runs a file."""
    model = _as_run(path)
    nodes, num_bytes = model.graph.node, _num_bytes(model)
    used = [num_bytes.keys() & set(node.input) for node in nodes]
    last = {name: number for number, names in enumerate(used) for name in names}
    last |= {output.name: len(nodes) for output in model.graph.output}
    alive, peak = {"images"}, 0
    for number, node in enumerate(nodes):
        alive |= num_bytes.keys() & set(node.output)
        peak = max(peak, sum(num_bytes[name] for name in alive))
        alive = {name for name in alive if last.get(name, -1) > number}
    return peak


def _as_run(path: Path) -> onnx.ModelProto:
    """The graph that onnxruntime makes of a file: what it fuses is one node, what it computes in int8 is in int8."""
    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder, "run.onnx"))
        onnxruntime.InferenceSession(path, options, providers=PROVIDERS)
        return onnx.load(options.optimized_model_filepath)


def _num_bytes(model: onnx.ModelProto) -> dict[str, int]:
    """By name the bytes of each value, constants left out, as a run has them."""
    every, options = onnx.ModelProto(), onnxruntime.SessionOptions()
    every.CopyFrom(model)
    values = dict.fromkeys(name for node in model.graph.node for name in node.output if name)
    del every.graph.output[:]
    every.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(every.SerializeToString(), options, providers=PROVIDERS)
    images = np.zeros(session.get_inputs()[0].shape, np.float32)
    found = zip(values, session.run(list(values), {"images": images}), strict=True)
    return {"images": images.nbytes, **{name: array.nbytes for name, array in found}}
