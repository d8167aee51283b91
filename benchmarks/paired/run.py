#!/usr/bin/env python3
"""Runs what tools/bench has built and makes tables, JSON and a chart of it. Called by tools/bench, which see."""
import argparse
import datetime
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import chart
import table

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM_AREAS = ["base", "lora", "many", "merge", "narrow", "training", "injection", "sites", "tales"]
AREAS = [*PROGRAM_AREAS, "compile", "own"]


def arguments():
    parser = argparse.ArgumentParser(prog="tools/bench")
    parser.add_argument("areas", nargs="*", metavar="AREA")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--svg", type=pathlib.Path)
    parser.add_argument("--smollm", type=pathlib.Path)
    parser.add_argument("--program", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--build", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--interop", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--extras", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    for flag in ("--native", "--no-install"):  # of tools/bench itself
        parser.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for area in options.areas:
        if area not in AREAS:
            parser.error(f"no area '{area}'; there are: {' '.join(AREAS)}")
    options.areas = options.areas or AREAS
    return options


def random_smollm(options):
    """The program's arguments for a model of SmolLM2's shape, which is made once: half a gigabyte in the build folder."""
    folder, python = options.build / "random_smollm", options.interop / "bin" / "python"
    last_written = folder / "adapter" / "adapter_model.safetensors"
    if not last_written.exists() and python.exists():
        subprocess.run([python, TOP / "benchmarks/paired/workers/random_smollm.py", folder], stdout=subprocess.DEVNULL)
    return ["--random-smollm", str(folder.resolve())] if last_written.exists() else []


def lines_of_program(options, areas):
    """What the C++ program reports, line by line."""
    command = [options.program, "--peers", str(pathlib.Path(options.program).parent), "--threads", str(options.threads)]
    for flag, folder in (("--torch", options.interop), ("--extras", options.extras)):
        python = folder / "bin" / "python"
        if python.exists():
            command += [flag, str(python)]
    if options.quick:
        command.append("--quick")
    if options.smollm:
        command += ["--smollm", str(options.smollm.resolve())]
    elif "tales" in areas and not options.quick:
        command += random_smollm(options)
    with subprocess.Popen([*command, *areas], stdout=subprocess.PIPE, text=True) as program:
        try:
            for line in program.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
        except KeyboardInterrupt:
            program.terminate()
            raise
    if program.returncode:
        yield {"kind": "failure", "text": f"{options.program} ended with {program.returncode}"}


def summary(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return {"min": ordered[0], "median": median, "max": ordered[-1], "rounds": len(ordered)}


def compile_lines(options):
    """How long the first example takes to compile, against a program that multiplies two Eigen matrices."""
    yield {"kind": "area", "area": "compile", "title": "Compile time of examples/first_adapter.cpp, user seconds"}
    loader = importlib.machinery.SourceFileLoader("compile_time", str(TOP / "benchmarks" / "compile_time"))
    tool = importlib.util.module_from_spec(importlib.util.spec_from_loader("compile_time", loader))
    loader.exec_module(tool)
    compiler = os.environ.get("CXX", "g++")
    with tempfile.TemporaryDirectory() as folder:
        alone = pathlib.Path(folder) / "eigen_alone.cpp"
        alone.write_text(tool.EIGEN_ALONE)
        for level in ("-O0", "-O2"):
            row = {"kind": "row", "area": "compile", "name": f"{compiler} {level}"}
            gate = {"goal": "compile", "what": "graft / Eigen", "bound": "at most", "target": 2.2, "unit": ""}
            if options.quick and level == "-O2":
                row["ours"] = {"not_measured": "left out by --quick"}
                gate["not_measured"] = "left out by --quick"
            else:
                command = [*compiler.split(), "-std=c++20", level, f"-I{TOP / 'include'}", *tool.eigen_flags(), "-c", "-o",
                           os.devnull]
                rounds = [[tool.seconds([*command, str(source)]) for source in (TOP / "examples/first_adapter.cpp", alone)]
                          for _ in range(1 if options.quick else 3)]
                ours, eigen = zip(*rounds)
                ratio = summary([a / b for a, b in rounds])
                row["ours"] = summary(ours)
                row["beside"] = [{"name": "Eigen alone", "ratio": ratio, **summary(eigen)}]
                gate |= ratio | {"holds": ratio["median"] <= gate["target"]}
            yield row | {"gates": [gate]}


def own_lines(options):
    """graft's google-benchmark programs."""
    yield {"kind": "area", "area": "own", "title": "graft's own benchmarks (benchmarks/*.cpp), google-benchmark"}
    for source in sorted((TOP / "benchmarks").glob("*.cpp")):
        program = options.build / "benchmarks" / f"benchmark_{source.stem}"
        if not program.exists():
            yield {"kind": "row", "area": "own", "name": source.stem, "ours": {"not_measured": "left out by --quick"}}
            continue
        ran = subprocess.run([program, "--benchmark_format=json", "--benchmark_min_time=0.05"], capture_output=True, text=True)
        if ran.returncode:
            yield {"kind": "failure", "text": f"{program} ended with {ran.returncode}"}
            continue
        for entry in json.loads(ran.stdout)["benchmarks"]:
            seconds = entry["real_time"] * {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1}[entry["time_unit"]]
            counters = {key: entry[key] for key in ("ratio", "sites", "resident_kB", "file_MB") if key in entry}
            note = ", ".join(f"{key} {value:.4g}" for key, value in counters.items())
            yield {"kind": "row", "area": "own", "name": f"{source.stem}: {entry['name']}", "ours": summary([seconds]),
                   **({"note": note} if note else {})}


def all_lines(options):
    of_program = [area for area in PROGRAM_AREAS if area in options.areas]
    if of_program:
        yield from lines_of_program(options, of_program)
    if "compile" in options.areas:
        yield from compile_lines(options)
    if "own" in options.areas:
        yield from own_lines(options)


def take(report, line):
    """Adds a line to the report; prints an area when the next one begins."""
    kind = line.pop("kind")
    if kind == "machine":
        report["machine"] = line["facts"]
        print(table.machine(report), flush=True)
    elif kind == "area":
        if report["areas"]:
            print(table.area(report["areas"][-1]), flush=True)
        report["areas"].append(line | {"rows": []})
    elif kind == "row":
        report["areas"][-1]["rows"].append(line)
    else:
        report["failures"].append(line["text"])


def main():
    options = arguments()
    is_gated = not options.quick and options.threads == 1
    commit = subprocess.run(["git", "-C", TOP, "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    report = {"date": datetime.datetime.now().isoformat(timespec="seconds"), "commit": commit, "quick": options.quick,
              "threads": options.threads, "load": os.getloadavg(), "machine": {}, "areas": [], "failures": []}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for line in all_lines(options):
            take(report, line)
    except KeyboardInterrupt:  # what was measured is worth printing
        report["failures"].append("interrupted: what follows is not measured")
    if report["areas"]:
        print(table.area(report["areas"][-1]), flush=True)
    report["goals"] = table.goals_of(report)
    print(table.goals(report, complete=options.areas == AREAS))
    for failure in report["failures"]:
        print("FAILED:", failure)
    for path, text in ((options.json or options.build / "report.json", json.dumps(report, indent=1, ensure_ascii=False)),
                       (options.svg or options.build / "report.svg", chart.svg(report))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print("wrote", path)
    if report["failures"]:
        sys.exit(2)
    if not is_gated:
        print("goals are not counted with " + ("--quick" if options.quick else "several threads"))
    elif any(gate.get("holds") is False for area in report["areas"] for row in area["rows"] for gate in row.get("gates", [])):
        sys.exit(1)


if __name__ == "__main__":
    main()
