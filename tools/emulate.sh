#!/usr/bin/env bash
# Runs a command on the emulated device: builds it when needed, then COMMAND with `--device cuda` available.
#   tools/emulate.sh COMMAND ARGS...
#   tools/emulate.sh convllava run --device cuda --dtype bf16 --image picture.jpg --prompt "What is this?"
# `convllava` is the built command line of this checkout. CONVLLAVA_EMULATOR_SANITIZE=1 takes the AddressSanitizer + UBSan build.
# What the device is and checks can be set: docs/emulator.md lists the CONVLLAVA_EMULATED_... variables.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
if [ $# -eq 0 ]; then sed -n '2,6p' "$0" | sed 's/^# \{0,1\}//' >&2; exit 2; fi

folder="$root/artifacts/emulator"
build=("$root/kernels/emulator/build.sh")
if [ "${CONVLLAVA_EMULATOR_SANITIZE:-0}" = 1 ]; then
    folder="$folder-sanitize"
    build+=(--sanitize)
fi
"${build[@]}" --out "$folder" >&2
export CONVLLAVA_CUDA_PATH="$folder" CONVLLAVA_EMULATED_DEVICE=1
if [ "${CONVLLAVA_EMULATOR_SANITIZE:-0}" = 1 ]; then
    # The sanitizer must be in the process before anything else. The .NET runtime handles segmentation faults itself and leaves
    # memory to the exit, so those two of its reports stay off.
    preload=$("${CXX:-g++}" -print-file-name=libasan.so)
    export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0:handle_segv=0:allow_user_segv_handler=1:use_sigaltstack=0}"
    export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
fi

command=$1
shift
if [ "$command" = convllava ]; then
    newest() { find "$root/src/ConvLLaVA.Cli/bin" -name convllava.dll -o -name ConvLLaVA.Cli.dll 2>/dev/null | xargs -r ls -t 2>/dev/null | head -n 1; }
    built=$(newest)
    if [ -z "$built" ]; then
        dotnet build "$root/src/ConvLLaVA.Cli" -c Release -v quiet --nologo >&2
        built=$(newest)
    fi
    set -- dotnet "$built" "$@"
else
    set -- "$command" "$@"
fi
if [ -n "${preload:-}" ]; then exec env LD_PRELOAD="$preload" "$@"; fi
exec "$@"
