"""ERD on random forward passes, and again number by number: the formulas of the paper's code."""

from __future__ import annotations

import math

from torch import Tensor

from search_spaces.erd import ERDParams
from tests.trainables.batches import REG_MAX, forward_pass
from tests.trainables.distiller_contract import NUM_CLASSES, NUM_OLD, OLD, learning, truth
from trainables.detectors.forward import Forward
from trainables.distillation.erd import ERD, candidates, responses


def batch(count: int = 2) -> tuple[Forward, Forward]:
    """A student that learns, and its teacher."""
    return learning(forward_pass(count, NUM_CLASSES, 1)), forward_pass(count, NUM_OLD, 2)


def distilled(params: ERDParams, student: Forward, teacher: Forward) -> dict[str, Tensor]:
    """What ERD says of a batch."""
    return ERD(params)(student, teacher, OLD, truth(len(teacher.cls_logits)))


def masks(teacher: Forward, params: ERDParams) -> tuple[Tensor, Tensor]:
    """Where a teacher is listened to for classes and, before NMS, for boxes."""
    return candidates(responses(teacher, params), teacher.level_sizes, params)


def elastic_places(responses: list[float], alpha: float) -> list[int]:
    mean = sum(responses) / len(responses)
    deviation = math.sqrt(sum((r - mean) ** 2 for r in responses) / (len(responses) - 1))
    return [place for place, response in enumerate(responses) if response > mean + alpha * deviation]


def softened(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(logit / temperature) for logit in logits]
    return [power / sum(powers) for power in powers]


def slow_kl(student: list[float], teacher: list[float], temperature: float) -> float:
    p, q = softened(student, temperature), softened(teacher, temperature)
    return temperature**2 * sum(b * (math.log(b) - math.log(a)) for a, b in zip(p, q, strict=True)) / len(p)


def overlap(one: list[float], other: list[float]) -> float:
    width, height = (max(min(one[k + 2], other[k + 2]) - max(one[k], other[k]), 0) for k in (0, 1))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height)


def slow_teacher_box(teacher: Forward, image: int, place: int) -> list[float]:
    edges = teacher.box_logits[image, place].tolist()
    bins = REG_MAX + 1
    distances = [
        sum(j * p for j, p in enumerate(softened(edges[edge * bins : (edge + 1) * bins], 1))) for edge in range(4)
    ]
    (x, y), stride = teacher.centers[place].tolist(), teacher.strides[place].item()
    left, top, right, bottom = (distance * stride for distance in distances)
    return [x - left, y - top, x + right, y + bottom]


def slow_image(student: Forward, teacher: Forward, image: int, params: ERDParams) -> tuple[float, float]:
    """D_cls and D_box of one image."""
    logits = teacher.cls_logits[image].tolist()
    scores = [1 / (1 + math.exp(-max(row))) for row in logits]
    of_student = student.cls_logits[image].tolist()
    chosen = elastic_places(scores, params.alpha_cls)
    pairs = [(of_student[i][c], logits[i][c]) for i in chosen for c in range(NUM_OLD)]
    d_cls = sum((s - t) ** 2 for s, t in pairs) / len(pairs)

    waiting = elastic_places([max(row) for row in teacher.box_logits[image].tolist()], params.alpha_box)
    waiting.sort(key=lambda place: -scores[place])
    kept: list[int] = []
    for place in waiting:
        rivals = [k for k in kept if logits[k].index(max(logits[k])) == logits[place].index(max(logits[place]))]
        box = slow_teacher_box(teacher, image, place)
        if all(overlap(box, slow_teacher_box(teacher, image, rival)) <= params.nms_iou for rival in rivals):
            kept.append(place)
    d_box, bins = 0.0, REG_MAX + 1
    for place in kept:
        weight = max(1 / (1 + math.exp(-logit)) for logit in of_student[place][:NUM_OLD])
        s, t = student.box_logits[image, place].tolist(), teacher.box_logits[image, place].tolist()
        edges = [slice(edge * bins, (edge + 1) * bins) for edge in range(4)]
        d_box += 0.25 * sum(weight * slow_kl(s[edge], t[edge], params.T) for edge in edges) / 4
    return d_cls, d_box
