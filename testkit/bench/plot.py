"""The plot: CPU per cache hit as a share of nginx's, one row for each size and transport."""

WIDTH, ROW, TOP, LEFT, RIGHT = 760, 44, 92, 150, 110
#: The scale's end; a ratio beyond it is drawn at the edge with its number.
MOST = 1.6
INK, SOFT, GRID, DOT, MARK = "#1f2933", "#616e7c", "#d9dee4", "#0b6e99", "#b54708"


def x(ratio: float) -> float:
    return LEFT + min(ratio, MOST) / MOST * (WIDTH - LEFT - RIGHT)


def text(left: float, top: float, words: str, anchor="start", size=13, color=INK, weight="400") -> str:
    return (f'<text x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{color}" '
            f'font-weight="{weight}">{words}</text>')


def line(x1, y1, x2, y2, color, width=1.0, dash="") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="{width}"{dashed}/>'


def svg(rows: list[dict], subtitle: str) -> str:
    """`rows`: name, ratio (median, low, high), target. Read from top to bottom."""
    height = TOP + ROW * len(rows) + 46
    bottom = TOP + ROW * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'font-family="system-ui, sans-serif" aria-labelledby="title">',
        '<title id="title">CPU time per signed cache hit, Segue relative to nginx</title>',
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
        text(20, 30, "CPU time per signed cache hit, Segue / best nginx", size=17, weight="600"),
        text(20, 50, subtitle, size=12, color=SOFT),
    ]
    for step in range(int(MOST / 0.2) + 1):
        at = x(step * 0.2)
        parts += [line(at, TOP - 8, at, bottom, GRID), text(at, bottom + 18, f"{step * 0.2:.1f}", "middle", 11, SOFT)]
    parts += [
        line(x(1), TOP - 14, x(1), bottom, INK, 1.6),
        text(x(1), TOP - 20, "best nginx = 1.0", "middle", 12, INK, "600"),
        text(x(0), TOP - 20, "less is better", "start", 12, SOFT),
        text(LEFT, bottom + 38, "dot: median of the rounds", size=11, color=SOFT),
        text(LEFT + 150, bottom + 38, "line: interval", size=11, color=SOFT),
        line(LEFT + 250, bottom + 28, LEFT + 250, bottom + 42, MARK, 3),
        text(LEFT + 258, bottom + 38, "target, at most", size=11, color=SOFT),
    ]
    for number, row in enumerate(rows):
        y = TOP + ROW * number + ROW / 2
        ratio = row["ratio"]
        parts += [
            text(LEFT - 14, y + 4, row["name"], "end"),
            line(x(row["target"]), y - 12, x(row["target"]), y + 12, MARK, 3),
            line(x(ratio["low"]), y, x(ratio["high"]), y, DOT, 3),
            f'<circle cx="{x(ratio["median"]):.1f}" cy="{y:.1f}" r="6" fill="{DOT}"/>',
            text(WIDTH - 20, y + 4, f'{ratio["median"]:.2f}', "end", 14, INK, "600"),
        ]
    return "\n".join([*parts, "</svg>", ""])
