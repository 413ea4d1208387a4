"""Stage B: projector and LLM learn to answer questions over the frozen encoder's cached features.

One training sequence holds one picture and several conversations about it:

    BOS system "USER: " <image tokens> "\\n"  |  conversation 1  |  conversation 2  |  ...

A block mask lets every conversation see the shared prefix and itself, and positions start again after the prefix, so each
is exactly what the engine feeds at inference, while the prefix is computed once. The text before the image is the same for
all pictures and is computed once a step.
"""
import math
import os
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from convllava import ConvLlava
from demo_encoder import cosine, normalize, optimizer_for
from demo_questions import KINDS, ask, conversation, is_right
from demo_tokenizer import IMAGE, v1_prompt

EOS = 2


# ---------------------------------------------------------------------------------------------- token streams
class Streams:
    """Turns conversations into ids: `before` and `after` are the shared ids around the image, `branch` the rest."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        ids = tokenizer.encode_prompt(v1_prompt(["Q"]))
        self.before = ids[:ids.index(IMAGE)]
        self.after = tokenizer.encode("\n")[1:]
        # What the split relies on: the ids of a whole conversation are the concatenation of its pieces' ids.
        questions, answers = ["Is it red?", "Where is it?"], ["Yes", "Top left"]
        whole = tokenizer.encode_prompt(v1_prompt(questions, answers))
        turns = [{"question": q, "answer": a} for q, a in zip(questions, answers)]
        assert self.before + [IMAGE] + self.after + self.branch(turns)[0] == whole

    def branch(self, turns):
        """-> (ids, weights): the loss weight is zero outside answers; a longer answer weighs more, though less per token."""
        ids, weights = [], []
        for i, turn in enumerate(turns):
            text = turn["question"] + " ASSISTANT:"
            question = self.tokenizer.encode_segment(text if i == 0 else "USER: " + text)
            answer = self.tokenizer.encode_segment(" " + turn["answer"]) + [EOS]
            ids += question + answer
            weights += [0.0] * len(question) + [len(answer) ** -0.5] * len(answer)
        return ids, weights


def pack(rng, streams, scene, budget):
    """Fills `budget` tokens with conversations about one scene -> int64 ids, float weights, branch numbers, offsets."""
    ids, weights, branches, offsets = [], [], [], []
    number = 1
    while True:
        more_ids, more_weights = streams.branch(conversation(rng, scene))
        if len(ids) + len(more_ids) > budget:
            break
        ids += more_ids
        weights += more_weights
        branches += [number] * len(more_ids)
        offsets += list(range(len(more_ids)))
        number += 1
    rest = budget - len(ids)
    return ids + [0] * rest, weights + [0.0] * rest, branches + [-1] * rest, offsets + [0] * rest


def batch_loss(model, streams, features, packed):
    """Mean weighted cross entropy over the answers' tokens of a batch of packed sequences."""
    ids, weights, branches, offsets = (torch.tensor(np.array(column)) for column in zip(*packed))
    llama, batch = model.model, len(ids)
    _, past = llama(llama.embed_tokens(torch.tensor([streams.before])))
    past = [(k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1)) for k, v in past]
    image = model.project(features)
    after = llama.embed_tokens(torch.tensor(streams.after)).expand(batch, -1, -1)
    embeds = torch.cat([image, after, llama.embed_tokens(ids)], dim=1)

    system, shared = len(streams.before), image.shape[1] + len(streams.after)
    branches = F.pad(branches, (shared, 0), value=0)
    positions = system + torch.cat([torch.arange(shared).expand(batch, -1), shared + offsets], dim=1)
    length = embeds.shape[1]
    same = (branches[:, None, :] == 0) | (branches[:, None, :] == branches[:, :, None])
    allowed = same & torch.ones(length, length, dtype=torch.bool).tril()
    mask = F.pad(torch.zeros(allowed.shape).masked_fill_(~allowed, float("-inf")), (system, 0))[:, None]

    hidden_states, _ = llama(embeds, past, positions, mask)
    targets = weights > 0  # token i is predicted from the position before it
    hidden = hidden_states[-1][:, shared - 1:-1][targets]
    losses = F.cross_entropy(model.lm_head(hidden), ids[targets], reduction="none")
    chosen = weights[targets].float()
    return (losses * chosen).sum() / chosen.sum()


# --------------------------------------------------------------------------------------------------- answers
@torch.no_grad()
def answer_prompts(model, tokenizer, items, max_new_tokens=128, rows=64):
    """items: [(image features [T,C], questions, earlier answers)] -> id lists, by greedy generation on the plain prompt."""
    prompts = [tokenizer.encode_prompt(v1_prompt(questions, answers)) for _, questions, answers in items]
    results = [None] * len(items)
    by_length = {}
    for i, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(i)
    for group in by_length.values():
        for begin in range(0, len(group), rows):
            chosen = group[begin:begin + rows]
            projected = model.project(torch.stack([torch.as_tensor(items[i][0]) for i in chosen]))
            embeds = torch.cat([model.splice(prompts[i], [image]) for i, image in zip(chosen, projected)])
            for i, ids in zip(chosen, model.generate(embeds, max_new_tokens)):
                results[i] = ids
    return results


def held_out_accuracy(model, tokenizer, scenes, features, seed=7):
    rng = np.random.default_rng(seed)
    asked = [(i, ask(rng, scene, kind)) for i, scene in enumerate(scenes) for kind in KINDS]
    asked = [(i, q) for i, q in asked if q]
    outputs = answer_prompts(model, tokenizer, [(features[i], [q["question"]], []) for i, q in asked])
    right = {}
    for (_, q), ids in zip(asked, outputs):
        right.setdefault(q["kind"], []).append(is_right(q["kind"], tokenizer.decode(ids), q["answer"], q["box"]))
    return {kind: float(np.mean(values)) for kind, values in right.items()}


# -------------------------------------------------------------------------------------------------- training
def init_language(model):
    layers = model.config["num_hidden_layers"]
    for name, parameter in model.model.layers.named_parameters():
        if parameter.dim() == 2:
            residual = name.endswith("o_proj.weight") or name.endswith("down_proj.weight")
            nn.init.normal_(parameter, std=0.06 / (math.sqrt(2 * layers) if residual else 1))
    nn.init.normal_(model.model.embed_tokens.weight, std=0.2)
    nn.init.normal_(model.lm_head.weight, std=0.02)


def new_model(configs, encoder_path):
    """A fresh LLM over the pretrained encoder and projector."""
    torch.manual_seed(2)
    model = ConvLlava(*configs)
    init_language(model)
    state = torch.load(encoder_path)
    model.vision.load_state_dict(state["encoder"])
    model.model.mm_projector.load_state_dict(state["projector"])
    return model


def train_language(model, tokenizer, scenes, features, held, path, steps, log, lr=2e-3, encoder_lr=None, batch=24, budget=256,
                   seed=3):
    """`features` are the frozen encoder's; with `encoder_lr` they are pixels, and the encoder is tuned as well.

    held: (scenes, features or pixels) to report accuracy on. Checkpoints go to `path`.part, the result to `path`."""
    streams, see = Streams(tokenizer), torch.from_numpy
    groups = [(model.model.mm_projector, lr / 2), (model.model.layers, lr), (model.model.norm, lr),
              (model.model.embed_tokens, lr), (model.lm_head, lr)]
    if encoder_lr:
        groups.append((model.vision.to(memory_format=torch.channels_last), encoder_lr))
        see = lambda pixels: model.vision.image_features(normalize(pixels))
    optimizer = optimizer_for(groups)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    start = 0
    if os.path.exists(path + ".part"):
        state = torch.load(path + ".part")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    rng = np.random.default_rng([seed, start])
    began, total = time.time(), 0.0
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * cosine(step, steps, 80)
        rows = np.sort(rng.integers(0, len(scenes), batch))
        packed = [pack(rng, streams, scenes[i], budget) for i in rows]
        loss = batch_loss(model, streams, see(features[rows]), packed)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        total += loss.item()
        if (step + 1) % 50 == 0:
            log(f"language step {step + 1} loss {total / 50:.4f} ({time.time() - began:.0f} s)")
            total = 0.0
        if (step + 1) % 250 == 0 or step + 1 == steps:
            with torch.no_grad():
                seen = see(held[1][:len(held[0])])
            accuracy = held_out_accuracy(model, tokenizer, held[0], seen)
            log(f"language step {step + 1} HELD-OUT " + " ".join(f"{kind} {value:.3f}" for kind, value in accuracy.items()))
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}, path + ".part")
    torch.save(model.state_dict(), path)
