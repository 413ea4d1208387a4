#!/usr/bin/env python3
"""The GPU check: everything that only a real GPU can say about this engine, in one command, within eight minutes.

    python3 tools/gpu/check.py                     all stages
    python3 tools/gpu/check.py --stage parity      one stage alone; the others' last results are kept in the record

Needs a GPU with its driver, PyTorch and transformers, and the program that tools/gpu/pack.sh made; no .NET, no network.
Every stage runs in a process of its own with a time of its own, and fails alone. What they find goes into OUT/record.json
and OUT/record.md; the table is printed last. Exit code 1 when a stage failed, 0 when all passed or were skipped.
"""
import argparse
import datetime
import importlib
import json
import os
import pathlib
import subprocess
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import common  # noqa: E402
import report  # noqa: E402

# Name, seconds it may take, module and function.
STAGES = [
    ("doctor", 20, "engine", "doctor"),
    ("selftest", 50, "engine", "selftest"),
    ("parity", 80, "parity", "parity"),
    ("sanitizer", 60, "engine", "sanitizer"),
    ("engine", 90, "engine", "tables"),
    ("ceilings", 15, "baseline", "ceilings"),
    ("encoder", 75, "baseline", "encoder"),
    ("language", 85, "baseline", "language"),
]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("convllava", nargs="?", default=str(common.ROOT / "artifacts" / "aot" / "convllava"), help="the program (default artifacts/aot/convllava)")
    parser.add_argument("--stage", action="append", choices=[name for name, *_ in STAGES], help="only this stage; may be repeated")
    parser.add_argument("--out", default=os.environ.get("OUT") or "gpu-record", help="folder of the record (default: $OUT, or gpu-record)")
    parser.add_argument("--seconds", type=float, default=475, help="time for everything (default 475)")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu tries the check itself on a machine without a GPU; its numbers mean nothing")
    parser.add_argument("--preset", default="7b-1536", help="sizes of the timed model (default 7b-1536)")
    parser.add_argument("--parity-presets", default="mid", help="synthetic models compared with Hugging Face beside the demo model (default mid)")
    parser.add_argument("--inner", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.parity_presets = [name for name in options.parity_presets.split(",") if name]
    return options


def run_inside(options):
    """The process of one stage: runs it and writes what it found."""
    name, _, module, function = next(stage for stage in STAGES if stage[0] == options.inner)
    context = common.Context(options)
    started = time.monotonic()
    try:
        found = getattr(importlib.import_module(module), function)(context)
        status = found.pop("status", "passed")
    except common.Skip as reason:
        found, status = {"reason": str(reason)}, "skipped"
    except Exception as error:
        traceback.print_exc()
        found, status = {"reason": f"{type(error).__name__}: {error}"}, "failed"
    write(context.out / f"stage-{name}.json", {"stage": name, "status": status, "seconds": round(time.monotonic() - started, 1),
                                               "date": now(), **found})
    return 1 if status == "failed" else 0


def run_stage(options, name, seconds):
    """Runs a stage in its own process, at most `seconds` long."""
    path = pathlib.Path(options.out) / f"stage-{name}.json"
    path.unlink(missing_ok=True)
    print(f"--- {name} (at most {seconds:.0f} s)", flush=True)
    command = [sys.executable, __file__, options.convllava, "--inner", name, "--out", options.out, "--seconds", str(seconds - 3),
               "--device", options.device, "--preset", options.preset, "--parity-presets", ",".join(options.parity_presets)]
    try:
        subprocess.run(command, timeout=seconds)
        reason = "the process ended without a result"
    except subprocess.TimeoutExpired:
        reason = f"stopped after {seconds:.0f} s"
    if not path.exists():
        write(path, {"stage": name, "status": "failed", "reason": reason, "date": now()})
    found = json.loads(path.read_text())
    print(f"    {found['status']}{': ' + found['reason'] if found.get('reason') else ''}", flush=True)
    return found["status"]


def write(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def main():
    options = parse()
    if options.inner:
        return run_inside(options)
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + options.seconds
    failed = False
    for name, seconds, *_ in STAGES:
        if options.stage and name not in options.stage:
            continue
        left = deadline - time.monotonic()
        if left < 10:
            write(out / f"stage-{name}.json", {"stage": name, "status": "skipped", "reason": "no time was left", "date": now()})
            continue
        failed |= run_stage(options, name, min(seconds, left)) == "failed"
    stages = {}
    for name, *_ in STAGES:
        path = out / f"stage-{name}.json"
        if path.exists():
            stages[name] = json.loads(path.read_text())
    record = {"schema": 1, "date": now(), "commit": common.commit(), "device": options.device, "gpu": common.gpu(), "versions": common.versions(),
              "preset": options.preset, "stages": stages}
    write(out / "record.json", record)
    text = report.markdown(record)
    (out / "record.md").write_text(text)
    print("\n" + text)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
