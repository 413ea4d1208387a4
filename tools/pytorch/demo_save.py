"""Writes a model as the original's training code saves one: LLM and projector in the folder itself, the vision tower and
its preprocessor in vision_tower/. Weights are stored in bfloat16.

    python3 demo_save.py CHECKPOINT.pt TOKENIZER.model OUT      a checkpoint of train_demo.py, finished or not
"""
import collections
import json
import os
import shutil
import sys

import torch

from convllava import VISION_PREFIX, ConvLlava
from demo_encoder import MEAN, STD
from safetensors_io import save_file


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def llm_config(config):
    return dict(sorted({
        "architectures": ["LlavaLlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "freeze_mm_mlp_adapter": False, "hidden_act": "silu",
        "image_aspect_ratio": "pad", "image_grid_pinpoints": None, "initializer_range": 0.02,
        "mm_projector_lr": None, "mm_use_im_patch_token": False, "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch", "mm_vision_select_layer": -1, "mm_vision_tower": "vision_tower",
        "model_type": "llava_llama", "pretraining_tp": 1, "rope_scaling": None, "tie_word_embeddings": False,
        "tokenizer_padding_side": "right", "torch_dtype": "bfloat16", "transformers_version": "4.39.3",
        "tune_entire_model": False, "tune_mm_mlp_adapter": False, "tune_vision_tower": True, "use_cache": True,
        "use_mm_proj": True, "vision_tower_lr": None, **config}.items()))


def vision_config(config, image_size):
    stages = len(config["depths"])
    return dict(sorted({
        "architectures": ["ConvNextModel"], "drop_path_rate": 0.0, "hidden_act": "gelu", "image_size": image_size,
        "initializer_range": 0.02, "layer_norm_eps": 1e-12, "model_type": "convnext", "num_stages": stages,
        "out_features": [f"stage{stages}"], "out_indices": [stages],
        "stage_names": ["stem"] + [f"stage{i + 1}" for i in range(stages)], "torch_dtype": "bfloat16",
        "transformers_version": "4.39.3", **config}.items()))


def preprocessor_config(size):
    return {"crop_size": {"height": size, "width": size}, "do_center_crop": True, "do_convert_rgb": True,
            "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": list(MEAN),
            "image_processor_type": "CLIPImageProcessor", "image_std": list(STD), "resample": 3,
            "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": size}}


def special_token(content, **more):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, **more}


def tokenizer_config(max_length):
    return {"add_bos_token": True, "add_eos_token": False,
            "added_tokens_decoder": {str(i): special_token(text, special=True) for i, text in enumerate(["<unk>", "<s>", "</s>"])},
            "bos_token": "<s>", "clean_up_tokenization_spaces": False, "eos_token": "</s>", "legacy": False,
            "model_max_length": max_length, "pad_token": "<unk>", "padding_side": "right", "sp_model_kwargs": {},
            "spaces_between_special_tokens": False, "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>",
            "use_default_system_prompt": False}


def save_checkpoint(model, tokenizer_path, image_size, out):
    tower = os.path.join(out, "vision_tower")
    os.makedirs(tower, exist_ok=True)
    # The clone gives every tensor plain row-major strides: training keeps the convolutions channels-last.
    tensors = {name: tensor.detach().to(torch.bfloat16).clone(memory_format=torch.contiguous_format)
               for name, tensor in model.state_dict().items()}
    save_file({name: tensor for name, tensor in tensors.items() if not name.startswith(VISION_PREFIX)},
              os.path.join(out, "model.safetensors"), {"format": "pt"})
    torch.save(collections.OrderedDict((name[len(VISION_PREFIX):], tensor) for name, tensor in tensors.items()
                                       if name.startswith(VISION_PREFIX)), os.path.join(tower, "pytorch_model.bin"))
    write_json(os.path.join(out, "config.json"), llm_config(model.config))
    write_json(os.path.join(out, "generation_config.json"),
               {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2,
                "max_length": model.config["max_position_embeddings"], "pad_token_id": 0, "transformers_version": "4.39.3"})
    write_json(os.path.join(out, "tokenizer_config.json"), tokenizer_config(model.config["tokenizer_model_max_length"]))
    write_json(os.path.join(out, "special_tokens_map.json"),
               {"bos_token": special_token("<s>"), "eos_token": special_token("</s>"), "pad_token": "<unk>",
                "unk_token": special_token("<unk>")})
    write_json(os.path.join(tower, "config.json"), vision_config(model.vision.config, image_size))
    write_json(os.path.join(tower, "preprocessor_config.json"), preprocessor_config(image_size))
    shutil.copyfile(tokenizer_path, os.path.join(out, "tokenizer.model"))


def main():
    from train_demo import IMAGE_SIZE, LLM_CONFIG, VISION_CONFIG
    checkpoint, tokenizer_path, out = sys.argv[1:]
    model = ConvLlava(LLM_CONFIG, VISION_CONFIG)
    state = torch.load(checkpoint)
    model.load_state_dict(state.get("model", state))
    save_checkpoint(model, tokenizer_path, IMAGE_SIZE, out)


if __name__ == "__main__":
    main()
