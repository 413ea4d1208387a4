"""The engine against Hugging Face's own ConvNextModel and LlamaForCausalLM over the same weights and the same input. Where transformers
is not installed, the plain modules of tools/pytorch stand in, in fp32 alone, and the record says so.

Reference is Hugging Face in fp32. In fp32 the engine must agree to 1e-4 (relative L2, every tensor). In fp16 and bf16 rounding
decides, so the engine's distance from the fp32 reference may be half as much again as Hugging Face's own in that precision, or
a floor that rounding alone explains. Greedy tokens must be equal up to the first step whose margin is within twice the largest
difference of the logits: before it rounding cannot have decided.
"""
import pathlib

import numpy as np

import compare_dumps
from common import ROOT, attempt, torch_device

FLOORS = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 1.6e-2}
OVER_REFERENCE = 1.5
PROMPT = "Describe the image."
NEW_TOKENS = 24


def parity(context):
    import hf_reference
    what = "Hugging Face" if hf_reference.available() else "tools/pytorch (transformers is not installed)"
    models = {}
    demo = context.convllava.parent / "models" / "convllava-demo"
    if (demo / "config.json").is_file():
        models["demo"] = demo
    for preset in context.parity_presets:
        folder = context.out / f"synth-{preset}"
        if not folder.exists():
            context.run("synth", "--preset", preset, "--dtype", "float16", "--seed", 1, "--out", folder)
        models[preset] = folder
    rows = []
    for name, folder in models.items():
        try:
            reference = Reference(context, folder, hf_reference.available())
        except Exception as error:
            rows.append({"name": name, "failed": f"{type(error).__name__}: {error}"[:600]})
            continue
        for dtype in FLOORS:
            attempt(rows, f"{name} {dtype}", lambda: compare(context, name, folder, dtype, reference))
    bad = not rows or any("failed" in row or row.get("passed") is False for row in rows)
    return {"what": what, "rows": rows, "status": "failed" if bad else "passed"}


def compare(context, name, folder, dtype, reference):
    context.require(5, f"{name} {dtype}")
    path = context.out / f"dump-{name}-{dtype}.safetensors"
    context.run("dump", "--model", folder, "--device", context.device, "--dtype", dtype, "--image", ROOT / "samples" / "shapes-1.png",
                "--prompt", PROMPT, "--max-new-tokens", NEW_TOKENS, "--out", path)
    ours = compare_dumps.load(path)
    exact, rounded = reference.run(ours, "float32"), reference.run(ours, dtype)
    path.unlink()
    tensors, passed = {}, True
    for tensor in sorted(exact):
        if tensor in ("generated_ids", "generated_margins", "logits.last", "input_ids", "pixel_values"):
            continue
        if tensor not in ours or ours[tensor].shape != exact[tensor].shape:
            raise RuntimeError(f"{tensor} is {list(ours[tensor].shape) if tensor in ours else 'missing'}, expected {list(exact[tensor].shape)}")
        _, distance, broken = compare_dumps.distance(exact[tensor], ours[tensor])
        theirs = compare_dumps.distance(exact[tensor], rounded[tensor])[1] if rounded else None
        allowed = max(FLOORS[dtype], OVER_REFERENCE * theirs if theirs is not None and dtype != "float32" else 0)
        good = broken is None and distance <= allowed
        tensors[tensor] = {"distance": distance, "hugging_face": theirs, "allowed": allowed, "passed": bool(good), **({"broken": broken} if broken else {})}
        passed = passed and good
    tokens = compare_tokens(ours, exact)
    worst = max(tensors, key=lambda tensor: tensors[tensor]["distance"] / tensors[tensor]["allowed"])
    return {"passed": bool(passed and tokens["passed"]), "worst": {"tensor": worst, **tensors[worst]}, "tokens": tokens, "tensors": tensors}


def compare_tokens(ours, exact):
    """Greedy ids up to the first step that rounding can decide."""
    unsure = 2 * float(np.abs(ours["logits"].astype(np.float64) - exact["logits"]).max())
    margins, theirs, mine = exact["generated_margins"], exact["generated_ids"], ours["generated_ids"]
    close = np.flatnonzero(~(margins > unsure))
    sure = int(close[0]) if close.size else theirs.size
    equal = mine[:sure].tolist() == theirs[:sure].tolist()
    return {"passed": bool(equal), "compared": sure, "generated": int(theirs.size), "margin": unsure}


class Reference:
    """The reference of one checkpoint: runs in each precision once, on the input that the engine's dump has."""

    def __init__(self, context, folder, hugging_face):
        self.device, self.folder, self.hugging_face, self.done = torch_device(context), str(folder), hugging_face, {}

    def run(self, dump, dtype):
        """-> the named tensors, or None where the reference has no such precision."""
        if not self.hugging_face and dtype != "float32":
            return None
        if dtype not in self.done:
            self.done[dtype] = self.compute(dump, dtype)
        return self.done[dtype]

    def compute(self, dump, dtype):
        import torch
        import dump as reference_dump
        import hf_reference

        torch.backends.cuda.matmul.allow_tf32 = False  # fp32 means fp32
        torch.backends.cudnn.allow_tf32 = False
        if self.hugging_face:
            pipeline = hf_reference.HuggingFacePipeline(self.folder, dtype=getattr(torch, dtype), device=self.device)
        else:
            pipeline = reference_dump.PlainPipeline(self.folder)
            pipeline.model.to(self.device)
            pipeline.embed = lambda ids: pipeline.model.model.embed_tokens(ids.to(self.device))
        pixels = torch.from_numpy(np.array(dump["pixel_values"], dtype=np.float32)).to(device=self.device, dtype=getattr(torch, dtype))
        pipeline.preprocess = lambda images: (pixels, [1] * len(images))
        ids = [int(i) for i in dump["input_ids"]]
        pictures = [pathlib.Path("the engine's pixels")] * ids.count(reference_dump.IMAGE_TOKEN_INDEX)
        eos = reference_dump.end_of_sequence(self.folder, pipeline.config)
        tensors = reference_dump.run(pipeline, ids, pictures, NEW_TOKENS, eos)
        return {name: (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy() for name, tensor in tensors.items()}
