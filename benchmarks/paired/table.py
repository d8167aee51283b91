"""The report as text."""

# What each goal is about; every one of them is printed, measured or not. docs/benchmarks.md says more.
GOALS = {
    "1": "own product at T=512: 0.78 of the peak, 1.10x OpenBLAS",
    "2": "own product against Eigen's at T=2 and up",
    "3": "own product at T=1: 1.10x Eigen, 0.80 of a read of W",
    "4": "LoRA over the bare layer: 1 + 1.35 f + 0.015 (0.04 at T=2...16)",
    "5": "LoRA r=16 against Eigen, PEFT and ggml",
    "6": "many adapters: near operations and reading, 0.80x of the loop",
    "7": "merging: near the memory, 0.70x Eigen, 0.45x delta formed; no drift",
    "8": "DoRA norms: 0.65x of forming W + s B A",
    "9": "narrow weights against ggml, and 1.05x f32 at T=512",
    "10": "training step: torch autograd, own forward and g W",
    "11": "224 sites: 1 ms on meta, 200 ms eager; 640 MB open in 1 ms",
    "12": "plain -O2: 0.95 of -march=native",
    "13": "two threads: 1.7x at T=1, 1.6x at T=512",
    "PEFT site": "LoRA r=16 over the bare layer at T=1: 1.6 for 64², 1.07 for 768²",
    "PEFT DoRA": "DoRA r=16 over the bare layer, 768² T=1: 1.1",
    "PEFT mixed": "64 rows over 64 adapters at 768²: 1.3",
    "PEFT load": "inject 224 sites and load 640 MB, mapped: 0.01x",
    "PEFT merge": "merge and unmerge 4096²: 0.1x",
    "PEFT tales": "tales tokens/s: evaluation 2x, generation 10x",
    "PEFT SmolLM2": "SmolLM2-135M: generation 1.2x, with LoRA 1.3x, prompt 1.2x",
    "empty site": "within noise of the bare layer, 8 bytes",
    "switching": "1 us a site, whatever size and number of adapters",
    "random values": "0.5x of a plain loop",
    "narrow adapter": "bf16 adapters that are not in cache: 0.7x of f32",
    "compile": "2.2x of a program that multiplies two Eigen matrices",
}
UNITS = (("s", 1), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))


def digits(value):
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 0.01 or value == 0 else f"{value:.1e}"


def unit_of(seconds):
    return next((unit for unit in UNITS if seconds >= unit[1]), UNITS[-1])


def machine(report):
    facts = report["machine"]
    lines = [f"graft {facts['graft']}, commit {report['commit']}, {report['date']}",
             f"{facts['processor']}; graft's kernels: {facts['instruction_set']}"
             + (" at the rate of AVX2" if facts["avx512_at_half_rate"] else ""),
             f"compiler {facts['compiler']}, flags of {facts['compiled_for']}; {facts['clock']}, "
             f"{report['threads']} thread(s); load {report['load'][0]:.1f}",
             f"peak of one core: {facts['peak_f32'] / 1e9:.0f} GF/s in f32 (AVX2 {facts['peak_f32_avx2'] / 1e9:.0f}), "
             f"{facts['peak_f64'] / 1e9:.0f} in f64",
             "reading: " + ", ".join(f"{size(entry['bytes'])} {entry['bytes_per_second'] / 1e9:.0f} GB/s"
                                     for entry in facts["read_bandwidth"])]
    lines += [f"peer {text}" if not text.startswith("missing") else f"peer {name} {text}"
              for name, text in facts["peers"].items()]
    return "\n".join(lines)


def size(count):
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"


def spread(figures):
    return f"{digits(figures['median'])} ({digits(figures['min'])} … {digits(figures['max'])})"


def gate_line(gate, reason_of_row):
    sign = "<=" if gate["bound"] == "at most" else ">="
    target = f"{sign} {gate['target']:.4g} {gate['unit']}".strip()
    if "median" not in gate:
        reason = "" if gate["not_measured"] == reason_of_row else ": " + gate["not_measured"]
        return [gate["goal"], gate["what"], target, "not measured" + reason]
    return [gate["goal"], gate["what"], target, spread(gate), "holds" if gate["holds"] else "MISSED"]


def aligned(lines, indent=""):
    # the last cell of a line may be as long as it likes
    widths = [max((len(line[i]) for line in lines if i < len(line) - 1), default=0) for i in range(max(map(len, lines)))]
    return [(indent + "  ".join(cell.ljust(widths[i]) if i < len(line) - 1 else cell
                                for i, cell in enumerate(line))).rstrip() for line in lines]


def area(area):
    if not area["rows"]:
        return "\n== " + area["title"] + "\n   nothing measured"
    columns = []
    for row in area["rows"]:
        columns += [beside["name"] for beside in row.get("beside", []) if beside["name"] not in columns]
    reasons = {}
    head = ["", "ours", "limit", *columns]
    lines = [head]
    for row in area["rows"]:
        ours = row["ours"]
        times = [entry["median"] for entry in (ours, *row.get("beside", [])) if "median" in entry]
        times += [row["limit"]["seconds"]] if "limit" in row else []
        name, scale = unit_of(min(times)) if times else UNITS[1]
        cells = [row["name"], f"{digits(ours['median'] / scale)} {name}" if "median" in ours else "not measured"]
        limit = row.get("limit", {}).get("seconds")
        reached = f" ({limit / ours['median']:.2f})" if limit and "median" in ours else ""
        cells.append(digits(limit / scale) + reached if limit else "")
        beside = {entry["name"]: entry for entry in row.get("beside", [])}
        for column in columns:
            entry = beside.get(column)
            if entry is None:
                cells.append("")
            elif "median" not in entry:
                cells.append("-")
                reasons.setdefault(f"{column}: {entry['not_measured']}", []).append(row["name"])
            else:
                ratio = f" ({entry['ratio']['median']:.2f})" if "median" in entry["ratio"] else ""
                cells.append(digits(entry["median"] / scale) + ratio)
        lines.append(cells)
    text = aligned(lines)
    gates = [gate_line(gate, row["ours"].get("not_measured")) for row in area["rows"] for gate in row.get("gates", [])]
    gate_text = iter(aligned(gates, "      goal ")) if gates else iter(())
    out = ["", "== " + area["title"], "   median of one call; in brackets limit / ours, and ours / theirs (median of the rounds)", "",
           text[0]]
    for row, line in zip(area["rows"], text[1:]):
        out.append(line)
        if "median" not in row["ours"]:
            out[-1] = out[-1].replace("not measured", "not measured: " + row["ours"]["not_measured"], 1)
        if "note" in row:
            out.append("      " + row["note"])
        out += [next(gate_text) for _ in row.get("gates", [])]
    out += [f"   - {reason} ({'everywhere' if len(names) == len(area['rows']) else f'{len(names)} rows'})"
            for reason, names in reasons.items()]
    return "\n".join(out)


def goals_of(report):
    found = {goal: {"hold": 0, "missed": [], "not_measured": []} for goal in GOALS}
    for each in report["areas"]:
        for row in each["rows"]:
            for gate in row.get("gates", []):
                goal = found.setdefault(gate["goal"].split(" (")[0], {"hold": 0, "missed": [], "not_measured": []})
                if "median" not in gate:
                    goal["not_measured"].append(gate["not_measured"])
                elif gate["holds"]:
                    goal["hold"] += 1
                else:
                    goal["missed"].append(f"{row['name']}: {gate['what']} {digits(gate['median'])} for {gate['target']:.4g}")
    return found


def goals(report, complete):
    lines = [["goal", "holds", "missed", "not measured", ""]]
    misses = []
    for goal, found in report["goals"].items():
        counts = [str(found["hold"]), str(len(found["missed"])), str(len(found["not_measured"]))]
        if counts == ["0", "0", "0"]:
            if not complete:
                continue
            counts[2] = "all"
        lines.append([goal, *counts, GOALS.get(goal, "")])
        misses += [f"   {goal}: {miss}" for miss in found["missed"]]
    return "\n".join(["", "== Goals", "", *aligned(lines), *(["", "missed:", *misses] if misses else []), ""])
