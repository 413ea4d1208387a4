// Describes an entry point that is linked in, as the emulated NVRTC does at the end of a compiled kernel file.
#pragma once

#include "../abi/module.h"

template <class F> struct Describe;
template <class... P> struct Describe<void(P...)> {
    template <void (*body)(P...)> static emu::Kernel kernel(const char* name, int max_threads) {
        return {name, &emu::Entry<P...>::template invoke<body>, emu::Entry<P...>::parameters, int(sizeof...(P)), max_threads, 1, -1};
    }
};
