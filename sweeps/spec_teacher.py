"""What a scenario of one step needs: a larger detector, or a chain of them, that teaches its student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sweeps.spec_file import JOINT, Teacher, choices
from sweeps.spec_paths import missing_file
from trainables.catalog import DETECTORS, part_config, strides
from trainables.scenarios import Scenario

COMPRESSING = "ld"
ALONE = "finetune"
SAME = ("reg_max", "in_channels", "feat_channels")


def teacher_problems(values: Mapping[str, Any], scenario: Scenario | None, check_files: bool) -> Iterator[str]:
    """What is wrong with the teachers of a sweep file, and with what else it asks for beside them."""
    if not (teachers := values.get("teacher")):
        return
    if scenario and len(scenario.steps) > 1:
        yield f"teacher: acts only in a scenario of one step, but {scenario.name} has {len(scenario.steps)}"
    for number, teacher in enumerate(teachers):
        where = "teacher" if len(teachers) == 1 else f"teacher.{number}"
        yield from _problems_of_one(where, teacher, values.get("detector"), check_files)
        if number and teacher.checkpoint:
            yield f"{where}.checkpoint: needs no teacher before it; of several only the first may have one"
    if methods := [method for method in values.get("method", ()) if method != COMPRESSING]:
        yield f"method: with a teacher it must be {COMPRESSING}, but got {', '.join(methods)}"
    if others := [
        entry for entry in values.get("compare", ()) if entry.partition("/")[0] not in (JOINT, ALONE, COMPRESSING)
    ]:
        allowed = f"{ALONE} (the student alone) or {COMPRESSING}"
        yield f"compare: with a teacher, must be {allowed}, but got {', '.join(others)}"
    if values.get("report_on"):
        yield "report_on: must go: with a teacher, the result is on its classes"


def _problems_of_one(where: str, teacher: Teacher, student: str | None, check_files: bool) -> Iterator[str]:
    path = teacher.checkpoint
    if bool(path) == teacher.train:
        yield f"{where}: either `checkpoint` or `train: true` must be given"
    for key, file in (("checkpoint", path), ("pretrained", teacher.pretrained)):
        if check_files and (problem := missing_file(file)):
            yield f"{where}.{key}: {problem}"
    if path and teacher.pretrained:
        yield f"{where}.pretrained: acts only with `train: true`"
    if teacher.detector not in DETECTORS:
        yield f"{where}.detector: {teacher.detector!r} is unknown; {choices(teacher.detector, DETECTORS)}"
    elif student in DETECTORS and _shape(teacher.detector) != _shape(student):
        fitting = ", ".join(name for name in DETECTORS if _shape(name) == _shape(student))
        must = f"must have the pyramid and head of {student!r}"
        yield f"{where}.detector: {must}, but got {teacher.detector!r}; available: {fitting}"


def _shape(detector: str) -> tuple[Any, ...]:
    head = part_config(detector)
    return (*strides(head), *(head.get(key) for key in SAME))
