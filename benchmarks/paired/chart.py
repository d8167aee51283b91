"""The report as a chart: how far each gated figure is from its goal."""
import html
import math

ROW, LEFT, WIDTH, TOP = 16, 470, 560, 74
LEAST, MOST = 1 / 16, 16  # of the distance from the goal; farther ones are drawn at the edge


def place(value):
    clipped = min(max(value, LEAST), MOST)
    return LEFT + WIDTH * (math.log(clipped) - math.log(LEAST)) / (math.log(MOST) - math.log(LEAST))


def distances(gate):
    """min, median, max over the goal; below 1 is better than the goal asks for."""
    figures = [gate[key] for key in ("min", "median", "max")]
    target = gate["target"]
    if gate["bound"] == "at least":
        return sorted(target / figure if figure > 0 else MOST for figure in figures)
    return [figure / target if target else (LEAST if figure <= 0 else MOST) for figure in figures]


def svg(report):
    lines, y = [], TOP
    for area in report["areas"]:
        gates = [(row["name"], gate) for row in area["rows"] for gate in row.get("gates", [])]
        if not gates:
            continue
        y += ROW
        lines.append(f'<text x="12" y="{y}" class="area">{html.escape(area["title"])}</text>')
        for name, gate in gates:
            y += ROW
            sign = "&#8804;" if gate["bound"] == "at most" else "&#8805;"
            label = f"{name}: {gate['what']}"
            label = html.escape(label if len(label) < 66 else label[:64] + "…")
            lines.append(f'<text x="{LEFT - 10}" y="{y}" class="name">{label} {sign} {gate["target"]:.4g} {gate["unit"]}</text>')
            if "median" not in gate:
                lines.append(f'<text x="{place(1) + 6:.0f}" y="{y}" class="none">not measured</text>')
                continue
            low, middle, high = distances(gate)
            kind = "good" if gate["holds"] else "bad"
            lines.append(f'<path d="M{place(low):.1f} {y - 4}H{place(high):.1f}" class="{kind} line"/>'
                         f'<circle cx="{place(middle):.1f}" cy="{y - 4}" r="4" class="{kind}"/>')
    height = y + 2 * ROW
    ticks = "".join(f'<path d="M{place(at):.1f} {TOP - 8}V{height - 14}" class="{"goal" if at == 1 else "tick"}"/>'
                    f'<text x="{place(at):.1f}" y="{TOP - 14}" class="axis">{label}</text>'
                    for at, label in ((1 / 16, "1/16"), (1 / 4, "1/4"), (1 / 2, "1/2"), (1, "goal"), (2, "2x"), (4, "4x"), (16, "16x")))
    machine = report["machine"].get("processor", "")
    heading = f"graft against its goals: left of the line holds. {machine}, {report['commit']}, {report['date'][:10]}"
    return f'''<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 30}" height="{height}" font-family="sans-serif">
<style>
  rect {{ fill: #fff }} text {{ font-size: 11px; fill: #222 }} .title {{ font-size: 14px; font-weight: bold }}
  .area {{ font-weight: bold }} .name {{ text-anchor: end }} .axis {{ text-anchor: middle; fill: #666 }}
  .none {{ fill: #999; font-style: italic }} .tick {{ stroke: #ddd }} .goal {{ stroke: #222; stroke-width: 1.5 }}
  circle.good {{ fill: #2a7d4f }} circle.bad {{ fill: #c0392b }}
  .line {{ stroke-width: 2; opacity: .5 }} .good.line {{ stroke: #2a7d4f }} .bad.line {{ stroke: #c0392b }}
</style>
<rect width="100%" height="100%"/>
<text x="12" y="24" class="title">{html.escape(heading)}</text>
<text x="12" y="42">dot: median of the paired ratios; line: least to largest; distance from the goal, logarithmic</text>
{ticks}
{chr(10).join(lines)}
</svg>
'''
