#!/bin/sh
# Builds the runtime's self-test into a folder and runs it; with --emulator, the seeded faults too, through the emulated libraries.
#
#     run.sh BUILD-FOLDER [--sanitize] [--bench] [--fragments fragments.json] [--emulator FOLDER [--fault NAME]]
#
# FOLDER is what build.sh made (with --sanitize: what build.sh --sanitize made). CXX chooses the compiler (g++).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
emulator=$(dirname "$here")
root=$(cd "$emulator/../.." && pwd)
[ $# -ge 1 ] || { sed -n '2,6p' "$0" >&2; exit 2; }
build=$1; shift
flags="-O2 -march=native" bench='' fragments='' libraries='' fault='*'
while [ $# -gt 0 ]; do
    case $1 in
        --sanitize) flags="-O1 -g -march=native -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" ;;
        --bench) bench=1 ;;
        --fragments) fragments=$2; shift ;;
        --emulator) libraries=$(cd "$2" && pwd); shift ;;
        --fault) fault=$2; shift ;;
        *) echo "unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
cxx="${CXX:-g++} -std=c++17 $flags -Wall -Wextra -Wno-unknown-pragmas -fPIC -fvisibility=hidden"
mkdir -p "$build"

# Only what is older than its source or any header is built again.
stale() { [ ! -e "$2" ] || [ -n "$(find "$1" "$emulator"/include "$emulator"/runtime/*.h "$emulator"/abi "$here"/*.h "$0" -newer "$2")" ]; }

if [ -z "$libraries" ]; then
    for source in "$emulator"/runtime/*.cpp "$here"/selftest.cpp "$here"/*.cu; do
        object=$build/$(basename "$source").o
        if stale "$source" "$object"; then $cxx -I "$emulator/include" -x c++ -c "$source" -o "$object"; fi
    done
    $cxx "$build"/*.o -o "$build/selftest" -lpthread
    if [ -n "$bench" ]; then exec "$build/selftest" --bench; fi
    exec "$build/selftest" ${fragments:+--fragments "$fragments"}
fi

if stale "$here/faults.cpp" "$build/faults"; then
    $cxx "$here/faults.cpp" -L"$libraries" -l:libcuda.so.1 -l:libnvrtc.so.13 -Wl,-rpath,"$libraries" -o "$build/faults"
fi
status=0 count=0
for source in "$root"/tests/ConvLLaVA.Kernels.Tests/Faults/$fault.cu; do
    count=$((count + 1))
    "$build/faults" "$source" "$root/kernels/device.cuh" 2>"$build/faults.log" || { echo "FAILED: $source"; status=1; }
done
echo "$count seeded faults"
exit $status
