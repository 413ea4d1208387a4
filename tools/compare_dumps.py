"""Compares two dumps tensor by tensor: python3 compare_dumps.py A.safetensors B.safetensors [--tolerance 1e-5]

Floats pass when the relative L2 distance |A-B|/|A| is within the tolerance; integers must be equal. A is the reference.
Greedy tokens must agree up to the first step whose margin in A is 1e-3 or less: there, rounding may choose either. What
only PyTorch's dump has (logits.last, generated_margins) is compared with the end of `logits`, or only read.
Exit code 1 when anything differs or is missing.
"""
import argparse
import json
import struct
import sys

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}
UNSURE_MARGIN = 1e-3


def load(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        raw = data[slice(*entry["data_offsets"])]
        if entry["dtype"] == "BF16":  # the upper half of an fp32
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, DTYPES[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors


def distance(a, b):
    """-> (largest absolute difference, relative L2 distance, why it cannot pass or None)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        count = lambda x: int(x.size - np.isfinite(x).sum())
        return np.nan, np.nan, f"not finite: {count(a)} in A, {count(b)} in B"
    difference = a - b
    norm = np.linalg.norm(a)
    relative = np.linalg.norm(difference) / norm if norm > 0 else float(difference.any())
    return float(np.abs(difference).max(initial=0)), float(relative), None


def sure_steps(dump):
    """How many greedy steps are decided clearly enough to be compared, the first unsure one excluded."""
    margins = dump.get("generated_margins")
    if margins is None:
        return None
    unsure = np.flatnonzero(~(margins > UNSURE_MARGIN))  # a NaN margin is unsure too
    return int(unsure[0]) if unsure.size else margins.size


def compare(name, a, b, tolerance, steps):
    """-> (max abs, relative L2, verdict, passed)."""
    note = ""
    if name.startswith("generated_") and steps is not None and steps < a.size:
        note = f" (first {steps} of {a.size} steps)"
        a, b = a[:steps], b[:steps]
    if a.shape != b.shape:
        return np.nan, np.nan, f"FAIL shape {list(b.shape)} in B" + note, False
    if np.issubdtype(a.dtype, np.integer):
        wrong = int((a != b).sum())
        return float(wrong), np.nan, (f"FAIL {wrong} differ" if wrong else "equal") + note, not wrong
    largest, relative, reason = distance(a, b)
    if reason:
        return largest, relative, "FAIL " + reason, False
    # A margin is the difference of two logits, so only its absolute error means something.
    passed = largest <= UNSURE_MARGIN if name == "generated_margins" else relative <= tolerance
    return largest, relative, ("ok" if passed else "FAIL") + note, passed


def report(a, b, tolerance, out=sys.stdout):
    """Prints the table; True when everything passes."""
    steps, passed = sure_steps(a), True
    if "logits.last" in a and "logits.last" not in b and "logits" in b:
        b = b | {"logits.last": b["logits"][-1]}
    if "generated_margins" not in b:
        a = {name: values for name, values in a.items() if name != "generated_margins"}
    print(f"{'tensor':26} {'shape':20} {'max abs':>10} {'rel L2':>10}  verdict", file=out)
    for name in sorted(a.keys() | b.keys()):
        if name not in a or name not in b:
            print(f"{name:26} {'':20} {'':10} {'':10}  MISSING in {'A' if name not in a else 'B'}", file=out)
            passed = False
            continue
        largest, relative, verdict, good = compare(name, a[name], b[name], tolerance, steps)
        print(f"{name:26} {str(list(a[name].shape)):20} {largest:10.3g} {relative:10.3g}  {verdict}", file=out)
        passed = passed and good
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="largest relative L2 distance (default 1e-5)")
    args = parser.parse_args()
    passed = report(load(args.a), load(args.b), args.tolerance)
    print("all equal within the tolerance" if passed else "DIFFERENT")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
