"""Trains the demo model from nothing, on two CPU cores in about an hour and a half:

    OMP_NUM_THREADS=2 python3 tools/pytorch/train_demo.py --work /tmp/demo --out models/convllava-demo

Stages: pictures, encoder (dense targets), features (the frozen encoder's, cached), tokenizer, language (projector and LLM
on questions), tuning (optional: all of it together), save. Each stage leaves its result in --work and is skipped when that is there, so a run can be resumed.
"""
import argparse
import os
import time

import numpy as np
import torch

import demo_encoder
import demo_language
from demo_questions import conversation
from demo_save import save_checkpoint
from demo_scenes import HELD_OUT_SEED, TRAIN_SEED, make_scene
from demo_tokenizer import SYSTEM, Tokenizer, train_vocabulary

IMAGE_SIZE, VOCABULARY = 256, 640
VISION_CONFIG = {"depths": [1, 1, 3, 1, 1], "hidden_sizes": [24, 48, 96, 160, 256], "layer_scale_init_value": 0.1,
                 "num_channels": 3, "patch_size": 4}
LLM_CONFIG = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
              "num_key_value_heads": 4, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "vocab_size": VOCABULARY,
              "max_position_embeddings": 1024, "tokenizer_model_max_length": 512,
              "mm_hidden_size": 256, "mm_projector_type": "mlp2x_gelu"}


def vocabulary_corpus(conversations=6000):
    rng, sentences = np.random.default_rng(5), []
    for i in range(conversations):
        for turn in conversation(rng, make_scene(500_000 + i)):
            sentences += [turn["question"] + " ASSISTANT:", "USER: " + turn["question"], turn["answer"]]
    return sentences + [SYSTEM] * 700  # often enough that each of its words becomes a piece


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="folder for pictures, cached features and checkpoints (4 GB)")
    parser.add_argument("--out", required=True, help="where the finished model goes")
    parser.add_argument("--pictures", type=int, default=16000)
    parser.add_argument("--encoder-steps", type=int, default=1200)
    parser.add_argument("--language-steps", type=int, default=3000)
    parser.add_argument("--tuning-steps", type=int, default=0, help="steps with the encoder unfrozen, after all others")
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    began = time.time()
    log = lambda text: print(f"[{time.time() - began:6.0f} s] {text}", flush=True)
    inside = lambda name: os.path.join(args.work, name)
    missing = lambda name: not os.path.exists(inside(name))
    configs = (LLM_CONFIG, VISION_CONFIG)

    pixels = demo_encoder.render_pictures(inside("train.npy"), args.pictures, TRAIN_SEED, IMAGE_SIZE)
    held = demo_encoder.render_pictures(inside("held.npy"), 512, HELD_OUT_SEED, IMAGE_SIZE)
    log("pictures are ready")

    if missing("encoder.pt"):
        targets = demo_encoder.scene_targets(args.pictures, TRAIN_SEED)
        held_targets = demo_encoder.scene_targets(len(held), HELD_OUT_SEED)[0]
        demo_encoder.train_encoder(pixels, targets, held, held_targets, configs, inside("encoder.pt"),
                                   args.encoder_steps, 32, log)
    log("the encoder is ready")

    if missing("tokenizer.model"):
        train_vocabulary(vocabulary_corpus(), inside("tokenizer"), VOCABULARY)
    tokenizer = Tokenizer(inside("tokenizer.model"))
    log("the tokenizer is ready")

    model = demo_language.new_model(configs, inside("encoder.pt"))
    for name, pictures in (("held_features.npy", held), ("train_features.npy", pixels)):
        if missing(name):
            np.save(inside(name), demo_encoder.encode_features(model.vision, pictures))
    features, held_features = np.load(inside("train_features.npy")), np.load(inside("held_features.npy"))
    log("the features are ready")

    scenes = [make_scene(TRAIN_SEED + i) for i in range(args.pictures)]
    held_scenes = [make_scene(HELD_OUT_SEED + i) for i in range(100)]
    if missing("language.pt"):
        demo_language.train_language(model, tokenizer, scenes, features, (held_scenes, held_features),
                                     inside("language.pt"), args.language_steps, log)
    model.load_state_dict(torch.load(inside("language.pt")))
    log("the language model is ready")

    if args.tuning_steps and missing("tuned.pt"):
        demo_language.train_language(model, tokenizer, scenes, pixels, (held_scenes, held), inside("tuned.pt"),
                                     args.tuning_steps, log, lr=5e-4, encoder_lr=1.5e-4, seed=4)
    if args.tuning_steps:
        model.load_state_dict(torch.load(inside("tuned.pt")))
        log("all of it is tuned")

    save_checkpoint(model, inside("tokenizer.model"), IMAGE_SIZE, args.out)
    log(f"saved in {args.out}")


if __name__ == "__main__":
    main()
