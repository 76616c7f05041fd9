"""`sweeps demo` and `sweeps debug`: a whole sweep, or one trial in this process."""

from __future__ import annotations

from typing import Any

from sweeps import work
from sweeps.progress import Display
from sweeps.promotion import promote_sweep
from sweeps.runner import run_sweep
from sweeps.show import AP_COLUMNS, points
from sweeps.spec import CONFIGS, SweepSpec, load_spec


def run_demo() -> None:
    """Search and promote the shipped demo sweep, and say how to go on. An interrupted demo is gone on with."""
    spec = load_spec(CONFIGS / "demo.yaml")
    with Display(again="sweeps demo") as display:
        run_sweep(spec, resume=True, display=display)
        promote_sweep(spec, None, display)
        display.say("every trial and step, in MLflow: uv run sweeps ui")


def debug_trial(spec: SweepSpec) -> None:
    """Run trial 0 here and print its events."""
    from trainables.environment import prepare_process

    prepare_process(spec.resources.cpu)
    from trainables.trial import run_trial

    splits = work.prepared(spec)
    run_trial(work.base_config(spec, splits), work.runtime(spec, splits), _print_event)


def _print_event(event: dict[str, Any]) -> None:
    shown = ", ".join(f"{title} {points(event['metrics'].get(key))}" for key, title in AP_COLUMNS.items())
    print(f"step {event['step'] + 1}, progress {event['progress']}: {shown}")
