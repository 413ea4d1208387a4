"""Stages that run the engine's program: doctor, selftest, compute-sanitizer, its own tables."""
import glob
import json
import os
import shutil

from common import Skip, attempt


def doctor(context):
    """What the engine sees: devices, libraries with their versions and paths."""
    code, out, err = context.run("doctor", "--json", check=False)
    found = json.loads(out) if out.strip().startswith("{") else {"said": (out + err)[-2000:]}
    return {"doctor": found, "status": "passed" if code == 0 else "failed", **({} if code == 0 else {"reason": err.strip()[-400:]})}


def selftest(context):
    """Every operation at the shapes of the models against the CPU backend, in each precision."""
    rows = []
    for dtype in ("float32", "float16", "bfloat16"):
        path = context.out / f"selftest-{dtype}.json"

        def one():
            code, _, err = context.run("selftest", "--device", context.device, "--preset", context.preset, "--dtype", dtype, "--json", path, check=False)
            if not path.exists():
                raise RuntimeError(err.strip()[-400:])
            checks = json.loads(path.read_text())["checks"]
            bad = [check["name"] for check in checks if not check["passed"]]
            return {"operations": len(checks), "failed_operations": bad, "passed": code == 0 and not bad,
                    "worst": max(checks, key=lambda check: check["error"] / check["tolerance"])}
        attempt(rows, dtype, one)
    return {"rows": rows, "status": "passed" if all(row.get("passed") for row in rows) else "failed"}


def find_sanitizer():
    """compute-sanitizer of PATH, a toolkit or a wheel."""
    places = [shutil.which("compute-sanitizer"), *glob.glob("/usr/local/cuda*/bin/compute-sanitizer"), *glob.glob("/opt/cuda/bin/compute-sanitizer"),
              *glob.glob("/usr/local/cuda*/compute-sanitizer/compute-sanitizer")]
    try:
        import nvidia
        for folder in nvidia.__path__:
            places += glob.glob(os.path.join(folder, "**", "compute-sanitizer"), recursive=True)
    except ImportError:
        pass
    return next((place for place in places if place and os.access(place, os.X_OK)), None)


def sanitizer(context):
    """memcheck and racecheck over the small shapes: out-of-bounds accesses and races that give right results by luck."""
    program = find_sanitizer()
    if not program:
        raise Skip("compute-sanitizer is not installed")
    rows = []
    for tool in ("memcheck", "racecheck"):
        for dtype in ("bfloat16", "float32"):
            def one():
                context.require(8, tool)
                code, out, err = context.run("selftest", "--device", context.device, "--small", "--dtype", dtype, check=False,
                                             wrapper=(program, "--tool", tool, "--error-exitcode", "9", "--print-limit", "20"))
                said = [line for line in (out + err).splitlines() if line.startswith("=====")]
                summary = next((line.strip("= ") for line in reversed(said) if "SUMMARY" in line), "")
                return {"passed": code == 0, "exit_code": code, "summary": summary, **({} if code == 0 else {"said": said[:40] or err.splitlines()[-10:]})}
            attempt(rows, f"{tool} {dtype}", one)
    bad = any("failed" in row or row.get("passed") is False for row in rows)
    return {"program": program, "rows": rows, "status": "failed" if bad else "passed"}


def tables(context):
    """The engine's own times, over one load of the model per precision."""
    rows = []
    model = f"synth:{context.preset}"
    sizes = ["--image-sizes", "768,1024,1536"] if context.device == "cuda" else []
    kinds = {"bfloat16": ["load", "encode", "prefill", "decode", "e2e"], "float16": ["encode", "prefill", "decode"]}
    for dtype, wanted in kinds.items():
        def one():
            context.require(15, dtype)
            return {"bench": context.bench(*wanted, "--model", model, "--dtype", dtype, *sizes)}
        attempt(rows, dtype, one)

    def kernels():
        context.require(10, "kernels")
        return {"bench": context.bench("kernels", "--model", model, "--dtype", "bfloat16")}
    attempt(rows, "kernels bfloat16", kernels)
    return {"rows": rows, "status": "failed" if any("failed" in row for row in rows) else "passed"}
