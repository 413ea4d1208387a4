"""The demo model's pictures on disk, and stage A: the encoder's pretraining on dense targets.

A question-answering loss alone gives a fresh encoder no useful gradient (the original starts from a CLIP-pretrained
one), so encoder and projector first learn to say, at every visual token, whether a shape's centre lies in that cell and
which colour, shape, size and box it has. The heads that say it are linear and are thrown away.
"""
import math
import multiprocessing
import os
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from convllava import ConvNextModel, build_projector
from demo_scenes import CELLS, COLORS, SHAPES, SIZES, draw_scene, make_scene, mirror_scene, model_input

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BINS = 101  # box coordinates as classes 0.00 .. 1.00
HEADS = {"color": list(COLORS), "shape": list(SHAPES), "size": list(SIZES)}


# ------------------------------------------------------------------------------------------------- pictures
def render_range(task):
    path, count, size, first_seed, begin, end = task
    pixels = np.lib.format.open_memmap(path, mode="r+")
    for i in range(begin, end):
        pixels[i] = model_input(draw_scene(make_scene(first_seed + i)), size)
    pixels.flush()


def render_pictures(path, count, first_seed, size=256, processes=2):
    """Pictures number 0..count-1 as the model sees them, uint8 [count,size,size,3] in a .npy file that is written once."""
    if not os.path.exists(path):
        np.lib.format.open_memmap(path + ".part", mode="w+", dtype=np.uint8, shape=(count, size, size, 3)).flush()
        borders = np.linspace(0, count, 4 * processes + 1).astype(int)
        tasks = [(path + ".part", count, size, first_seed, a, b) for a, b in zip(borders[:-1], borders[1:])]
        with multiprocessing.Pool(processes) as pool:
            pool.map(render_range, tasks, chunksize=1)
        os.rename(path + ".part", path)
    return np.load(path, mmap_mode="r")


def normalize(pixels):
    """uint8 [B,S,S,3] -> float [B,3,S,S] as the original's processor; channels-last in memory, which the CPU likes."""
    x = torch.from_numpy(np.array(pixels)).float().mul_(1 / 255)
    return x.sub_(torch.tensor(MEAN)).div_(torch.tensor(STD)).permute(0, 3, 1, 2)


# -------------------------------------------------------------------------------------------------- targets
def dense_targets(scene):
    """[16, 8] float: present, colour, shape, size (class numbers) and the box, for the cell of each object's centre."""
    table = np.zeros((CELLS * CELLS, 8), dtype=np.float32)
    for o in scene["objects"]:
        classes = [HEADS[name].index(o[name]) for name in HEADS]
        table[o["cell"]] = [1, *classes, *o["box"]]
    return table


class DenseHeads(nn.Module):
    """Linear read-outs of the projected tokens."""

    def __init__(self, width):
        super().__init__()
        self.present = nn.Linear(width, 1)
        self.classes = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in HEADS.items()})
        self.box = nn.Linear(width, 4 * BINS)

    def losses(self, tokens, targets):
        """-> (loss, dictionary of sums for the log)"""
        present = self.present(tokens)[..., 0]
        loss = 2 * F.binary_cross_entropy_with_logits(present, targets[..., 0])
        here = targets[..., 0] > 0
        chosen, wanted = tokens[here], targets[here]
        log = {"cell": ((present > 0) == here).float().mean()}
        for column, (name, head) in enumerate(self.classes.items(), 1):
            logits, labels = head(chosen), wanted[:, column].long()
            loss = loss + 0.5 * F.cross_entropy(logits, labels)
            log[name] = (logits.argmax(-1) == labels).float().mean()
        # Soft targets: a little bell around the true coordinate, so that neighbours share strength.
        logits = self.box(chosen).view(-1, 4, BINS)
        grid = torch.linspace(0, 1, BINS)
        bell = torch.softmax(-0.5 * ((grid - wanted[:, 4:, None]) / 0.012) ** 2, -1)
        loss = loss + 0.3 * -(bell * logits.log_softmax(-1)).sum(-1).mean()
        guess = (logits.softmax(-1) * grid).sum(-1)
        loss = loss + 3 * (guess - wanted[:, 4:]).abs().mean()
        log["box_error"] = (guess - wanted[:, 4:]).abs().mean()
        return loss, log


# ------------------------------------------------------------------------------------------------- training
def init_encoder(encoder):
    for name, parameter in encoder.named_parameters():
        if parameter.dim() >= 2:
            fan_in = parameter[0].numel()
            nn.init.trunc_normal_(parameter, std=min(0.7 / math.sqrt(fan_in), 0.2))
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def cosine(step, steps, warmup):
    return min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def optimizer_for(groups, weight_decay=0.05):
    """groups: [(module, learning rate)]. Vectors (norms, biases, layer scale) are not decayed."""
    return torch.optim.AdamW([
        {"params": [p for p in module.parameters() if (p.dim() >= 2) == decayed], "lr": lr, "peak": lr,
         "weight_decay": weight_decay if decayed else 0.0}
        for module, lr in groups for decayed in (True, False)], betas=(0.9, 0.98), eps=1e-8)


def train_encoder(pixels, targets, held_pixels, held_targets, configs, path, steps, batch, log, lr=2e-3, seed=1):
    """Trains encoder + projector and saves {"encoder", "projector"} under `path`; goes on from a checkpoint if there is one."""
    config, vision_config = configs
    torch.manual_seed(seed)
    encoder, projector = ConvNextModel(vision_config), build_projector(config)
    init_encoder(encoder)
    encoder = encoder.to(memory_format=torch.channels_last)
    heads = DenseHeads(config["hidden_size"])
    modules = nn.ModuleDict({"encoder": encoder, "projector": projector, "heads": heads})
    optimizer = optimizer_for([(modules, lr)])
    rng, start = np.random.default_rng(seed), 0
    if os.path.exists(path + ".part"):
        state = torch.load(path + ".part")
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        start, rng = state["step"], np.random.default_rng([seed, state["step"]])
    mirrored = targets[1]
    began, sums = time.time(), {}
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * cosine(step, steps, 60)
        rows = np.sort(rng.integers(0, len(pixels), batch))
        flip = rng.random(batch) < 0.5
        images = pixels[rows]
        images[flip] = images[flip, :, ::-1]
        wanted = torch.from_numpy(np.where(flip[:, None, None], mirrored[rows], targets[0][rows]))
        tokens = projector(encoder.image_features(normalize(images)))
        loss, accuracy = heads.losses(tokens, wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()
        for name, value in {"loss": loss, **accuracy}.items():
            sums[name] = sums.get(name, 0.0) + value.item()
        if (step + 1) % 50 == 0:
            means = " ".join(f"{name} {value / 50:.4f}" for name, value in sums.items())
            log(f"encoder step {step + 1} {means} ({time.time() - began:.0f} s)")
            sums = {}
        if (step + 1) % 200 == 0 or step + 1 == steps:
            with torch.no_grad():
                tokens = torch.cat([projector(encoder.image_features(normalize(held_pixels[i:i + 64])))
                                    for i in range(0, len(held_pixels), 64)])
                loss, accuracy = heads.losses(tokens, torch.from_numpy(held_targets))
            log(f"encoder step {step + 1} HELD-OUT loss {loss:.4f} "
                + " ".join(f"{name} {value:.4f}" for name, value in accuracy.items()))
            torch.save({"modules": modules.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}, path + ".part")
    torch.save({"encoder": encoder.state_dict(), "projector": projector.state_dict()}, path)


def scene_targets(count, first_seed):
    scenes = [make_scene(first_seed + i) for i in range(count)]
    return (np.stack([dense_targets(s) for s in scenes]), np.stack([dense_targets(mirror_scene(s)) for s in scenes]))


@torch.no_grad()
def encode_features(encoder, pixels, batch=64):
    """The frozen encoder's features of all pictures: float32 [N, 16, C]."""
    encoder.eval()
    return np.concatenate([encoder.image_features(normalize(pixels[i:i + batch])).numpy()
                           for i in range(0, len(pixels), batch)])
