#!/usr/bin/env python3
"""Writes the pictures of tests/fixtures/images and expected.json: width, height and SHA-256 of the bytes that
PIL's Image.open(f).convert("RGB") gives, and of those bytes padded and resized for a few.

Needs Pillow (9.4 made the committed files), numpy and 2 GB of memory (strip.png is padded to 20000x20000). Run it from the repository root. The files are deterministic for one
version of Pillow and its libraries; expected.json names them."""
import hashlib
import io
import json
import os
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms, features

OUT = os.path.join("tests", "fixtures", "images")
W, H = 67, 45


def picture(w=W, h=H):
    """Smooth colour, hard edges and noise, so that chroma upsampling, clipping and filters all matter."""
    y, x = np.mgrid[0:h, 0:w]
    rgb = np.stack([x * 255 // w, y * 255 // h, (x * 5 + y * 9) % 256], -1)
    rgb[h // 4:h // 2, w // 4:w // 2] = (250, 5, 30)
    rgb[h // 2:, w * 3 // 4:] = np.random.RandomState(1).randint(0, 256, rgb[h // 2:, w * 3 // 4:].shape)
    return Image.fromarray(rgb.astype(np.uint8))


def alpha(w=W, h=H):
    y, x = np.mgrid[0:h, 0:w]
    a = (x * 7 + y * 3) % 256
    a[: h // 3] = 0
    return Image.fromarray(a.astype(np.uint8))


def profile(space):
    """A colour profile without its time of creation (bytes 24 to 35)."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()
    return data[:24] + bytes(12) + data[36:]


def put(name, data):
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)


def save(name, image, **options):
    b = io.BytesIO()
    image.save(b, **options)
    put(name, b.getvalue())


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def filtered(row, above, bpp, kind):
    left = bytes(bpp) + row[:-bpp] if bpp < len(row) else bytes(len(row))
    corner = bytes(bpp) + above[:-bpp] if bpp < len(row) else bytes(len(row))
    out = bytearray()
    for v, a, b, c in zip(row, left, above, corner):
        p = a + b - c
        pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
        paeth = a if pa <= pb and pa <= pc else b if pb <= pc else c
        out.append((v - (0, a, b, (a + b) // 2, paeth)[kind]) & 255)
    return bytes([kind]) + bytes(out)


def png(name, samples, depth, color, interlaced=False, chunks=(), split=1):
    """A PNG written by hand with every row filter. samples: [h, w, channels] unsigned."""
    h, w, channels = samples.shape
    raw = b""
    for x0, y0, dx, dy in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        part = samples[y0::dy, x0::dx]
        if part.shape[0] == 0 or part.shape[1] == 0:
            continue
        above = None
        for n, row in enumerate(part):
            if depth == 16:
                data = row.astype(">u2").tobytes()
            elif depth == 8:
                data = row.astype(np.uint8).tobytes()
            else:
                bits = "".join(format(int(v), f"0{depth}b") for v in row.ravel())
                bits += "0" * (-len(bits) % 8)
                data = bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))
            raw += filtered(data, above or bytes(len(data)), max(1, depth * channels // 8), n % 5)
            above = data
    packed = zlib.compress(raw, 9)
    step = -(-len(packed) // split)
    put(name, b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, color, 0, 0, int(interlaced)))
        + b"".join(chunks) + b"".join(chunk(b"IDAT", packed[i:i + step]) for i in range(0, len(packed), step)) + chunk(b"IEND", b""))


def make_png():
    rgb, a = np.asarray(picture()).astype(np.uint32), np.asarray(alpha()).astype(np.uint32)[..., None]
    grey = rgb.sum(-1, keepdims=True) // 3
    wide = lambda v: v * 257 ^ (v * 37 % 256)
    palette = chunk(b"PLTE", np.random.RandomState(2).randint(0, 256, 3 * 16).astype(np.uint8).tobytes())
    palette256 = chunk(b"PLTE", np.random.RandomState(3).randint(0, 256, 3 * 200).astype(np.uint8).tobytes())
    trns = chunk(b"tRNS", bytes(range(0, 256, 17)))
    for lace in (False, True):
        tail = "-adam7.png" if lace else ".png"
        png("grey1" + tail, grey >> 7, 1, 0, lace)
        png("grey2" + tail, grey >> 6, 2, 0, lace)
        png("grey4" + tail, grey >> 4, 4, 0, lace)
        png("grey8" + tail, grey, 8, 0, lace)
        png("grey16" + tail, wide(grey), 16, 0, lace)
        png("grey-alpha8" + tail, np.concatenate([grey, a], -1), 8, 4, lace)
        png("grey-alpha16" + tail, wide(np.concatenate([grey, a], -1)), 16, 4, lace)
        png("palette1" + tail, grey >> 7, 1, 3, lace, [palette])
        png("palette2" + tail, grey >> 6, 2, 3, lace, [palette])
        png("palette4" + tail, grey >> 4, 4, 3, lace, [palette])
        png("palette8" + tail, grey, 8, 3, lace, [palette256])
        png("rgb8" + tail, rgb, 8, 2, lace)
        png("rgb16" + tail, wide(rgb), 16, 2, lace)
        png("rgba8" + tail, np.concatenate([rgb, a], -1), 8, 6, lace)
        png("rgba16" + tail, wide(np.concatenate([rgb, a], -1)), 16, 6, lace)
    # Values around Pillow's clipping point of 16-bit grey.
    png("grey16-low.png", (np.arange(24 * 24).reshape(24, 24, 1) - 20).clip(0), 16, 0)
    png("palette4-trns.png", grey >> 4, 4, 3, False, [palette, trns])
    png("grey8-trns.png", grey, 8, 0, False, [chunk(b"tRNS", struct.pack(">H", 100))])
    png("rgb8-trns.png", rgb, 8, 2, False, [chunk(b"tRNS", struct.pack(">3H", 250, 5, 30))])
    png("rgb8-gamma.png", rgb, 8, 2, False, [chunk(b"gAMA", struct.pack(">I", 100000))])
    png("rgb8-gamma-chroma.png", rgb, 8, 2, False, [chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"cHRM", struct.pack(
        ">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000))])
    png("rgb8-split.png", rgb, 8, 2, split=7)
    png("one.png", rgb[:1, :1], 8, 2)
    png("one-adam7.png", rgb[:1, :1], 8, 2, True)
    png("strip.png", np.tile(rgb[:, :1], (445, 1, 1))[:20000], 8, 2)
    save("rgb8-icc.png", picture(), format="PNG", icc_profile=profile("LAB"))


def make_jpeg():
    image = picture()
    save("ycc420.jpg", image, format="JPEG", quality=80, subsampling=2)
    save("ycc422.jpg", image, format="JPEG", quality=80, subsampling=1)
    save("ycc444.jpg", image, format="JPEG", quality=93, subsampling=0)
    save("ycc420-progressive.jpg", image, format="JPEG", quality=60, progressive=True)
    save("ycc420-large.jpg", picture(401, 299), format="JPEG", quality=85)
    save("ycc420-even.jpg", picture(64, 48), format="JPEG", quality=20)
    save("grey.jpg", image.convert("L"), format="JPEG")
    save("grey-progressive.jpg", image.convert("L"), format="JPEG", progressive=True)
    save("icc-xyz.jpg", image, format="JPEG", icc_profile=profile("XYZ"))
    save("icc-srgb.jpg", image, format="JPEG", icc_profile=profile("sRGB"))
    exif = Image.Exif()
    exif[0x0112] = 6
    save("orientation6.jpg", image, format="JPEG", exif=exif)
    cmyk = Image.merge("CMYK", [*image.split(), alpha()])
    save("cmyk.jpg", cmyk, format="JPEG", quality=90)
    b = io.BytesIO()
    cmyk.save(b, format="JPEG", quality=90)
    data = b.getvalue()
    # Pillow writes CMYK with an Adobe marker of transform 0; transform 2 makes the same file a YCCK one.
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    put("ycck.jpg", data[:at] + b"\x02" + data[at + 1:])
    # Without the Adobe marker.
    start = data.index(b"\xff\xee")
    put("cmyk-no-adobe.jpg", data[:start] + data[start + 2 + struct.unpack(">H", data[start + 2:start + 4])[0]:])
    # RGB stored as RGB: an Adobe marker with transform 0 before a three-channel frame.
    b = io.BytesIO()
    image.save(b, format="JPEG", quality=90, subsampling=0)
    data = b.getvalue()
    put("rgb-adobe.jpg", data[:2] + b"\xff\xee" + struct.pack(">H", 14) + b"Adobe\0\x64\0\0\0\0\0" + data[20:])
    save("optimized.jpg", image, format="JPEG", quality=75, optimize=True)


def make_webp():
    image = picture()
    rgba = image.copy()
    rgba.putalpha(alpha())
    save("lossy.webp", image, format="WEBP", quality=70)
    save("lossless.webp", image, format="WEBP", lossless=True)
    save("lossy-alpha.webp", rgba, format="WEBP", quality=70, exact=True)
    save("lossless-alpha.webp", rgba, format="WEBP", lossless=True, exact=True)
    save("icc.webp", image, format="WEBP", quality=70, icc_profile=profile("sRGB"))
    save("animated.webp", rgba, format="WEBP", save_all=True, append_images=[rgba.rotate(180)], duration=100, lossless=True)


def make_gif():
    image = picture()
    p = image.quantize(64)
    save("palette.gif", p, format="GIF", interlace=0)
    save("interlaced.gif", p, format="GIF", interlace=1)
    save("transparent.gif", p, format="GIF", transparency=3)
    save("animated.gif", p, format="GIF", save_all=True, append_images=[p.rotate(180)], duration=50)
    save("grey.gif", image.convert("L"), format="GIF")
    save("two.gif", image.convert("1"), format="GIF")
    # Noise fills the table of 4096 codes several times.
    noise = Image.fromarray(np.random.RandomState(4).randint(0, 256, (100, 110)).astype(np.uint8), "P")
    noise.putpalette(np.random.RandomState(5).randint(0, 256, 768).astype(np.uint8).tobytes())
    save("noise.gif", noise, format="GIF")
    # A frame inside a larger screen: with a transparent index, without one, and one that leaves the screen.
    b = io.BytesIO()
    p.save(b, format="GIF", transparency=5, interlace=0)
    data = bytearray(b.getvalue())
    at = data.index(b"\x2c\0\0\0\0")
    larger = bytearray(data)
    larger[6:10] = struct.pack("<HH", W + 20, H + 10)
    larger[at + 1:at + 5] = struct.pack("<HH", 7, 3)
    put("offset-transparent.gif", larger)
    control = larger.index(b"\x21\xf9\x04")
    larger[control + 3] &= 0xFE
    put("offset.gif", larger)
    larger[6:10] = struct.pack("<HH", 30, 20)
    put("outside.gif", larger)


def bmp(name, w, h, bits, body, compression=0, extra=b"", palette=b"", colors=0):
    offset = 14 + 40 + len(extra) + len(palette)
    put(name, b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset)
        + struct.pack("<IiiHHIIiiII", 40, w, h, 1, bits, compression, len(body), 0, 0, colors, 0) + extra + palette + body)


def make_bmp():
    image = picture()
    rgba = image.copy()
    rgba.putalpha(alpha())
    save("rgb.bmp", image, format="BMP")
    save("rgba.bmp", rgba, format="BMP")
    save("palette8.bmp", image.quantize(100), format="BMP")
    save("grey.bmp", image.convert("L"), format="BMP")
    save("one-bit.bmp", image.convert("1"), format="BMP")
    values = np.arange(W * H, dtype=np.uint32).reshape(H, W) * 2654435761 >> 7
    row = lambda b: b + bytes(-len(b) % 4)
    words = b"".join(row(v.astype("<u2").tobytes()) for v in values)
    bmp("555.bmp", W, H, 16, words)
    bmp("565.bmp", W, H, 16, words, 3, struct.pack("<III", 0xF800, 0x7E0, 0x1F))
    bmp("555-top-down.bmp", W, -H, 16, words)
    longs = (values * 40503).astype("<u4").tobytes()
    bmp("32.bmp", W, H, 32, longs)
    bmp("32-fields.bmp", W, H, 32, longs, 3, struct.pack("<III", 0xFF000000, 0xFF0000, 0xFF00))
    palette = np.random.RandomState(6).randint(0, 256, 4 * 16).astype(np.uint8).tobytes()
    nibbles = b"".join(row((v[: (W + 1) // 2] & 255).astype(np.uint8).tobytes()) for v in values)
    bmp("palette4.bmp", W, H, 4, nibbles, palette=palette)
    bmp("palette4-few.bmp", W, H, 4, nibbles, palette=palette[:36], colors=9)
    palette256 = np.random.RandomState(7).randint(0, 256, 4 * 256).astype(np.uint8).tobytes()
    # Runs, literals (odd and even), early ends of rows and runs that are too long. No jumps: Pillow 9.4 reads those wrongly.
    rows = [b"\x07\x11\x00\x03\x01\x02\x03\x00\x05\x20\x00\x00", b"\x0a\x33\x00\x00", b"\x00\x04\x09\x08\x07\x06\x09\x44\x00\x00",
            b"\x03\x01\x02\x55\x00\x00", b"\x14\x66\x00\x00", b"\x14\x77\x00\x01"]
    bmp("rle8.bmp", 15, 6, 8, b"".join(rows), 1, palette=palette256)
    rows = [b"\x07\x1e\x00\x04\x12\x34\x04\x2d\x00\x00", b"\x0f\xa5\x00\x00", b"\x0f\x66\x00\x01"]
    bmp("rle4.bmp", 15, 3, 4, b"".join(rows), 2, palette=palette)
    o = b"".join(row(v.tobytes()) for v in np.asarray(image)[::-1, :, ::-1])
    put("os2.bmp", b"BM" + struct.pack("<IHHI", 26 + len(o), 0, 0, 26) + struct.pack("<IHHHH", 12, W, H, 1, 24) + o)


def padded(image, size):
    """LLaVA's expand2square with the CLIP mean, then CLIPImageProcessor's resize."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), (122, 116, 104))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.resize((size, size), Image.BICUBIC)


RESIZED = {"ycc420-large.jpg", "strip.png", "rgba8.png", "palette.gif", "lossy.webp", "555.bmp", "one.png"}


def main():
    os.makedirs(OUT, exist_ok=True)
    for n in os.listdir(OUT):
        if not n.endswith(".json"):
            os.remove(os.path.join(OUT, n))
    make_png()
    make_jpeg()
    make_webp()
    make_gif()
    make_bmp()
    sha = lambda image: hashlib.sha256(image.tobytes()).hexdigest()
    lines = []
    for n in sorted(os.listdir(OUT)):
        if n.endswith(".json"):
            continue
        with Image.open(os.path.join(OUT, n)) as f:
            mode, image = f.mode, f.convert("RGB")
        entry = {"file": n, "mode": mode, "width": image.width, "height": image.height, "sha256": sha(image)}
        if n in RESIZED:
            entry["padded_768_sha256"] = sha(padded(image, 768))
        lines.append("    " + json.dumps(entry))
    versions = {"pillow": Image.__version__, **{k: features.version(k) for k in ("libjpeg_turbo", "zlib", "webp")}}
    with open(os.path.join(OUT, "expected.json"), "w", encoding="utf-8") as f:
        f.write('{\n  "made_with": ' + json.dumps(versions) + ',\n  "files": [\n' + ",\n".join(lines) + "\n  ]\n}\n")


if __name__ == "__main__":
    main()
