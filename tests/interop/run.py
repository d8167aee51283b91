"""Draws random cases, lets PEFT and graft read and write for each other, and compares.

    python tests/interop/run.py --program build/tests/interop/interop --count 200 --seed 1
    python tests/interop/run.py --program ... --seed 1 --only 17 --keep folder     (one case again, files kept)
"""
import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

if "PYTHONHASHSEED" not in os.environ:  # PEFT writes sets in the order of their hashes
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable, *sys.argv])

import torch

import cases
import compare
import peft_side
import random_cases


def prepare(seed, index, folder, rejections):
    """The case of a number: drawn again, from the same seed, while PEFT itself rejects it."""
    for attempt in range(20):
        case = cases.with_gradients(random_cases.Draw(random.Random(f"{seed}/{index}/{attempt}")).case(str(index)))
        shutil.rmtree(folder, ignore_errors=True)
        try:
            return peft_side.prepare(case, folder)
        except (peft_side.Rejected, RuntimeError, ValueError) as reason:
            rejections.append(f"{case['category']}: {str(reason)[:150]}")
    raise SystemExit(f"seed {seed}, case {index}: PEFT rejects all that is drawn: {rejections[-1]}")


def run_program(program, folders, root):
    """One process for all; after a crash, another one for the cases behind the one that crashed, five times."""
    crashes = {}
    while folders:
        if len(crashes) > 5:
            return crashes | {f: "not run: the program crashed too often" for f in folders}
        (root / "list").write_text("".join(f"{f}\n" for f in folders))
        done = subprocess.run([program, "--from", str(root / "list")], capture_output=True, text=True)
        if done.returncode == 0:
            return crashes
        left = [f for f in folders if not (f / "done").exists()]
        if not left:
            raise SystemExit(f"{program} failed:\n{done.stderr}")
        crashes[left[0]] = f"the program ended with {done.returncode}: {done.stderr.strip()[-300:]}"
        folders = left[1:]
    return crashes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="the built tests/interop program")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="run this case alone")
    parser.add_argument("--keep", type=Path, help="a folder for the files of the cases")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    root = (options.keep or Path(tempfile.mkdtemp(prefix="graft-interop-"))).resolve()
    root.mkdir(parents=True, exist_ok=True)
    try:
        failed = run(options, root)
    finally:
        if not options.keep:
            shutil.rmtree(root, ignore_errors=True)
    passed = (1 if options.only is not None else options.count) - failed
    print(f"{time.monotonic() - start:.0f} s")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


def run(options, root):
    indices = range(options.count) if options.only is None else [options.only]
    rejections, made = [], {}
    for index in indices:
        made[index] = prepare(options.seed, index, root / str(index), rejections)
    crashes = run_program(options.program, [root / str(i) for i in indices], root)
    counts, failures = Counter(), Counter()
    for index in indices:
        folder, case = root / str(index), made[index]
        problems = [crashes[folder]] if folder in crashes else compare.judge(case, folder)
        counts[case["category"]] += 1
        failures[case["category"]] += bool(problems)
        if problems:
            print(f"FAILED --seed {options.seed} --only {index}  ({case['category']}, {case['model']['dtype']})")
            for problem in problems[:6]:
                print("   ", problem.replace("\n", "\n    "))
    for category in sorted(counts):
        bad = f", {failures[category]} failed" if failures[category] else ""
        print(f"{category:28}{counts[category]:4}{bad}")
    for what, largest in (("an output", compare.LARGEST), ("a gradient", compare.LARGEST_GRADIENT)):
        print(f"largest deviation of {what} that passed: " + ", ".join(f"{p} {d:.1e}" for p, d in largest.items()))
    if rejections:
        print(f"{len(rejections)} draws rejected by PEFT itself:", *Counter(rejections), sep="\n    ")
        if len(rejections) > 3 + options.count // 20:
            raise SystemExit("too many: the draws are at fault")
    return sum(failures.values())


main()
