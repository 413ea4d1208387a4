"""Computes the dumps of tests/fixtures/models once more and compares them with the committed ones:

    python3 tools/pytorch/check_model_fixtures.py [--hf] [CASE ...]

cases.json says which request goes with which checkpoint. Without --hf the modules of convllava.py run, which made the
committed files; with it Hugging Face's own (needs the package transformers). Exit code 1 when anything differs.
"""
import argparse
import hashlib
import json
import os
import sys

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import compare_dumps  # noqa: E402
import dump  # noqa: E402
import hf_reference  # noqa: E402

FOLDER = os.path.join(HERE, "..", "..", "tests", "fixtures", "models")


def recompute(case, hf):
    """-> {name: numpy array} of everything the request gives."""
    model = os.path.join(FOLDER, case["checkpoint"])
    tower = os.path.join(FOLDER, case["vision_tower"]) if "vision_tower" in case else None
    pipeline = (hf_reference.HuggingFacePipeline if hf else dump.PlainPipeline)(model, tower)
    images = [dump.open_image(os.path.join(FOLDER, image)) for image in case["images"]]
    if "input_ids" in case:
        ids = case["input_ids"]
    else:
        encode = hf_reference.encode_prompt if hf else dump.encode_prompt
        prompt, ids = encode(model, pipeline.config, case.get("prompt"), case.get("raw"), case.get("template"), len(images))
        if prompt != case["rendered_prompt"]:
            raise ValueError(f"{case['name']}: the prompt is {prompt!r}, expected {case['rendered_prompt']!r}")
    tensors = dump.run(pipeline, ids, images, case["max_new_tokens"], dump.end_of_sequence(model, pipeline.config))
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    parser.add_argument("--hf", action="store_true")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    args = parser.parse_args()
    if args.hf and not hf_reference.available():
        sys.exit("--hf needs the package transformers, which is not installed")
    torch.set_num_threads(1)
    with open(os.path.join(FOLDER, "cases.json"), encoding="utf-8") as file:
        cases = [case for case in json.load(file) if not args.cases or case["name"] in args.cases]
    passed = bool(cases)
    for case in cases:
        print(f"\n{case['name']}: {case['covers']}")
        ours = recompute(case, args.hf)
        if "pixel_values" in ours:
            digest = hashlib.sha256(ours["pixel_values"].tobytes()).hexdigest()
            good = digest == case["pixel_values_sha256"]
            print(f"{'pixel_values':26} {'sha256 ' + digest[:12]:42}  {'equal' if good else 'FAIL'}")
            passed = passed and good
        committed = compare_dumps.load(os.path.join(FOLDER, case["dump"]))
        kept = {name: values for name, values in ours.items() if name not in case["left_out"]}
        passed = compare_dumps.report(committed, kept, args.tolerance) and passed
    print("\nall equal within the tolerance" if passed else "\nDIFFERENT")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
