"""The demo model's held-out test: makes it, answers it with PyTorch, scores anybody's answers to it.

    python3 eval_demo.py --make DIR --count 200 --seed 1100000      pictures + questions.jsonl
    python3 eval_demo.py --answer DIR --out answers.jsonl           PyTorch, greedy, fp32 over the stored weights
    python3 eval_demo.py --score answers.jsonl                      a table per kind of question

questions.jsonl, one object a line:
    image     file name inside DIR
    kind      describe | color | shape | size | count | where | exists | grounding
    question  the user's text, without "<image>\\n"; every question is a conversation of its own, template v1
    answer    the expected text
    box       grounding only: the exact [x1, y1, x2, y2] as fractions of the padded square
An answers file has the same lines with two more fields:
    output    the generated text (specials dropped, stripped)
    token_ids the generated ids, the closing 2 (</s>) included; not needed for scoring
Scored: exact match of output and answer; for grounding, IoU >= 0.5 of the first box in output with `box`; for describe
also the share of the expected "a large red circle at the top left" phrases that occur in output.
"""
import argparse
import json
import os
import re

import numpy as np
import torch
from PIL import Image

from convllava import load_checkpoint
from demo_encoder import normalize
from demo_language import answer_prompts
from demo_questions import KINDS, SHORT_KINDS, ask, iou, is_right, parse_box
from demo_scenes import draw_scene, make_scene, model_input
from demo_tokenizer import Tokenizer

DEFAULT_MODEL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "models", "convllava-demo")


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def write_lines(path, rows):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def make(folder, count, seed, extension):
    """One question of every kind a picture allows. Numbers alternate between PNG and JPEG unless a format is given."""
    os.makedirs(folder, exist_ok=True)
    rows = []
    for i in range(count):
        scene = make_scene(seed + i)
        name = f"{i:04d}.{extension or ('png', 'jpg')[i % 2]}"
        draw_scene(scene).save(os.path.join(folder, name), quality=92)
        rng = np.random.default_rng([seed + i, 2])
        for kind in KINDS:
            asked = ask(rng, scene, kind)
            if asked:
                row = {"image": name, "kind": kind, "question": asked["question"], "answer": asked["answer"]}
                if asked["box"]:
                    row["box"] = [round(float(value), 5) for value in asked["box"]]
                rows.append(row)
    write_lines(os.path.join(folder, "questions.jsonl"), rows)
    print(f"{count} pictures, {len(rows)} questions in {folder}")


@torch.no_grad()
def answer(folder, out, model_folder):
    model, size = load_checkpoint(model_folder)
    tokenizer = Tokenizer(os.path.join(model_folder, "tokenizer.model"))
    rows = read_lines(os.path.join(folder, "questions.jsonl"))
    features = {}
    for name in sorted({row["image"] for row in rows}):
        pixels = model_input(Image.open(os.path.join(folder, name)), size)
        features[name] = model.vision.image_features(normalize(pixels[None]))[0]
    answers = answer_prompts(model, tokenizer, [(features[row["image"]], [row["question"]], []) for row in rows])
    write_lines(out, [{**row, "output": tokenizer.decode(ids), "token_ids": ids} for row, ids in zip(rows, answers)])
    print(f"{len(rows)} answers in {out}")


def score(path):
    rows = read_lines(path)
    right = {kind: [is_right(kind, r["output"], r["answer"], r.get("box")) for r in rows if r["kind"] == kind] for kind in KINDS}
    print("| kind | questions | right |\n|---|---|---|")
    for kind, values in right.items():
        if values:
            print(f"| {kind} | {len(values)} | {100 * np.mean(values):.1f} % |")
    short = [value for kind in SHORT_KINDS for value in right[kind]]
    if short:
        print(f"| all short answers | {len(short)} | {100 * np.mean(short):.1f} % |")
    boxes = [iou(parse_box(r["output"]), r["box"]) for r in rows if r["kind"] == "grounding"]
    if boxes:
        print(f"\ngrounding: mean IoU {np.mean(boxes):.3f}, IoU >= 0.75 {100 * np.mean(np.array(boxes) >= 0.75):.1f} %")
    phrases = [phrase in r["output"] for r in rows if r["kind"] == "describe"
               for phrase in re.findall(r"an? (?:small|large) \w+ \w+ (?:at|on|in) the [a-z ]*?(?=,| and |\.)", r["answer"])]
    if phrases:
        print(f"describe: {100 * np.mean(phrases):.1f} % of {len(phrases)} phrases occur in the answer")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make", metavar="DIR")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1_100_000)
    parser.add_argument("--format", choices=("png", "jpg"), help="default: both, in turn")
    parser.add_argument("--answer", metavar="DIR")
    parser.add_argument("--out", metavar="FILE.jsonl")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--score", metavar="FILE.jsonl")
    args = parser.parse_args()
    if args.make:
        make(args.make, args.count, args.seed, args.format)
    if args.answer:
        answer(args.answer, args.out, args.model)
    if args.score:
        score(args.score)


if __name__ == "__main__":
    main()
