"""Hugging Face's own modules over the same weights: an independent witness where `transformers` is installed.

Written against transformers 4.39 and kept to what 4.4x to 5.x share. Only the projector, which is not theirs, comes from convllava.py.
"""
import importlib.util

import torch

import checkpoint
from conversation import render, user_message
from convllava import VISION_PREFIX, build_projector
from llama_tokenizer import IMAGE_TOKEN_INDEX
from preprocess import anyres_tiles, pad_to_square

PROJECTOR_PREFIX = "model.mm_projector."


def available():
    return importlib.util.find_spec("transformers") is not None


def encode_prompt(folder, config, prompt, raw, template, images):
    """-> (the rendered prompt, its ids), with the slow LlamaTokenizer."""
    from transformers import LlamaTokenizer

    tokenizer = LlamaTokenizer.from_pretrained(folder)
    if config["mm_use_im_patch_token"]:
        tokenizer.add_tokens(["<im_patch>"], special_tokens=True)
    if config["mm_use_im_start_end"]:
        tokenizer.add_tokens(["<im_start>", "<im_end>"], special_tokens=True)
    if raw is None:
        raw = render(template, [user_message(prompt, images, config["mm_use_im_start_end"]), None])
    chunks = [tokenizer(chunk).input_ids for chunk in raw.split("<image>")]
    ids = list(chunks[0])
    for chunk in chunks[1:]:
        ids += [IMAGE_TOKEN_INDEX] + chunk[1:]
    return raw, ids


class HuggingFacePipeline:
    """`dtype` and `device`: where and in what the modules compute; fp32 on the CPU unless told."""

    def __init__(self, folder, vision_folder=None, dtype=torch.float32, device="cpu"):
        from transformers import ConvNextConfig, ConvNextModel, LlamaConfig, LlamaForCausalLM

        self.dtype, self.device = dtype, device
        self.config = checkpoint.read_config(folder)
        self.vision_folder = checkpoint.find_vision_folder(folder, self.config, vision_folder)
        stored = checkpoint.collect_weights(folder, self.config, self.vision_folder)
        stored = {name: tensor.float() for name, tensor in stored.items()}

        vision_config = ConvNextConfig.from_dict(checkpoint.read_json(self.vision_folder, "config.json"))
        self.vision = ConvNextModel(vision_config)
        vision = {name[len(VISION_PREFIX):]: tensor for name, tensor in stored.items() if name.startswith(VISION_PREFIX)}
        load(self.vision, vision, optional="layernorm.")  # the final norm is never applied
        if self.config["mm_vision_select_layer"] == -2:
            self.vision.encoder.stages[-1].layers.pop(-1)

        self.projector = build_projector(self.config)
        load(self.projector, {name[len(PROJECTOR_PREFIX):]: tensor for name, tensor in stored.items()
                              if name.startswith(PROJECTOR_PREFIX)})

        llm_config = LlamaConfig.from_dict(checkpoint.read_json(folder, "config.json"))
        llm_config._attn_implementation = "eager"
        llm_config.use_cache = True
        self.llm = LlamaForCausalLM(llm_config)
        load(self.llm, {name: tensor for name, tensor in stored.items()
                        if not name.startswith((VISION_PREFIX, PROJECTOR_PREFIX))})
        for module in (self.vision, self.projector, self.llm):
            module.to(device=device, dtype=dtype).eval()

    def cast(self, values):
        return values.to(device=self.device, dtype=self.dtype)

    def preprocess(self, images):
        from transformers import CLIPImageProcessor

        self.processor = CLIPImageProcessor.from_pretrained(self.vision_folder)
        tiles, counts = [], []
        mode = self.config["image_aspect_ratio"]
        for image in images:
            if mode == "pad":
                cut = [pad_to_square(image, tuple(int(x * 255) for x in self.processor.image_mean))]
            elif mode == "anyres":
                cut = anyres_tiles(image, self.config["image_grid_pinpoints"], ProcessorSizes(self.processor))
            else:
                cut = [image]
            tiles += cut
            counts.append(len(cut))
        return self.cast(self.processor(tiles, return_tensors="pt")["pixel_values"]), counts

    def encode_images(self, pixels):
        hidden_states = [self.vision.embeddings(pixels)]
        for stage in self.vision.encoder.stages:  # the encoder's own loop; its arguments differ between versions
            hidden_states.append(stage(hidden_states[-1]))
        last = hidden_states[-1].permute(0, 2, 3, 1)
        features = last.reshape(last.shape[0], -1, last.shape[3])
        return hidden_states, features, self.projector(features)

    def embed(self, ids):
        return self.llm.get_input_embeddings()(ids.to(self.device))

    def prefill(self, embeds):
        return self.llm(inputs_embeds=embeds, use_cache=False).logits[0]

    def step(self, embeds, cache):
        output = self.llm(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
        return output.logits[0, -1], output.past_key_values, self.embed


class ProcessorSizes:
    """What `anyres_tiles` reads of a preprocessor."""

    def __init__(self, processor):
        self.size = processor.size["shortest_edge"]
        self.crop = (processor.crop_size["height"], processor.crop_size["width"])


def load(module, tensors, optional=None):
    """Every parameter must be there; tensors the module does not know (cached rotary frequencies) are ignored."""
    missing = module.load_state_dict(tensors, strict=False).missing_keys
    missing = [name for name in missing if not (optional and name.startswith(optional)) and "rotary_emb" not in name]
    if missing:
        raise KeyError(f"{len(missing)} tensors are missing, e.g. {missing[0]}")
