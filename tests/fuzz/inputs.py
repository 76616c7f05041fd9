"""What people may hand in by mistake or on purpose: valid things with faults, as values and as bytes."""

from __future__ import annotations

import copy
import io
import zipfile
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

PATHS = ("../../trace", "/etc/passwd", "~/trace", "a/../../trace", "file:///trace", "a\0b", "\ud800", "x" * 300)
NUMBERS = (0, -1, 2**31, 2**63, 10**30, 10**400, 1e308, 1e-320, -0.0, float("inf"), float("nan"))
TEXTS = ("", " ", "İ\u202e\u0000", "é" * 50, "__import__('os').system('touch trace')", "{0.__class__}", "%s%n", "null")
TOKENS = (
    b"[" * 1100, b"{" * 500, b"<a>" * 50_000, b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"../", b"NaN", b"-1e999",
    b"9" * 5000, b'<?xml version="1.0" encoding="utf-7"?>',
    b"&a ", b"*a ", b"<<: ", b"!!python/object/apply:os.system [touch trace]", b"---\n", b"\t", b'"', b": ", b", ",
    b'<!DOCTYPE a [<!ENTITY x "x"><!ENTITY y "&x;&x;">]>', b"&y;", b"<![CDATA[",
    b"cposix\nsystem\n(S'touch trace'\ntR.", b"PK\x05\x06" + bytes(18), b"\x80\x04", b"R", b"b", b"0", b"2" * 300,
)  # fmt: skip

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.integers(),
    st.floats(),
    st.sampled_from((*PATHS, *TEXTS)),
    st.text(max_size=20),
    st.recursive(st.none() | st.sampled_from(NUMBERS) | st.text(max_size=5), lambda inner: st.lists(inner, max_size=4)),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)


@st.composite
def changed(draw: st.DrawFn, valid: Sequence[Any], values: st.SearchStrategy[Any] = odd) -> Any:
    """One of `valid`, nested dicts and lists, with one to three places replaced, left out, doubled or swapped."""
    value = copy.deepcopy(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 3))):
        holders = [holder for holder in _holders(value) if holder]
        if not holders:
            return draw(values)
        holder = draw(st.sampled_from(holders))
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key, other = draw(st.sampled_from(keys)), draw(st.sampled_from(draw(st.sampled_from([keys, keys[:1]]))))
        match draw(st.integers(0, 5)):
            case 0:
                del holder[key]
            case 1:
                holder[key], holder[other] = holder[other], holder[key]
            case 2 if isinstance(holder, dict):
                holder[draw(st.text(max_size=8))] = holder[key]
            case 2:
                holder.append(copy.deepcopy(holder[key]))
            case _:
                holder[key] = draw(values)
    return value


def _holders(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(found for one in inner for found in _holders(one))] if isinstance(value, dict | list) else []


@st.composite
def broken(draw: st.DrawFn, valid: Sequence[bytes]) -> bytes:
    """One of `valid`, cut, flipped, doubled or with something strange inside; or any bytes at all."""
    content = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 64)))
        match draw(st.integers(0, 6)):
            case 0:
                content = content[:start]
            case 1:
                content = content[:start] + content[end:]
            case 2:
                content = content[:end] + content[start:]
            case 3 if start < len(content):
                flipped = content[start] ^ (1 << draw(st.integers(0, 7)))
                content = content[:start] + bytes([flipped]) + content[start + 1 :]
            case 4:
                content = draw(st.binary(max_size=200))
            case _:
                content = content[:start] + draw(st.sampled_from(TOKENS)) + content[end:]
    return content


@st.composite
def repacked(draw: st.DrawFn, archive: bytes) -> bytes:
    """An archive whose checksums are right and whose entries are not."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(written, "w") as target:
        names = source.namelist()
        chosen = draw(st.sampled_from(names))
        for name in names:
            content = source.read(name)
            called = draw(st.sampled_from([name, name, name, "../trace", "/trace"])) if name == chosen else name
            target.writestr(called, draw(broken([content])) if name == chosen else content)
    return written.getvalue()
