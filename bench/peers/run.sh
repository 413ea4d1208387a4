#!/usr/bin/env bash
# Measures this engine beside libtorch, ONNX Runtime, llama.cpp and Pillow on this machine's CPU, and writes docs/performance.md with its
# pictures and the record under bench/results. Stages can be named to run them alone; see bench/README.md.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
here=ConvLLaVA.Peers/bin/Release/net10.0/linux-x64

python=${PEERS_PYTHON:-/usr/bin/python3}
"$python" -c 'import PIL, numpy' 2>/dev/null || { echo "Pillow is left out: $python lacks PIL or numpy (PEERS_PYTHON names another)." >&2; python=; }
llama=llama-cpp/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64
if [ ! -d "$llama" ]; then
    (cd llama-cpp && npm install --ignore-scripts --no-package-lock --silent) || { echo "llama.cpp is left out: npm cannot install its libraries." >&2; llama=; }
fi

dotnet build -c Release -v q ConvLLaVA.Peers
"${python:-python3}" fit_libstdcxx.py "$here/libLibTorchSharp.so"
program= large=
if [ $# -eq 0 ] || [[ " $* " == *" memory "* ]]; then
    # A native program starts fastest; where it cannot be linked, the ordinary one is measured.
    program=program/convllava
    linker=(); command -v clang >/dev/null || linker=(-p:CppCompilerAndLinker=gcc)
    if ! dotnet publish ../../src/ConvLLaVA.Cli -c Release -r linux-x64 -p:PublishAot=true -p:PackAsTool=false "${linker[@]}" -o program -v q; then
        echo "No native program: the memory stage runs the one that dotnet build makes." >&2
        dotnet build -c Release -v q ../../src/ConvLLaVA.Cli
        program=../../src/ConvLLaVA.Cli/bin/Release/net10.0/convllava
    fi
    # The large checkpoint takes 14 GB of disk; PEERS_LARGE names where it is or is to be written.
    large=${PEERS_LARGE:-}
    if [ -n "$large" ] && [ ! -d "$large" ]; then "$program" synth --preset 7b-768 --dtype bfloat16 --out "$large"; fi
fi
name=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1 | tr 'A-Z' 'a-z' | tr -cs 'a-z0-9\n' '-' | sed 's/-*$//')

exec "$here/ConvLLaVA.Peers" --record "${PEERS_RECORD:-$root/bench/results/cpu-$name-$(date +%Y-%m-%d).json}" --docs "$root/docs" \
    ${llama:+--llama "$llama"} ${program:+--program "$program"} ${large:+--large "$large"} ${python:+--python "$python"} "$@"
