"""ConvLLaVA in plain PyTorch: ConvNeXt encoder, projector and LLaMA, with the original's parameter names.

A reference to read and to compare against, computed in fp32 whatever the stored dtype. `load_checkpoint(folder)`
reads a published or a demo checkpoint; every forward pass hands out its intermediate tensors.
"""
import glob
import json
import os
import re

import torch
from torch import nn
from torch.nn import functional as F

from safetensors_io import load_file

VISION_PREFIX = "model.vision_tower.vision_tower."


# --------------------------------------------------------------------------------------------- vision tower
class ChannelsFirstLayerNorm(nn.Module):
    """LayerNorm over the channels of an NCHW tensor (stem and downsampling)."""

    def __init__(self, channels, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x):
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    def __init__(self, channels, layer_scale):
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.layernorm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.layer_scale_parameter = nn.Parameter(layer_scale * torch.ones(channels)) if layer_scale > 0 else None

    def forward(self, x):
        y = self.layernorm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.pwconv2(F.gelu(self.pwconv1(y)))  # exact (erf) GELU
        if self.layer_scale_parameter is not None:
            y = self.layer_scale_parameter * y
        return x + y.permute(0, 3, 1, 2)


class ConvNextStage(nn.Module):
    def __init__(self, channels_in, channels, depth, layer_scale, downsample):
        super().__init__()
        self.downsampling_layer = nn.Sequential(
            ChannelsFirstLayerNorm(channels_in), nn.Conv2d(channels_in, channels, 2, stride=2)
        ) if downsample else nn.Identity()
        self.layers = nn.Sequential(*[ConvNextBlock(channels, layer_scale) for _ in range(depth)])

    def forward(self, x):
        return self.layers(self.downsampling_layer(x))


class ConvNextModel(nn.Module):
    """`config`: the dictionary of the vision tower's config.json. The original's final LayerNorm is never applied."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        widths, depths = config["hidden_sizes"], config["depths"]
        layer_scale = config.get("layer_scale_init_value", 1e-6)
        patch = config.get("patch_size", 4)
        self.embeddings = nn.Module()
        self.embeddings.patch_embeddings = nn.Conv2d(config.get("num_channels", 3), widths[0], patch, stride=patch)
        self.embeddings.layernorm = ChannelsFirstLayerNorm(widths[0])
        self.encoder = nn.Module()
        self.encoder.stages = nn.ModuleList(
            ConvNextStage(widths[max(s - 1, 0)], widths[s], depths[s], layer_scale, downsample=s > 0)
            for s in range(len(depths)))

    def forward(self, pixels):
        """pixels [B,3,H,W] -> list of NCHW hidden states: the stem's output, then every stage's."""
        x = self.embeddings.layernorm(self.embeddings.patch_embeddings(pixels))
        hidden_states = [x]
        for stage in self.encoder.stages:
            x = stage(x)
            hidden_states.append(x)
        return hidden_states

    def image_features(self, pixels):
        """The last hidden state as tokens, row by row: [B, (H/64)*(W/64), C] for five stages."""
        return self(pixels)[-1].flatten(2).transpose(1, 2)


# ------------------------------------------------------------------------------------------------ projector
def build_projector(config):
    kind = config.get("mm_projector_type", "linear")
    width_in, width = config["mm_hidden_size"], config["hidden_size"]
    if kind == "linear":
        return nn.Linear(width_in, width)
    if kind == "identity":
        return nn.Identity()
    match = re.match(r"^mlp(\d+)x_gelu$", kind)
    if not match:
        raise ValueError(f"Unknown projector type: {kind}")
    layers = [nn.Linear(width_in, width)]
    for _ in range(1, int(match.group(1))):
        layers += [nn.GELU(), nn.Linear(width, width)]
    return nn.Sequential(*layers)


# ---------------------------------------------------------------------------------------------------- LLaMA
class RmsNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def rope_tables(positions, head_dim, theta, scaling):
    """cos and sin [.., T, head_dim] of rotate-half RoPE. `scaling`: None or {"type": "linear", "factor": f}."""
    factor = 1.0
    if scaling:
        kind = scaling.get("type", scaling.get("rope_type"))
        if kind != "linear":
            raise ValueError(f"rope_scaling of type {kind} is not supported")
        factor = scaling["factor"]
    inv_freq = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = (positions.float() / factor)[..., None] * inv_freq
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class LlamaAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, self.heads = config["hidden_size"], config["num_attention_heads"]
        self.kv_heads = config.get("num_key_value_heads") or self.heads
        self.head_dim = width // self.heads
        self.q_proj = nn.Linear(width, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(width, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(width, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, width, bias=False)

    def forward(self, x, cos, sin, mask, past):
        batch, length, _ = x.shape
        split = lambda y, heads: y.view(batch, length, heads, self.head_dim).transpose(1, 2)
        q = rotate(split(self.q_proj(x), self.heads), cos, sin)
        k = rotate(split(self.k_proj(x), self.kv_heads), cos, sin)
        v = split(self.v_proj(x), self.kv_heads)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        cache = (k, v)
        if self.kv_heads != self.heads:  # grouped queries: head h reads key/value head h // group
            k, v = (y.repeat_interleave(self.heads // self.kv_heads, dim=1) for y in (k, v))
        scores = q @ k.transpose(2, 3) * self.head_dim ** -0.5 + mask
        y = scores.softmax(-1) @ v
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, -1)), cache


class LlamaMlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, inner = config["hidden_size"], config["intermediate_size"]
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        eps = config.get("rms_norm_eps", 1e-6)
        self.self_attn = LlamaAttention(config)
        self.mlp = LlamaMlp(config)
        self.input_layernorm = RmsNorm(config["hidden_size"], eps)
        self.post_attention_layernorm = RmsNorm(config["hidden_size"], eps)

    def forward(self, x, cos, sin, mask, past):
        y, cache = self.self_attn(self.input_layernorm(x), cos, sin, mask, past)
        x = x + y
        return x + self.mlp(self.post_attention_layernorm(x)), cache


class LlamaModel(nn.Module):
    """The decoder, with the projector and the vision tower hanging off it as in the original."""

    def __init__(self, config, vision_config=None):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.layers = nn.ModuleList(LlamaLayer(config) for _ in range(config["num_hidden_layers"]))
        self.norm = RmsNorm(config["hidden_size"], config.get("rms_norm_eps", 1e-6))
        self.mm_projector = build_projector(config)
        if vision_config is not None:
            self.vision_tower = nn.Module()
            self.vision_tower.vision_tower = ConvNextModel(vision_config)

    def forward(self, embeds, past=None, positions=None, mask=None):
        """embeds [B,T,C] -> (list of hidden states: the embeddings, every layer's output, the final norm's; key/value cache).

        `positions` [T] or [B,T] and the additive `mask` (broadcast to [B,heads,T,past+T]) default to plain causal decoding.
        """
        length = embeds.shape[1]
        before = past[0][0].shape[2] if past is not None else 0
        if positions is None:
            positions = torch.arange(before, before + length)
        if mask is None:
            mask = torch.full((length, before + length), float("-inf")).triu(before + 1)
        config = self.config
        cos, sin = rope_tables(positions, config["hidden_size"] // config["num_attention_heads"],
                               config.get("rope_theta", 10000.0), config.get("rope_scaling"))
        cos, sin = cos.unsqueeze(-3), sin.unsqueeze(-3)  # broadcast over the heads
        x, hidden_states, cache = embeds, [embeds], []
        for i, layer in enumerate(self.layers):
            x, layer_cache = layer(x, cos, sin, mask, past[i] if past is not None else None)
            hidden_states.append(x)
            cache.append(layer_cache)
        hidden_states.append(self.norm(x))
        return hidden_states, cache


# ---------------------------------------------------------------------------------------------- whole model
class ConvLlava(nn.Module):
    """`config`: the LLM's config.json; `vision_config`: the vision tower's."""

    def __init__(self, config, vision_config):
        super().__init__()
        self.config = config
        self.model = LlamaModel(config, vision_config)
        self.lm_head = nn.Linear(config["hidden_size"], config["vocab_size"], bias=False)
        if config.get("tie_word_embeddings", False):
            self.lm_head.weight = self.model.embed_tokens.weight

    @property
    def vision(self):
        return self.model.vision_tower.vision_tower

    def project(self, image_features):
        return self.model.mm_projector(image_features)

    def encode_images(self, pixels):
        """pixels [N,3,S,S] -> (vision hidden states, image features [N,T,C], projected features [N,T,hidden])."""
        hidden_states = self.vision(pixels)
        features = hidden_states[-1].flatten(2).transpose(1, 2)
        return hidden_states, features, self.project(features)

    def splice(self, ids, projected):
        """Prompt ids, with -200 where an image goes, and the images' projected features -> embeddings [1,T,hidden]."""
        pieces, start, image = [], 0, 0
        for i, token in enumerate(list(ids) + [-200]):
            if token == -200:
                pieces.append(self.model.embed_tokens(torch.tensor(ids[start:i], dtype=torch.long)))
                if i < len(ids):
                    pieces.append(projected[image])
                    image += 1
                start = i + 1
        embeds = torch.cat(pieces)
        limit = self.config.get("tokenizer_model_max_length")
        return embeds[None, :limit] if limit else embeds[None]

    def forward(self, embeds, past=None, positions=None, mask=None):
        """-> dictionary of logits [B,T,vocab], hidden_states (list) and the key/value cache."""
        hidden_states, cache = self.model(embeds, past, positions, mask)
        return {"logits": self.lm_head(hidden_states[-1]), "hidden_states": hidden_states, "cache": cache}

    @torch.no_grad()
    def generate(self, embeds, max_new_tokens=128, eos=2, past=None):
        """Greedy decoding of prompts of equal length. Returns one id list per row, the closing EOS included."""
        answers = [[] for _ in range(embeds.shape[0])]
        open_rows = set(range(len(answers)))
        for _ in range(max_new_tokens):
            hidden_states, past = self.model(embeds, past)
            tokens = self.lm_head(hidden_states[-1][:, -1]).argmax(-1)  # ties: the lowest id
            for row in list(open_rows):
                answers[row].append(int(tokens[row]))
                if answers[row][-1] == eos:
                    open_rows.remove(row)
            if not open_rows:
                break
            embeds = self.model.embed_tokens(tokens)[:, None]
        return answers


# -------------------------------------------------------------------------------------------------- loading
def read_json(*path):
    with open(os.path.join(*path), encoding="utf-8") as file:
        return json.load(file)


def read_tensors(folder):
    """All tensors of a folder: its .safetensors files if it has any, else its pytorch_model*.bin files."""
    tensors = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        tensors.update(load_file(path))
    if not tensors:
        for path in sorted(glob.glob(os.path.join(folder, "pytorch_model*.bin"))):
            tensors.update(torch.load(path, map_location="cpu"))
    return tensors


def find_vision_folder(folder, config):
    """The separate vision repository is authoritative; a path in the config may be relative to the checkpoint."""
    named = config.get("mm_vision_tower", "vision_tower")
    for candidate in (os.path.join(folder, named), named, os.path.join(folder, "vision_tower")):
        if os.path.isfile(os.path.join(candidate, "config.json")):
            return candidate
    raise FileNotFoundError(f"no vision tower: '{named}' is not a folder")


def load_checkpoint(folder, vision_folder=None):
    """-> (ConvLlava in fp32 and eval mode, the image size of its preprocessor)."""
    config = read_json(folder, "config.json")
    vision_folder = vision_folder or find_vision_folder(folder, config)
    model = ConvLlava(config, read_json(vision_folder, "config.json"))
    tensors = {name: tensor for name, tensor in read_tensors(folder).items() if not name.startswith(VISION_PREFIX)}
    for name, tensor in read_tensors(vision_folder).items():
        if not name.startswith("layernorm."):  # the final norm that is never applied
            tensors[VISION_PREFIX + name] = tensor
    tensors = {name: tensor.float() for name, tensor in tensors.items() if not name.endswith("rotary_emb.inv_freq")}
    if config.get("tie_word_embeddings", False):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    model.load_state_dict(tensors)
    size = read_json(vision_folder, "preprocessor_config.json")["size"]
    return model.eval(), size if isinstance(size, int) else size["shortest_edge"]
