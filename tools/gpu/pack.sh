#!/usr/bin/env bash
# Makes the program that the GPU check runs: a NativeAOT build for linux-x64 in artifacts/aot, with the demo model beside it.
# Needs the .NET 10 SDK and a C compiler (clang or gcc). Prints what must be on the GPU machine besides the checkout.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=artifacts/aot
linker=(); command -v clang >/dev/null || linker=(-p:CppCompilerAndLinker=gcc)
rm -rf "$out"
dotnet publish src/ConvLLaVA.Cli -c Release -r linux-x64 -p:PublishAot=true -p:PackAsTool=false -p:StripSymbols=true "${linker[@]}" -o "$out"
find "$out" -name '*.dbg' -o -name '*.pdb' -o -name '*.xml' | xargs -r rm -f
"$out/convllava" --help >/dev/null
total=$(du -sm "$out" | cut -f1)
echo
echo "carry to the GPU machine: the checkout, and"
du -ah --apparent-size "$out" | sort -k2
echo "$total MiB in $out"
[ "$total" -le 64 ] || { echo "more than 64 MiB: too much to carry" >&2; exit 1; }
