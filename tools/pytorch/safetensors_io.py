"""Reads and writes .safetensors files (F32, F16, BF16, I64) with nothing but torch.

Layout: u64 little-endian header length, a JSON header
{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {...}}, then the raw tensors;
offsets count from the first byte after the header.
"""
import json
import struct

import numpy as np
import torch

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def to_bytes(tensor):
    """The tensor's little-endian bytes. numpy has no bfloat16, so that one is viewed as int16."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.int16)
    return tensor.numpy().tobytes()


def from_bytes(data, dtype, shape):
    raw = np.frombuffer(data, dtype=np.uint8).copy()
    return torch.from_numpy(raw).view(dtype).reshape(shape)


def save_file(tensors, path, metadata=None):
    """tensors: {name: torch.Tensor}. Written in the order of the names, as the original library does for equal dtypes."""
    header, offset = {}, 0
    if metadata:
        header["__metadata__"] = dict(metadata)
    names = sorted(tensors)
    for name in names:
        tensor = tensors[name]
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts on a multiple of 8 bytes
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for name in names:
            file.write(to_bytes(tensors[name]))


def load_file(path):
    """Returns {name: torch.Tensor} in the stored dtypes."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
        tensors[name] = from_bytes(data[begin:end], dtype, shape) if end > begin else torch.empty(shape, dtype=dtype)
    return tensors
