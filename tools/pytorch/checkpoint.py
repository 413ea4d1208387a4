"""Loads a ConvLLaVA checkpoint folder into the plain PyTorch modules, by the rules the engine follows.

Language model and projector come from the folder itself. The vision tower comes from the first of these that exists:
an explicit folder, the folder `mm_vision_tower` names (absolute, relative to the checkpoint, or a sibling with that
last name), the `vision_tower/` subfolder. A tower folder without weights only describes the tower; its tensors are
then those inside the language model's own files. Everything is computed in fp32 over the stored values.
"""
import json
import os

import torch

from convllava import VISION_PREFIX, ConvLlava
from safetensors_io import load_file

# What the original assumes where the published config.json says nothing.
DEFAULTS = {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "image_aspect_ratio": None,
    "image_grid_pinpoints": None,
    "max_position_embeddings": 2048,
    "mm_patch_merge_type": "flat",
    "mm_projector_type": "linear",
    "mm_use_im_patch_token": True,
    "mm_use_im_start_end": False,
    "mm_vision_select_layer": -1,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "tokenizer_model_max_length": None,
}
WEIGHT_FILES = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin")


def read_json(*path):
    with open(os.path.join(*path), encoding="utf-8") as file:
        return json.load(file)


def read_config(folder):
    return {**DEFAULTS, **read_json(folder, "config.json")}


def load_weight_file(path):
    return load_file(path) if path.endswith(".safetensors") else torch.load(path, map_location="cpu")


def read_weights(folder):
    """All tensors of a folder in their stored dtypes, or None where it holds no weights. An index beats a single file."""
    for name in WEIGHT_FILES:
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            continue
        if not name.endswith(".index.json"):
            return load_weight_file(path)
        weight_map = read_json(path)["weight_map"]
        shards = {file: load_weight_file(os.path.join(folder, file)) for file in sorted(set(weight_map.values()))}
        return {tensor: shards[file][tensor] for tensor, file in weight_map.items()}
    return None


def find_vision_folder(folder, config, override=None):
    """The folder with the tower's config.json and preprocessor_config.json."""
    if override:
        candidates = [override]
    else:
        folder = os.path.abspath(folder)
        named = config.get("mm_vision_tower") or "vision_tower"
        last = os.path.basename(named.rstrip("/"))
        candidates = [named] if os.path.isabs(named) else [os.path.join(folder, named)]
        candidates += [os.path.join(os.path.dirname(folder), last), os.path.join(folder, "vision_tower")]
    for candidate in candidates:
        if os.path.isfile(os.path.join(candidate, "config.json")):
            return candidate
    raise FileNotFoundError("no vision tower; looked in " + ", ".join(candidates))


def apply_select_layer(config, vision_config):
    """-2 removes the last block of the last stage; every other value changes nothing in a ConvNeXt tower."""
    vision_config = dict(vision_config, depths=list(vision_config["depths"]))
    if config["mm_vision_select_layer"] == -2:
        vision_config["depths"][-1] -= 1
    return vision_config


def collect_weights(folder, config, vision_folder):
    """Language model, projector and the authoritative vision tensors under their full names, in stored dtypes."""
    tensors = read_weights(folder)
    if tensors is None:
        raise FileNotFoundError(f"no weights in {folder}: none of " + ", ".join(WEIGHT_FILES))
    vision = read_weights(vision_folder)
    if vision is not None:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(VISION_PREFIX)}
        tensors.update({VISION_PREFIX + name: tensor for name, tensor in vision.items()})
    if config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    return tensors


def load(folder, vision_folder=None):
    """-> (ConvLlava in fp32 and eval mode, LLM config with defaults, vision tower folder)."""
    config = read_config(folder)
    vision_folder = find_vision_folder(folder, config, vision_folder)
    if config["mm_patch_merge_type"] != "flat":
        raise ValueError(f"mm_patch_merge_type {config['mm_patch_merge_type']} cannot work with a ConvNeXt tower")
    model = ConvLlava(config, apply_select_layer(config, read_json(vision_folder, "config.json")))
    tensors = collect_weights(folder, config, vision_folder)
    wanted = model.state_dict().keys()
    missing = sorted(set(wanted) - tensors.keys())
    if missing:
        raise KeyError(f"{len(missing)} tensors are missing, e.g. {missing[0]}")
    # Left over and harmless: the final norm that is never applied, cached rotary frequencies, a removed last block.
    model.load_state_dict({name: tensors[name].float() for name in wanted})
    return model.eval(), config, vision_folder
