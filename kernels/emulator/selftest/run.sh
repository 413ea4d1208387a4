#!/bin/sh
# Builds the runtime's self-test and the seeded faults into a folder, and runs them.
#
#     run.sh BUILD-FOLDER [--asan] [--bench] [--fragments fragments.json]
#
# CXX chooses the compiler (g++), EMULATOR_FLAGS replaces the optimisation flags.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
emulator=$(dirname "$here")
faults=$(cd "$emulator/../.." && pwd)/tests/ConvLLaVA.Kernels.Tests/Faults
[ $# -ge 1 ] || { sed -n '2,6p' "$0" >&2; exit 2; }
build=$1; shift
flags=${EMULATOR_FLAGS:--O2 -march=native}
bench= fragments=
while [ $# -gt 0 ]; do
    case $1 in
        --asan) flags="-O1 -g -march=native -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" ;;
        --bench) bench=1 ;;
        --fragments) fragments=$2; shift ;;
        *) echo "unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
cxx="${CXX:-g++} -std=c++17 $flags -Wall -Wextra -Wno-unknown-pragmas -fPIC"
mkdir -p "$build/faults"

# Only what is older than its source or any header is built again.
stale() { [ ! -e "$2" ] || [ -n "$(find "$1" "$emulator"/include "$emulator"/runtime/*.h "$emulator"/abi "$here"/*.h "$0" -newer "$2")" ]; }

for source in "$emulator"/runtime/*.cpp "$here"/selftest.cpp "$here"/*.cu; do
    object=$build/$(basename "$source").o
    if stale "$source" "$object"; then $cxx -fvisibility=hidden -I "$emulator/include" -x c++ -c "$source" -o "$object"; fi
done
# -rdynamic: the faults find the runtime in the executable, as kernels find it in the emulated driver.
$cxx -rdynamic "$build"/*.o -o "$build/selftest" -ldl -lpthread

if [ -z "$bench" ]; then
    for source in "$faults"/*.cu; do
        name=$(basename "$source" .cu)
        cp "$source" "$build/faults/"
        for fault in 0 1; do
            stale "$source" "$build/faults/$name.$fault.so" || continue
            printf '#include "%s"\n#include "%s"\nEXPORT_ENTRY(fault, 1024)\n' "$source" "$here/entry.h" > "$build/faults/$name.$fault.cpp"
            $cxx -fvisibility=hidden -shared -DFAULT=$fault -I "$emulator/include" "$build/faults/$name.$fault.cpp" -o "$build/faults/$name.$fault.so"
        done
    done
fi
if [ -n "$bench" ]; then exec "$build/selftest" --bench; fi
exec "$build/selftest" ${fragments:+--fragments "$fragments"} --faults "$build/faults"
