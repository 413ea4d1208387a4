"""Seeded pictures for the demo model: one to four coloured shapes on a muted, textured background.

`make_scene(seed)` decides everything there is to know about a picture, `draw_scene(scene)` paints it (RGB, PIL).
Positions, sizes and boxes are fractions of the padded square, the frame in which the model sees every picture.
A scene holds nothing ambiguous: each (colour, shape) pair occurs once, sizes are clearly small or large, and no
centre lies near the border of a position word's region.
"""
import math

import numpy as np
from PIL import Image, ImageDraw

COLORS = {"red": (214, 40, 40), "green": (46, 160, 67), "blue": (38, 98, 217),
          "yellow": (247, 210, 46), "purple": (140, 60, 190), "orange": (243, 132, 28)}
SHAPES = ("circle", "square", "triangle", "star")
SIZES = {"small": (0.13, 0.19), "large": (0.27, 0.36)}
POSITIONS = (("top left", "top", "top right"), ("left", "center", "right"), ("bottom left", "bottom", "bottom right"))
PAD_COLOR = (122, 116, 104)
TRAIN_SEED, HELD_OUT_SEED, SAMPLE_SEED = 0, 1_000_000, 2_000_000

CELLS = 4  # the demo model's visual tokens form a 4 x 4 grid; no two centres share a cell
POSITION_MARGIN, CELL_MARGIN, GAP = 0.035, 0.012, 0.02
SUPERSAMPLE = 4


# --------------------------------------------------------------------------------------------------- layout
def position_of(cx, cy):
    return POSITIONS[min(int(cy * 3), 2)][min(int(cx * 3), 2)]


def cell_of(cx, cy):
    return min(int(cy * CELLS), CELLS - 1) * CELLS + min(int(cx * CELLS), CELLS - 1)


def near_border(value):
    return (any(abs(value - border) < POSITION_MARGIN for border in (1 / 3, 2 / 3))
            or any(abs(value - border) < CELL_MARGIN for border in (0.25, 0.5, 0.75)))


def outline(shape):
    """The shape's corners on a circle of radius 1 (a circle is a polygon of 90 corners), y downwards."""
    if shape == "circle":
        angles, radii = [i * 2 * math.pi / 90 for i in range(90)], [1.0] * 90
    elif shape == "square":
        angles, radii = [math.pi / 4 + i * math.pi / 2 for i in range(4)], [1.0] * 4
    elif shape == "triangle":
        angles, radii = [-math.pi / 2 + i * 2 * math.pi / 3 for i in range(3)], [1.0] * 3
    else:
        angles, radii = [-math.pi / 2 + i * math.pi / 5 for i in range(10)], [1.0, 0.45] * 5
    return np.array([[r * math.cos(a), r * math.sin(a)] for a, r in zip(angles, radii)])


OUTLINES = {shape: outline(shape) for shape in SHAPES}


def try_object(rng, color, shape, size, objects, picture):
    """Places one object, or returns None where it would overlap, stick out or be ambiguous."""
    corners = OUTLINES[shape]
    low, high = corners.min(0), corners.max(0)
    extent = rng.uniform(*SIZES[size])
    radius = extent / (high - low).max()
    width, height = radius * (high - low)
    (left, top), (right, bottom) = picture
    if right - left < width + 0.02 or bottom - top < height + 0.02:
        return None
    x1 = rng.uniform(left + 0.01, right - 0.01 - width)
    y1 = rng.uniform(top + 0.01, bottom - 0.01 - height)
    box = (x1, y1, x1 + width, y1 + height)
    cx, cy = x1 + width / 2, y1 + height / 2
    if near_border(cx) or near_border(cy):
        return None
    for other in objects:
        b = other["box"]
        apart = box[0] > b[2] + GAP or b[0] > box[2] + GAP or box[1] > b[3] + GAP or b[1] > box[3] + GAP
        if not apart or other["cell"] == cell_of(cx, cy):
            return None
    return {"color": color, "shape": shape, "size": size, "box": box, "radius": radius,
            "hub": (x1 - low[0] * radius, y1 - low[1] * radius),  # where the outline's own origin lies
            "position": position_of(cx, cy), "cell": cell_of(cx, cy)}


def make_scene(seed):
    rng = np.random.default_rng(seed)
    aspect = math.exp(rng.uniform(-math.log(1.6), math.log(1.6)))
    side = int(rng.integers(200, 481))
    short = max(160, int(round(side / max(aspect, 1 / aspect))))
    side = max(side, short)
    width, height = (side, short) if aspect > 1 else (short, side)
    left, top = ((side - width) // 2) / side, ((side - height) // 2) / side
    picture = ((left, top), (left + width / side, top + height / side))
    wanted, objects = int(rng.integers(1, 5)), []
    # Repeated colours and shapes are more common than chance would have them: they make counting a task.
    palette = rng.permutation(list(COLORS))[:int(rng.integers(1, 7))]
    kinds = rng.permutation(SHAPES)[:int(rng.integers(1, 5))]
    for _ in range(400):
        if len(objects) == wanted:
            break
        color, shape = str(rng.choice(palette)), str(rng.choice(kinds))
        if any(o["color"] == color and o["shape"] == shape for o in objects):
            color, shape = str(rng.choice(list(COLORS))), str(rng.choice(SHAPES))
            if any(o["color"] == color and o["shape"] == shape for o in objects):
                continue
        placed = try_object(rng, color, shape, str(rng.choice(list(SIZES))), objects, picture)
        if placed:
            objects.append(placed)
    objects.sort(key=lambda o: o["cell"])  # reading order
    return {"seed": seed, "width": width, "height": height, "objects": objects}


def mirror_scene(scene):
    """The same scene seen in a mirror (left and right exchanged); for features of mirrored pictures."""
    objects = []
    for o in scene["objects"]:
        x1, y1, x2, y2 = o["box"]
        box = (1 - x2, y1, 1 - x1, y2)
        cx, cy = (box[0] + box[2]) / 2, (y1 + y2) / 2
        objects.append({**o, "box": box, "position": position_of(cx, cy), "cell": cell_of(cx, cy), "hub": None})
    objects.sort(key=lambda o: o["cell"])
    return {**scene, "objects": objects}


# -------------------------------------------------------------------------------------------------- drawing
def muted_color(rng):
    value, saturation, hue = rng.uniform(70, 235), rng.uniform(0.03, 0.25), rng.uniform(0, 2 * math.pi)
    tint = np.array([math.cos(hue), math.cos(hue - 2 * math.pi / 3), math.cos(hue + 2 * math.pi / 3)])
    return np.clip(value * (1 + saturation * 0.6 * tint), 0, 255)


def background(rng, width, height):
    """Gradient, stripes, checks or soft noise between two muted colours, with a little grain: float [h,w,3]."""
    first = muted_color(rng)
    second = np.clip(0.5 * first + 0.5 * muted_color(rng), 0, 255)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, math.pi)
    along = math.cos(angle) * x + math.sin(angle) * y
    across = -math.sin(angle) * x + math.cos(angle) * y
    period = rng.uniform(0.06, 0.25) * max(width, height)
    kind = rng.choice(["gradient", "stripes", "checks", "noise"])
    if kind == "gradient":
        mix = (along - along.min()) / (along.max() - along.min())
    elif kind == "stripes":
        mix = np.clip(0.5 + period / 6 * np.sin(2 * math.pi * along / period), 0, 1)
    elif kind == "checks":
        wave = np.sin(math.pi * along / period) * np.sin(math.pi * across / period)
        mix = np.clip(0.5 + period / 3 * wave, 0, 1)
    else:
        cells = rng.integers(0, 256, (int(rng.integers(3, 12)), int(rng.integers(3, 12)))).astype(np.uint8)
        mix = np.asarray(Image.fromarray(cells).resize((width, height), Image.BICUBIC), dtype=np.float32) / 255
    canvas = first + (second - first) * mix[..., None]
    return canvas + rng.normal(0, rng.uniform(0, 5), (height, width, 1))


def paint(canvas, points, color):
    """Fills a polygon (points in pixels) with anti-aliased edges. `color` may be one colour or one per row."""
    height, width = canvas.shape[:2]
    x0, y0 = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
    x1, y1 = np.minimum(np.ceil(points.max(0)).astype(int) + 1, (width, height))
    mask = Image.new("L", ((x1 - x0) * SUPERSAMPLE, (y1 - y0) * SUPERSAMPLE))
    local = (points - (x0, y0)) * SUPERSAMPLE - 0.5
    ImageDraw.Draw(mask).polygon([tuple(p) for p in local], fill=255)
    alpha = np.asarray(mask.reduce(SUPERSAMPLE), dtype=np.float32)[..., None] / 255
    region = canvas[y0:y1, x0:x1]
    region += alpha * (color(np.linspace(0, 1, y1 - y0))[:, None] - region)


def draw_scene(scene):
    rng = np.random.default_rng([scene["seed"], 1])
    width, height = scene["width"], scene["height"]
    side = max(width, height)
    canvas = background(rng, width, height)
    for o in scene["objects"]:
        base = np.array(COLORS[o["color"]]) + rng.uniform(-12, 12, 3)
        shade = rng.uniform(0, 0.14)  # a little darker towards the bottom
        hub = np.array(o["hub"]) * side - ((side - width) // 2, (side - height) // 2)
        points = OUTLINES[o["shape"]] * o["radius"] * side
        fill = lambda t, base=base, shade=shade: base * (1 + shade * (0.5 - t))[:, None]
        if rng.random() < 0.5:  # a darker rim
            rim = rng.uniform(0.5, 0.75)
            paint(canvas, hub + points, lambda t, base=base, rim=rim: np.repeat(base[None] * rim, len(t), 0))
            paint(canvas, hub + points * rng.uniform(0.84, 0.93), fill)
        else:
            paint(canvas, hub + points, fill)
    return Image.fromarray(np.clip(canvas + 0.5, 0, 255).astype(np.uint8))


def model_input(picture, size=256):
    """Pads to a square and resizes exactly as the original's preprocessing does: uint8 [size,size,3]."""
    picture = picture.convert("RGB")
    width, height = picture.size
    side = max(width, height)
    if width != height:
        square = Image.new("RGB", (side, side), PAD_COLOR)
        square.paste(picture, ((side - width) // 2, (side - height) // 2))
        picture = square
    if side != size:
        picture = picture.resize((size, size), Image.BICUBIC)
    return np.asarray(picture)
