"""Draw the pictures of the strategies: ``python docs/draw_stages.py``.

Each picture shows the stages of a strategy as they are named in the record, on an imaginary model
of eight ops, one small square per op. ``stages.py`` says what is in them. They are written to
``docs/strategies/images``; with ``--check`` nothing is written, and it fails if one would change.
"""

from __future__ import annotations

from pathlib import Path
import sys
from xml.sax.saxutils import escape

from stages import PICTURES
from stages import Picture
from stages import Step


FOLDER = Path(__file__).parent / "strategies" / "images"

_WIDTH = 720
_MARGIN = 12
_CARD = 668  # The width of a step; what is right of it is for the arrows back.
_STRIPS = 400  # Where the squares begin.
_CELL = 17
_PITCH = 21
_ROW = 25
_LINE = 18
_GAP = 24

_KINDS = {
    "q": "quantized, default option",
    "o": "quantized, another option",
    "d": "dynamic",
    "F": "FP32 (fallback)",
}

_STYLE = """
    svg { --page: #ffffff; --card: #f5f7f9; --edge: #d3d9e0; --text: #1f2328; --soft: #59636e;
          --default: #257b74; --other: #4a94c8; --dynamic: #8a63c4; --good: #1a7f37; }
    @media (prefers-color-scheme: dark) {
      svg { --page: #131416; --card: #202429; --edge: #3b434d; --text: #e4e7eb; --soft: #a1abb6;
            --default: #3aa89f; --other: #6bb1e3; --dynamic: #b294ea; --good: #57c26f; }
    }
    .page { fill: var(--page); }
    .card { fill: var(--card); stroke: var(--edge); }
    text { font: 13px -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
           fill: var(--soft); }
    .name { font-weight: 600; font-size: 14px; fill: var(--text); }
    .good { font-weight: 600; fill: var(--good); }
    .q { fill: var(--default); }
    .o { fill: var(--other); }
    .d { fill: var(--dynamic); }
    .F { fill: none; stroke: var(--soft); stroke-width: 1.3; }
    .mark { stroke: var(--card); stroke-width: 2; fill: none; }
    .dot { fill: var(--card); }
    .line { stroke: var(--soft); stroke-width: 1.4; fill: none; }
    .tip { fill: var(--soft); }
"""


def draw(picture: Picture) -> str:
    """The picture as SVG."""
    tops, top = [], _MARGIN
    for step in picture.steps:
        tops.append(top)
        top += _height(step) + _GAP
    bottom = top - _GAP
    body = []
    for i, (step, y) in enumerate(zip(picture.steps, tops, strict=True)):
        body += _card(step, y)
        if i + 1 < len(picture.steps):
            body += _arrow_down(y + _height(step), tops[i + 1])
    lane = 0
    for i, step in enumerate(picture.steps):
        if step.back_to:
            target = [other.name for other in picture.steps].index(step.back_to)
            end = tops[target] + _height(picture.steps[target]) / 2
            start = tops[i] + _height(step) / 2
            if target == i:
                start, end = start + 16, end - 16
            body += _arrow_back(start, end, _MARGIN + _CARD, 14 + 9 * lane)
            lane += 1
    height = bottom + 44
    body += _legend(picture, bottom + 29)
    title = f"The stages of the strategy {picture.name}"
    lines = "; ".join(f"{step.name}: {' '.join(step.text)}" for step in picture.steps)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'width="{_WIDTH}" height="{height}" role="img">',
            f"  <title>{escape(title)}</title>",
            f"  <desc>{escape(lines)}</desc>",
            f"  <style>{_STYLE}  </style>",
            f'  <rect class="page" width="{_WIDTH}" height="{height}" rx="10"/>',
            *(f"  {line}" for line in body),
            "</svg>",
            "",
        ]
    )


def _height(step: Step) -> int:
    return 18 + max(_LINE * (1 + len(step.text)) + 4, _ROW * len(step.rows))


def _card(step: Step, y: int) -> list[str]:
    height = _height(step)
    found = [
        f'<rect class="card" x="{_MARGIN}" y="{y}" width="{_CARD}" height="{height}" rx="8"/>',
        f'<text class="name" x="{_MARGIN + 16}" y="{y + 25}">{escape(step.name)}</text>',
    ]
    for i, line in enumerate(step.text):
        place = y + 25 + _LINE * (i + 1)
        found.append(f'<text x="{_MARGIN + 16}" y="{place}">{escape(line)}</text>')
    first = y + (height - _ROW * len(step.rows)) / 2
    for i, row in enumerate(step.rows):
        ops, _, note = row.partition(" ")
        place = first + _ROW * i + (_ROW - _CELL) / 2
        if ops == "...":
            found.append(f'<text x="{_STRIPS}" y="{place + 12:g}">and so on</text>')
            continue
        for k, kind in enumerate(ops):
            found += _cell(kind, _STRIPS + _PITCH * k, place)
        if note:
            css = ' class="good"' if note.startswith(("met", "answer", "best")) else ""
            x = _STRIPS + _PITCH * len(ops) + 8
            found.append(f'<text{css} x="{x}" y="{place + 13:g}">{escape(note)}</text>')
    return found


def _cell(kind: str, x: float, y: float) -> list[str]:
    inset = 0.65 if kind == "F" else 0.0
    size = _CELL - 2 * inset
    found = [
        f'<rect class="{kind}" x="{x + inset:g}" y="{y + inset:g}" width="{size:g}" '
        f'height="{size:g}" rx="3"/>'
    ]
    if kind == "o":
        found.append(
            f'<path class="mark" d="M{x + 4:g} {y + _CELL - 4:g} L{x + _CELL - 4:g} {y + 4:g}"/>'
        )
    if kind == "d":
        centre = _CELL / 2
        found.append(f'<circle class="dot" cx="{x + centre:g}" cy="{y + centre:g}" r="3"/>')
    return found


def _arrow_down(start: float, end: float) -> list[str]:
    x = _MARGIN + 30
    return [
        f'<path class="line" d="M{x} {start:g} V{end - 7:g}"/>',
        f'<path class="tip" d="M{x - 4.5} {end - 8:g} h9 l-4.5 8 z"/>',
    ]


def _arrow_back(start: float, end: float, x: float, width: float) -> list[str]:
    return [
        f'<path class="line" d="M{x:g} {start:g} h{width - 6:g} q6 0 6 -6 V{end + 6:g} '
        f'q0 -6 -6 -6 H{x + 7:g}"/>',
        f'<path class="tip" d="M{x + 8:g} {end - 4.5:g} v9 l-8 -4.5 z"/>',
    ]


def _legend(picture: Picture, y: float) -> list[str]:
    used = {kind for step in picture.steps for row in step.rows for kind in row.split(" ")[0]}
    found, x = [], float(_MARGIN + 4)
    for kind, text in _KINDS.items():
        if kind in used:
            found += _cell(kind, x, y - 13)
            found.append(f'<text x="{x + _CELL + 7:g}" y="{y:g}">{text}</text>')
            x += _CELL + 7 + 6.6 * len(text) + 22
    return found


def main(check: bool) -> int:
    """Write the pictures, or find out whether they are as they should be."""
    changed = []
    for picture in PICTURES:
        path = FOLDER / f"{picture.name}.svg"
        text = draw(picture)
        if not path.is_file() or path.read_text() != text:
            changed.append(path.name)
            if not check:
                path.write_text(text)
    if check and changed:
        print(f"Not up to date: {', '.join(changed)}. Run: python docs/draw_stages.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv))
