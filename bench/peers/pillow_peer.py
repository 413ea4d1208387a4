"""Prepares pictures with Pillow and numpy, as the original does, for bench/peers: one command a line on standard input, one answer a
line on standard output.

    versions                      versions of Pillow and its JPEG library
    prepare FILE SIDE             decode, pad to a square, resize, normalise: milliseconds and the SHA-256 of the resized samples
    decode FILE                   decode alone
    resize FILE SIDE              resize alone, of the decoded picture
"""
import hashlib
import sys
import time

import numpy
from PIL import Image, features

MEAN = numpy.array([0.48145466, 0.4578275, 0.40821073], dtype=numpy.float32)
STD = numpy.array([0.26862954, 0.26130258, 0.27577711], dtype=numpy.float32)
PAD = tuple(int(value * 255) for value in (0.48145466, 0.4578275, 0.40821073))


def square(image):
    side = max(image.size)
    canvas = Image.new("RGB", (side, side), PAD)
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas


def normalise(image):
    values = numpy.asarray(image).astype(numpy.float32) * numpy.float32(1 / 255)
    return numpy.ascontiguousarray(((values - MEAN) / STD).transpose(2, 0, 1))


def run(command, path, side):
    decoded = None
    if command == "resize":
        decoded = Image.open(path).convert("RGB")
    started = time.perf_counter()
    if command == "decode":
        result = Image.open(path).convert("RGB")
    elif command == "resize":
        result = decoded.resize((side, side), Image.BICUBIC)
    else:
        result = square(Image.open(path).convert("RGB")).resize((side, side), Image.BICUBIC)
        normalise(result)
    return (time.perf_counter() - started) * 1000, hashlib.sha256(result.tobytes()).hexdigest()


for line in sys.stdin:
    words = line.split("\t")
    words[-1] = words[-1].rstrip("\n")
    if words[0] == "versions":
        print(f"Pillow {Image.__version__}, libjpeg-turbo {features.version_feature('libjpeg_turbo')}, numpy {numpy.__version__}", flush=True)
    else:
        milliseconds, digest = run(words[0], words[1], int(words[2]) if len(words) > 2 else 0)
        print(f"{milliseconds:.4f}\t{digest}", flush=True)
