"""Runs one request through plain PyTorch and writes every named tensor on the way, for comparison with the engine.

    python3 dump.py --model DIR --image cat.png --prompt "What is this?" --out reference.safetensors

The names: pixel_values, vision.hidden_states.0 (stem) .. .5, image_features, projected_features, input_ids (-200 for a
picture), inputs_embeds, logits (the prefill, all positions), logits.last, generated_ids (greedy, EOS included),
generated_margins (best minus second-best logit of every greedy step).
"""
import argparse
import os
import sys

import torch

import checkpoint
import hf_reference
from conversation import TEMPLATES, render, user_message
from llama_tokenizer import IMAGE_TOKEN_INDEX, LlamaTokenizer
from preprocess import open_image, process_images
from safetensors_io import save_file


def end_of_sequence(folder, config):
    """The ids that end generation; generation_config.json beats config.json."""
    path = os.path.join(folder, "generation_config.json")
    eos = checkpoint.read_json(path).get("eos_token_id") if os.path.isfile(path) else None
    eos = config["eos_token_id"] if eos is None else eos
    return eos if isinstance(eos, list) else [eos]


def encode_prompt(folder, config, prompt, raw, template, images):
    """-> (the rendered prompt, its ids)."""
    if raw is None:
        message = user_message(prompt, images, config["mm_use_im_start_end"])
        raw = render(template, [message, None])
    return raw, LlamaTokenizer.from_folder(folder, config).encode_with_images(raw)


def greedy(step, embeds, max_new_tokens, eos):
    """`step(embeds, cache) -> (logits of the last position, cache)`; ties go to the lowest id."""
    ids, margins, cache = [], [], None
    while len(ids) < max_new_tokens:
        logits, cache, embed = step(embeds, cache)
        best = logits.topk(2).values
        ids.append(int(logits.argmax()))
        margins.append(float(best[0] - best[1]))
        if ids[-1] in eos:
            break
        embeds = embed(torch.tensor([[ids[-1]]]))
    return torch.tensor(ids, dtype=torch.int64), torch.tensor(margins, dtype=torch.float32)


class PlainPipeline:
    """The modules of convllava.py."""

    def __init__(self, folder, vision_folder=None):
        self.model, self.config, self.vision_folder = checkpoint.load(folder, vision_folder)

    def preprocess(self, images):
        return process_images(images, self.config, self.vision_folder)

    def encode_images(self, pixels):
        return self.model.encode_images(pixels)

    def embed(self, ids):
        return self.model.model.embed_tokens(ids)

    def prefill(self, embeds):
        return self.model(embeds)["logits"][0]

    def step(self, embeds, cache):
        result = self.model(embeds, cache)
        return result["logits"][0, -1], result["cache"], self.embed


def splice(pipeline, ids, projected, counts):
    """Puts every picture's tokens (all its tiles in a row) in its place; the original cuts at the tokenizer's limit."""
    pieces, start = [], 0
    pictures = iter(torch.split(projected, counts)) if counts else iter(())
    for i, token in enumerate(ids):
        if token == IMAGE_TOKEN_INDEX:
            pieces += [pipeline.embed(torch.tensor(ids[start:i], dtype=torch.long)), next(pictures).flatten(0, 1)]
            start = i + 1
    pieces.append(pipeline.embed(torch.tensor(ids[start:], dtype=torch.long)))
    limit = pipeline.config["tokenizer_model_max_length"] if counts else None  # text alone is never cut
    return torch.cat(pieces)[None, :limit]


@torch.no_grad()
def run(pipeline, ids, images, max_new_tokens, eos):
    """-> {name: tensor}."""
    if ids.count(IMAGE_TOKEN_INDEX) != len(images):
        raise ValueError(f"{ids.count(IMAGE_TOKEN_INDEX)} places for pictures in the prompt, {len(images)} pictures")
    tensors, projected, counts = {}, None, []
    if images:
        pixels, counts = pipeline.preprocess(images)
        hidden_states, features, projected = pipeline.encode_images(pixels)
        tensors = {f"vision.hidden_states.{i}": state for i, state in enumerate(hidden_states)}
        tensors.update(pixel_values=pixels, image_features=features, projected_features=projected)
    embeds = splice(pipeline, ids, projected, counts)
    logits = pipeline.prefill(embeds)
    generated, margins = greedy(pipeline.step, embeds, max_new_tokens, eos)
    tensors.update({"input_ids": torch.tensor(ids, dtype=torch.int64), "inputs_embeds": embeds[0], "logits": logits,
                    "logits.last": logits[-1], "generated_ids": generated, "generated_margins": margins})
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--vision-tower", help="folder of the vision tower, instead of the one the checkpoint names")
    parser.add_argument("--image", action="append", default=[], help="picture file; repeat for several")
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--prompt", help="a question, put into the conversation template")
    text.add_argument("--raw", help="the whole prompt, <image> where a picture goes")
    text.add_argument("--ids", help="comma-separated token ids, -200 where a picture goes")
    parser.add_argument("--template", default="v1", choices=sorted(TEMPLATES))
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--tensors", help="comma-separated names to write; default: all")
    parser.add_argument("--out", required=True, help="the .safetensors file to write")
    parser.add_argument("--hf", action="store_true",
                        help="run Hugging Face's ConvNextModel, LlamaForCausalLM and CLIPImageProcessor over the same weights "
                             "instead of convllava.py (needs the package transformers, 4.39 or near)")
    args = parser.parse_args()

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if args.hf and not hf_reference.available():
        sys.exit("--hf needs the package transformers, which is not installed")
    if not args.hf and not hf_reference.available():
        print("note: transformers is not installed, so --hf (Hugging Face's own modules) is not available", file=sys.stderr)

    pipeline = (hf_reference.HuggingFacePipeline if args.hf else PlainPipeline)(args.model, args.vision_tower)
    if args.ids:
        prompt, ids = "", [int(id) for id in args.ids.split(",")]
    else:
        encode = hf_reference.encode_prompt if args.hf else encode_prompt
        prompt, ids = encode(args.model, pipeline.config, args.prompt, args.raw, args.template, len(args.image))
    tensors = run(pipeline, ids, [open_image(path) for path in args.image], args.max_new_tokens,
                  end_of_sequence(args.model, pipeline.config))
    if args.tensors:
        unknown = set(args.tensors.split(",")) - tensors.keys()
        if unknown:
            sys.exit(f"no such tensor: {', '.join(sorted(unknown))}; there are: {', '.join(sorted(tensors))}")
        tensors = {name: tensors[name] for name in args.tensors.split(",")}
    save_file(tensors, args.out, {"prompt": prompt})
    for name in sorted(tensors):
        print(f"{name:26} {list(tensors[name].shape)}")


if __name__ == "__main__":
    main()
