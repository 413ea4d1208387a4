#!/usr/bin/env python3
"""Lets a library built with GCC 13 run beside the libstdc++ of GCC 12 (Debian 12), when all that it wants of the newer one is
std::ios_base_library_init: a function that only makes sure that std::cout exists, which the older library does by itself.

    fit_libstdcxx.py libLibTorchSharp.so

The file is changed in place: the version is marked as dispensable and the call goes to sched_yield. Nothing is done where the
machine's libstdc++ is new enough, or where the library wants more than that one function."""
import ctypes
import struct
import sys

SYMBOL, VERSION = b"_ZSt21ios_base_library_initv", b"GLIBCXX_3.4.32"
STAND_IN = b"sched_yield"
DYNSYM, VERNEED, VERSYM = 11, 0x6FFFFFFE, 0x6FFFFFFF
WEAK, UNVERSIONED = 2, 1


def sections(data):
    offset, = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    for i in range(count):
        _, kind, _, _, start, length, link, _, _, _ = struct.unpack_from("<IIQQQQIIQQ", data, offset + i * size)
        yield kind, start, length, link


def text(data, start):
    return bytes(data[start:data.index(0, start)])


def fit(data):
    table = list(sections(data))
    symbols, names = next((start, length) for kind, start, length, _ in table if kind == DYNSYM), None
    names = next(table[link][1] for kind, _, _, link in table if kind == DYNSYM)
    versions = next(start for kind, start, _, _ in table if kind == VERSYM)
    at = next(start for kind, start, _, _ in table if kind == VERNEED)
    wanted = None
    while wanted is None:  # every library that versions are wanted of
        _, count, _, aux, following = struct.unpack_from("<HHIII", data, at)
        entry = at + aux
        for _ in range(count):
            _, _, index, name, step = struct.unpack_from("<IHHII", data, entry)
            if text(data, names + name) == VERSION:
                wanted = entry, index & 0x7FFF
            entry += step
        if following == 0:
            break
        at += following
    if wanted is None:
        return False
    entry, index = wanted
    users = [i for i in range(symbols[1] // 24) if struct.unpack_from("<H", data, versions + 2 * i)[0] & 0x7FFF == index]
    if [text(data, names + struct.unpack_from("<I", data, symbols[0] + 24 * i)[0]) for i in users] != [SYMBOL]:
        sys.exit("The library wants more of " + VERSION.decode() + " than one function.")
    struct.pack_into("<H", data, entry + 4, WEAK)
    struct.pack_into("<H", data, versions + 2 * users[0], UNVERSIONED)
    start = names + struct.unpack_from("<I", data, symbols[0] + 24 * users[0])[0]
    data[start:start + len(SYMBOL)] = STAND_IN.ljust(len(SYMBOL), b"\0")
    return True


def main():
    try:
        getattr(ctypes.CDLL("libstdc++.so.6"), SYMBOL.decode())
        return
    except AttributeError:
        pass
    with open(sys.argv[1], "r+b") as file:
        data = bytearray(file.read())
        if fit(data):
            file.seek(0)
            file.write(data)
            print(sys.argv[1] + " was fitted to this machine's libstdc++.")


main()
