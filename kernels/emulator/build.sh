#!/usr/bin/env bash
# Builds the emulated device: libcuda.so.1, libnvrtc.so.13 and libcublasLt.so.13, with the headers that kernels are compiled with.
#   kernels/emulator/build.sh [--sanitize] [--self-test] [--out DIR]
#     --sanitize    with AddressSanitizer and UBSan, kernels included (default folder artifacts/emulator-sanitize)
#     --self-test   also builds DIR/self_test and runs it
# The compiler is CXX, else g++, else clang++. Only what changed is compiled again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
sanitize=0 self_test=0 out=""
while [ $# -gt 0 ]; do
    case "$1" in
        --sanitize) sanitize=1 ;;
        --self-test) self_test=1 ;;
        --out) shift; out=${1:?--out needs a folder} ;;
        *) echo "usage: build.sh [--sanitize] [--self-test] [--out DIR]" >&2; exit 2 ;;
    esac
    shift
done
if [ -z "$out" ]; then
    out="$root/artifacts/emulator"
    [ $sanitize -eq 1 ] && out="$out-sanitize"
fi
if [ -z "${CXX:-}" ]; then
    if command -v g++ >/dev/null; then CXX=g++
    elif command -v clang++ >/dev/null; then CXX=clang++
    else echo "The emulated device needs a C++17 compiler: install g++ or clang++, or set CXX." >&2; exit 1
    fi
fi
mkdir -p "$out/obj"
exec 9>"$out/obj/lock"
if command -v flock >/dev/null; then flock 9; fi  # two tests may ask for it at once

flags=(-std=c++17 -O2 -fPIC -Wall -Wextra -fvisibility=hidden -fno-gnu-unique -pthread)
link=(-shared -pthread -Wl,-Bsymbolic -Wl,-z,defs)
if [ $sanitize -eq 1 ]; then
    flags+=(-g1 -Wno-maybe-uninitialized -fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=undefined -fno-omit-frame-pointer -DEMULATOR_SANITIZE=1)
    link=(-shared -pthread -Wl,-Bsymbolic -fsanitize=address,undefined)
fi
case "$("$CXX" --version | head -n 1)" in *clang*) flags=("${flags[@]/-fno-gnu-unique/-Wno-unknown-warning-option}") ;; esac

# Everything is compiled again when a header, the compiler or the flags have changed.
key=$({ echo "$CXX" "${flags[@]}"; "$CXX" --version | head -n 1; cat "$here"/build.sh "$here"/*/*.h "$here"/include/device.cuh; } | cksum)
if [ "$(cat "$out/obj/key" 2>/dev/null || true)" != "$key" ]; then rm -f "$out"/obj/*.o; echo "$key" >"$out/obj/key"; fi

jobs_limit=$(nproc 2>/dev/null || echo 2)
failed="$out/obj/failed"
rm -f "$failed"
compile() { # source, extra flags
    local source=$1 object; shift
    object="$out/obj/$(basename "$(dirname "$source")")-$(basename "$source" .cpp).o"
    [ "$object" -nt "$source" ] && return
    while [ "$(jobs -rp | wc -l)" -ge "$jobs_limit" ]; do wait -n || true; done
    { "$CXX" "${flags[@]}" "$@" -c "$source" -o "$object.partial" && mv "$object.partial" "$object" || touch "$failed"; } &
}
for source in "$here"/runtime/*.cpp "$here"/driver/*.cpp "$here"/nvrtc/*.cpp; do compile "$source"; done
for source in "$here"/cublaslt/*.cpp; do compile "$source" -O3; done
if [ $self_test -eq 1 ]; then for source in "$here"/tests/*.cpp; do compile "$source"; done; fi
wait
[ -e "$failed" ] && exit 1

library() { # file, objects' prefixes, other arguments
    local file=$1 prefixes=$2 objects=() prefix; shift 2
    for prefix in $prefixes; do objects+=("$out"/obj/"$prefix"-*.o); done
    local object stale=0
    for object in "${objects[@]}"; do [ "$out/$file" -nt "$object" ] || stale=1; done
    [ $stale -eq 0 ] && return
    "$CXX" "${link[@]}" -Wl,-soname,"$file" "${objects[@]}" "$@" -o "$out/$file.partial"
    mv "$out/$file.partial" "$out/$file"
}
library libcuda.so.1 "runtime driver" -ldl
library libnvrtc.so.13 nvrtc -ldl
library libcublasLt.so.13 cublaslt -L"$out" -l:libcuda.so.1 -Wl,-rpath,'$ORIGIN'
mkdir -p "$out/include" "$out/abi"
cp -u "$here"/include/* "$out/include/"
cp -u "$here/abi/module.h" "$out/abi/"

if [ $self_test -eq 1 ]; then
    sanitizer=()
    [ $sanitize -eq 1 ] && sanitizer=(-fsanitize=address,undefined)
    "$CXX" -pthread "${sanitizer[@]}" "$out"/obj/tests-*.o -L"$out" -l:libcuda.so.1 -l:libnvrtc.so.13 -l:libcublasLt.so.13 -Wl,-rpath,"$out" -o "$out/self_test"
    "$out/self_test"
fi
