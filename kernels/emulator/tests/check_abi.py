#!/usr/bin/env python3
"""Holds the emulated device's headers against the ABI facts of the real ones.

    check_abi.py CUDA-13.0.JSON [FOLDER OF BUILT LIBRARIES]

Every prototype of abi/*.h that the facts know must be the same, every enumerator must have the same value, every structure the same
size and offsets (asked of the C++ compiler). With a folder, each declared function must be exported by its library. Answers 0, or 1
after saying what differs.
"""
import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ABI = os.path.join(HERE, "..", "abi")
# Declared here, absent from the facts.
ADDED = {"cuEventElapsedTime", "cuProfilerStart", "cuProfilerStop", "cuFuncGetParamInfo", "cublasLtGetStatusName",
         "cublasLtMatrixLayoutGetAttribute"}
STRUCTS = ["CUuuid", "CUlaunchConfig", "CUlaunchAttribute", "CUgraphExecUpdateResultInfo", "cublasLtMatmulAlgo_t",
           "cublasLtMatmulHeuristicResult_t"]


def normal(text):
    text = re.sub(r"\s+", " ", text).strip().rstrip(";")
    text = re.sub(r"\s*([*(),\[\]])\s*", r"\1", text)
    return text


def prototypes(text):
    text = re.sub(r"//[^\n]*", "", text)
    found = {}
    for match in re.finditer(r"^(?!typedef)([\w ]+[ *]+)((?:cu|nvrtc|cublas)\w+)\(([^;{]*)\);", text, re.M):
        found[match.group(2)] = normal(match.group(0))
    return found


def enumerators(text):
    return {name: int(value, 0) for name, value in re.findall(r"^\s+(\w+) = (-?\w+),$", text, re.M)}


def compiled_layouts(facts):
    lines = ['#include "cublaslt_abi.h"', "#include <cstdio>", "int main() {"]
    for name in STRUCTS:
        lines.append(f'std::printf("{name} %zu %zu\\n", sizeof({name}), alignof({name}));')
        for field in facts[name]["fields"]:
            if field in ("pad", "reserved", "data", "bytes"):
                continue
            lines.append(f'std::printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}), sizeof({name}::{field}));')
    lines.append("}")
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "layouts.cpp")
        with open(source, "w", encoding="utf-8") as file:
            file.write("\n".join(lines))
        program = os.path.join(folder, "layouts")
        subprocess.run([os.environ.get("CXX", "g++"), "-std=c++17", "-I", ABI, source, "-o", program], check=True)
        output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {line.split()[0]: tuple(map(int, line.split()[1:])) for line in output.splitlines()}


def main():
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    with open(sys.argv[1], encoding="utf-8") as file:
        facts = json.load(file)
    wrong = []
    declared = {}
    values = {}
    for header in ("cuda_abi.h", "cublaslt_abi.h"):
        with open(os.path.join(ABI, header), encoding="utf-8") as file:
            text = file.read()
        declared.update(prototypes(text))
        values.update(enumerators(text))

    for name, prototype in sorted(declared.items()):
        if name in facts["functions"]:
            if normal(facts["functions"][name]) != prototype:
                wrong.append(f"{name}:\n    here  {prototype}\n    facts {normal(facts['functions'][name])}")
        elif name not in ADDED:
            wrong.append(f"{name} is not among the facts")
    known = {name: value for enum in facts["enums"].values() for name, value in enum.items()}
    checked = 0
    for name, value in sorted(values.items()):
        if name in known:
            checked += 1
            if known[name] != value:
                wrong.append(f"{name} is {value} here and {known[name]} in the facts")
        else:
            wrong.append(f"{name} is not among the facts")
    layouts = compiled_layouts(facts["structs"])
    for name in STRUCTS:
        fact = facts["structs"][name]
        if layouts[name] != (fact["size"], fact["align"]):
            wrong.append(f"{name} has size and alignment {layouts[name]}, the facts say {(fact['size'], fact['align'])}")
        for field, place in fact["fields"].items():
            got = layouts.get(f"{name}.{field}")
            if got is not None and got != (place["offset"], place["size"]):
                wrong.append(f"{name}.{field} is at {got}, the facts say {(place['offset'], place['size'])}")
    if len(sys.argv) > 2:
        exported = set()
        for library in ("libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13"):
            output = subprocess.run(["nm", "-D", "--defined-only", os.path.join(sys.argv[2], library)], check=True, capture_output=True, text=True).stdout
            exported.update(line.split()[-1] for line in output.splitlines())
        wrong += [f"{name} is declared and not exported" for name in sorted(set(declared) - exported)]
        api = re.compile(r"^(cu[A-Z]|nvrtc[A-Z]|cublasLt[A-Z])")
        wrong += [f"{name} is exported and not declared" for name in sorted(exported) if api.match(name) and name not in declared]
    if not declared or not checked:
        wrong.append("nothing was found in the headers")
    for line in wrong:
        print(line)
    print(f"{len(declared)} prototypes, {checked} values, {len(layouts)} places checked; {len(wrong)} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
