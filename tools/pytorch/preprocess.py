"""Images to pixel values, as the original does it with Pillow and CLIPImageProcessor: uint8 resampling, then fp32.

`image_aspect_ratio` chooses the road: "pad" fills up to a square, "anyres" cuts tiles, anything else scales the
shortest edge and crops the centre.
"""
import ast
import math
import os

import numpy as np
import torch
from PIL import Image

from checkpoint import read_json


class Preprocessor:
    """The fields of preprocessor_config.json; sizes may be plain integers in old files."""

    def __init__(self, folder):
        config = read_json(folder, "preprocessor_config.json")
        size, crop = config["size"], config.get("crop_size", config["size"])
        self.size = size if isinstance(size, int) else size["shortest_edge"]
        self.crop = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
        self.mean, self.std = config["image_mean"], config["image_std"]
        self.factor = config.get("rescale_factor", 1 / 255)
        self.resample = config.get("resample", Image.BICUBIC)
        self.pad_colour = tuple(int(x * 255) for x in self.mean)

    def __call__(self, image):
        """RGB image -> fp32 array [3, crop height, crop width]."""
        width, height = image.size
        if width <= height:
            size = (self.size, int(self.size * height / width))
        else:
            size = (int(self.size * width / height), self.size)
        pixels = centre_crop(np.asarray(image.resize(size, self.resample)), *self.crop)
        pixels = (pixels * self.factor).astype(np.float32)  # the product is a double, rounded once
        pixels = (pixels - np.float32(self.mean)) / np.float32(self.std)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def centre_crop(pixels, height, width):
    """Crops [h,w,3]; where the picture is smaller than the crop, black fills the rest."""
    have_height, have_width = pixels.shape[:2]
    top, left = (have_height - height) // 2, (have_width - width) // 2
    if top >= 0 and left >= 0:
        return pixels[top:top + height, left:left + width]
    canvas = np.zeros((max(height, have_height), max(width, have_width), 3), pixels.dtype)
    above, before = math.ceil((canvas.shape[0] - have_height) / 2), math.ceil((canvas.shape[1] - have_width) / 2)
    canvas[above:above + have_height, before:before + have_width] = pixels
    top, left = max(0, top + above), max(0, left + before)
    return canvas[top:top + height, left:left + width]


def pad_to_square(image, colour):
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def select_best_resolution(size, candidates):
    """The candidate (w, h) that keeps most of the picture's pixels; ties go to the least wasted area, then the first."""
    width, height = size
    best, best_key = None, None
    for w, h in candidates:
        scale = min(w / width, h / height)
        effective = min(int(width * scale) * int(height * scale), width * height)
        key = (effective, effective - w * h)
        if best is None or key > best_key:
            best, best_key = (w, h), key
    return best


def fit_into(image, target):
    """Scales into the target (w, h) keeping the aspect ratio, centred on black."""
    (width, height), (w, h) = image.size, target
    if w / width < h / height:
        size = (w, min(math.ceil(height * (w / width)), h))
    else:
        size = (min(math.ceil(width * (h / height)), w), h)
    canvas = Image.new("RGB", target, (0, 0, 0))
    canvas.paste(image.resize(size), ((w - size[0]) // 2, (h - size[1]) // 2))
    return canvas


def anyres_tiles(image, grid_pinpoints, preprocessor):
    """The whole picture squeezed to a square, then the tiles of the fitted picture row by row."""
    if isinstance(grid_pinpoints, str):
        grid_pinpoints = ast.literal_eval(grid_pinpoints)
    fitted = fit_into(image, select_best_resolution(image.size, grid_pinpoints))
    step = preprocessor.crop[0]
    tiles = [image.resize((preprocessor.size, preprocessor.size))]
    for y in range(0, fitted.height, step):
        tiles += [fitted.crop((x, y, x + step, y + step)) for x in range(0, fitted.width, step)]
    return tiles


def process_images(images, config, vision_folder):
    """RGB pictures -> (pixel_values [n,3,H,W] fp32, how many of the n belong to each picture)."""
    preprocessor = Preprocessor(vision_folder)
    mode, pixels, counts = config["image_aspect_ratio"], [], []
    for image in images:
        if mode == "pad":
            tiles = [pad_to_square(image, preprocessor.pad_colour)]
        elif mode == "anyres":
            tiles = anyres_tiles(image, config["image_grid_pinpoints"], preprocessor)
        else:
            tiles = [image]
        pixels += [preprocessor(tile) for tile in tiles]
        counts.append(len(tiles))
    return torch.from_numpy(np.stack(pixels)), counts


def open_image(path):
    """As the original opens files: EXIF orientation is ignored."""
    if not os.path.isfile(path):
        raise FileNotFoundError(path)
    return Image.open(path).convert("RGB")
