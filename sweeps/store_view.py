"""What is in a store, in words and sizes, and what pruning took from it."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.progress import duration
from sweeps.spec import storage_folder
from sweeps.spec_file import choices
from sweeps.tables import TextTable
from sweeps.terminal import console, say
from trainables.errors import SpecError, masked
from trainables.scenarios import CLASS_NAMES
from trainables.store import DAY_S, Store
from trainables.store_contents import Entry, entries
from trainables.store_pruning import prune

COLUMNS = ("kind", "what", "entries", "size", "age", "last used")


def store_root(storage: Path | None, store: str | None) -> Path | str:
    """The root of the store that the options name: the store itself, or the one in a sweep's storage."""
    if store is not None:
        return store
    return storage_folder(storage) / "store"


def show_store(root: Path | str, kind: str | None = None) -> None:
    """Print the entries of a store, those that are the same in words in one row.

    Args:
        kind: of the entries; all by default.

    Raises:
        SpecError: there is no such folder or kind, or the URL cannot be used.
    """
    found = [entry for entry in entries(_store(root, kind)) if kind in (None, entry.kind)]
    console().print(_table(str(root), found))


def prune_store(root: Path | str, days: float, kind: str | None = None) -> None:
    """Remove the entries not used for `days`, and what killed builders left; print what was removed.

    Args:
        kind: of entries and leftovers; all by default.

    Raises:
        SpecError: there is no such folder or kind, or the URL cannot be used.
    """
    pruned, out = prune(_store(root, kind), days, kind), console()
    if pruned.entries:
        out.print(_table(f"removed from {root}", pruned.entries))
    lines = [f"removed {counted(len(pruned.entries), 'entry', 'entries')}, {size_text(_size(pruned.entries))}"]
    if pruned.leftovers:
        of = Counter(path.partition("/")[0] for path in pruned.leftovers)
        lines.append(
            f"removed {counted(of.total(), 'leftover', 'leftovers')} of killed builders, "
            f"{size_text(sum(pruned.leftovers.values()))}: {', '.join(f'{n} in {name}' for name, n in of.items())}"
        )
    if pruned.locked:
        lines.append(f"{counted(pruned.locked, 'entry', 'entries')} stayed: locked by a builder")
    say(out, "\n".join(lines))


def _store(root: Path | str, kind: str | None) -> Store:
    if kind is not None and kind not in DESCRIPTIONS:
        raise SpecError("--kind", [f"{kind!r} is unknown; {choices(kind, DESCRIPTIONS)}"])
    store = Store(root)
    if store.remote is None and not store.root.is_dir():
        raise SpecError(
            str(root), ["there is no such store; name it with --store, or a sweep's storage with --storage"]
        )
    return store


def _table(title: str, found: Sequence[Entry]) -> TextTable:
    title = f"{masked(title)}: {counted(len(found), 'entry', 'entries')}, {size_text(_size(found))}"
    table = TextTable(title, *COLUMNS, words=("kind", "what"), wrapped=("kind", "what"))
    alike: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in found:
        alike[entry.kind, description(entry)].append(entry)
    now = time.time()
    for (kind, what), own in sorted(alike.items()):
        built, used = min(entry.built for entry in own), max(entry.used for entry in own)
        table.add(kind, what, str(len(own)), size_text(_size(own)), _age(now - built), _age(now - used))
    return table


def description(entry: Entry) -> str:
    """What an entry is, in words; of an unknown kind the plain values of its identity."""
    identity = entry.identity
    try:
        words = DESCRIPTIONS[entry.kind](identity)
    except (KeyError, TypeError, ValueError):
        plain = [f"{key} {value}" for key, value in identity.items() if isinstance(value, str | int | float)]
        words = ", ".join(plain)[:100] or entry.name
    return str(words) if entry.whole else f"damaged: {words}"


def _step(identity: Mapping[str, Any]) -> str:
    classes = identity["classes"]
    where = f"step {len(classes)} of {_scenario(classes)}, {identity['detector']}"
    if "method" not in identity:
        epochs, seed = identity["base"]
        return f"{where}, {epochs} epochs, seed {seed}"
    return f"{where}, {identity['method']}, {identity['epochs']} epochs, seed {identity['seed']}"


def _scenario(classes: Sequence[Sequence[str]]) -> str:
    sizes, names = "+".join(str(len(step)) for step in classes), [name for step in classes for name in step]
    families = [family for family, known in CLASS_NAMES.items() if set(names) <= set(known)]
    return f"{families[0]} {sizes}" if families else f"{sizes} classes ({', '.join(names[:3])}, ...)"


def _score(identity: Mapping[str, Any]) -> str:
    return f"{_step(identity['step'])}; on annotations {identity['annotations'][:8]}"


def _images(identity: Mapping[str, Any]) -> str:
    scale = f"{'x'.join(map(str, identity['scale']))} px" if identity["scale"] else "as they are"
    return f"annotations {identity['annotations'][:8]}, {scale}"


def _targets(identity: Mapping[str, Any]) -> str:
    return f"{_scenario([identity['learnt']])}, {identity['detector']}"


def _responses(identity: Mapping[str, Any]) -> str:
    return f"to {_scenario([identity['learnt']])} of {_step(identity['teacher'])}"


def _latents(identity: Mapping[str, Any]) -> str:
    return f"of {_scenario([identity['learnt']])} by {_step(identity['backbone'])}"


DESCRIPTIONS = {
    "steps": _step, "scores": _score, "images": _images, "targets": _targets, "responses": _responses,
    "latents": _latents,
}  # fmt: skip


def _size(found: Iterable[Entry]) -> int:
    return sum(entry.size for entry in found)


def counted(number: int, one: str, many: str) -> str:
    """`1 entry`, `2 entries`."""
    return f"{number} {one if number == 1 else many}"


def size_text(size: int) -> str:
    """`512 B`, `3.1 kB`, `120.0 MB`."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _age(seconds: float) -> str:
    days = seconds / DAY_S
    return f"{days:.0f} d" if days >= 2 else duration(max(seconds, 0))
