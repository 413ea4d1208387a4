"""What PyTorch does on the same GPU: ceilings, the encoder, prefill and decode, eager and compiled.

Weights are random; only shapes matter for time. The encoder is Hugging Face's ConvNextModel in channels_last, the decoder their
LlamaForCausalLM with SDPA attention and a static cache. Where transformers is not installed, the plain modules of
tools/pytorch stand in for the encoder and nothing for the decoder.
"""
import inspect
import json

from common import Skip, Timer, attempt, torch_device

TEXT_TOKENS = 60


def sizes(context):
    """The preset's configuration files, written by the program itself."""
    import checkpoint
    folder = context.out / f"config-{context.preset}"
    if not folder.exists():
        context.run("synth", "--preset", context.preset, "--config-only", "--out", folder)
    return checkpoint.read_json(folder, "config.json"), checkpoint.read_json(folder, "vision_tower", "config.json")


def half(device):
    import torch
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def compiled(torch, call, **options):
    if not hasattr(torch, "compile"):
        raise Skip("this PyTorch has no torch.compile")
    return torch.compile(call, dynamic=False, **options)


# ----------------------------------------------------------------------------------------------- ceilings
def ceilings(context):
    """Copy bandwidth (bytes read plus bytes written) and the rate of large matrix products."""
    import torch
    device = torch_device(context)
    timer, rows = Timer(device), []
    gpu = device.type == "cuda"

    def copy():
        count = (1 << 30) if gpu else (1 << 25)
        source, target = (torch.empty(count, dtype=torch.uint8, device=device) for _ in range(2))
        source.zero_()
        ms = timer(lambda: target.copy_(source), runs=30)
        return {"ms": ms, "gb_s": 2 * count / ms["median"] / 1e6}
    attempt(rows, "copy", copy)
    for dtype in ("bfloat16", "float16", "float32"):
        def product():
            n = 8192 if gpu else 256
            a, b = (torch.randn(n, n, device=device).to(getattr(torch, dtype)) for _ in range(2))
            ms = timer(lambda: torch.matmul(a, b), runs=20, seconds=2)
            return {"ms": ms, "tflop_s": 2 * n ** 3 / ms["median"] / 1e9}
        attempt(rows, f"gemm {dtype}", product)
    return {"rows": rows}


# ------------------------------------------------------------------------------------------------ encoder
def encoder_module(vision_config):
    """-> (module whose call gives the last hidden state, what it is)."""
    import hf_reference
    if not hf_reference.available():
        import convllava
        model = convllava.ConvNextModel(vision_config)
        return model, lambda pixels: model(pixels)[-1], "tools/pytorch/convllava.py"
    from transformers import ConvNextConfig, ConvNextModel
    model = ConvNextModel(ConvNextConfig.from_dict(vision_config))

    def last(pixels):
        x = model.embeddings(pixels)
        for stage in model.encoder.stages:
            x = stage(x)
        return x
    return model, last, "transformers ConvNextModel"


def encoder(context):
    import torch
    device = torch_device(context)
    _, vision_config = sizes(context)
    gpu = device.type == "cuda"
    dtype, timer, rows = half(device), Timer(device), []
    torch.backends.cudnn.benchmark = True
    model, last, what = encoder_module(vision_config)
    model = model.to(device=device, dtype=dtype, memory_format=torch.channels_last).eval()
    shapes = [(size, batch) for batch in (1, 8) for size in ((768, 1024, 1536) if gpu else (vision_config["image_size"],))]
    with torch.no_grad():
        def one(call, size, batch):
            pixels = torch.randn(batch, 3, size, size, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
            return {"ms": timer(lambda: call(pixels), runs=15, seconds=2.5)}
        for size, batch in shapes:
            attempt(rows, f"eager {size} batch {batch}", lambda: one(last, size, batch))
        # Compiling takes longest, so the sizes that matter most come first.
        for size, batch in sorted(shapes, key=lambda shape: (shape[1], -shape[0])):
            def fused():
                context.require(20, "compiling")
                return one(compiled(torch, last, mode="reduce-overhead" if gpu else "default"), size, batch)
            attempt(rows, f"compiled {size} batch {batch}", fused)
    return {"what": f"{what}, channels_last, {dtype}", "rows": rows, "status": "failed" if any("failed" in row for row in rows) else "passed"}


# ----------------------------------------------------------------------------------------------- language
def static_cache(config, length, device, dtype):
    """transformers' StaticCache, whose constructor has changed its arguments several times."""
    from transformers import StaticCache
    known = inspect.signature(StaticCache.__init__).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    wanted = {"config": config, "max_cache_len": length, "max_batch_size": 1, "batch_size": 1, "device": device, "dtype": dtype}
    if "max_batch_size" in known:
        wanted.pop("batch_size")
    elif "batch_size" in known:
        wanted.pop("max_batch_size")
    elif takes_any:
        wanted = {name: wanted[name] for name in ("config", "max_cache_len")}
    return StaticCache(**{name: value for name, value in wanted.items() if name in known or takes_any})


def rewind(cache, length):
    """Caches of transformers 5 count their tokens themselves: sets that back so that steps can be repeated."""
    for layer in getattr(cache, "layers", []):
        counter = getattr(layer, "cumulative_length", None)
        if counter is None:
            continue
        if hasattr(counter, "fill_"):
            counter.fill_(length)
        else:
            layer.cumulative_length = length


def language(context):
    import torch
    import hf_reference
    if not hf_reference.available():
        raise Skip("transformers is not installed")
    from transformers import LlamaConfig, LlamaForCausalLM
    device = torch_device(context)
    config, vision_config = sizes(context)
    gpu = device.type == "cuda"
    dtype, timer, rows = half(device), Timer(device), []
    llama_config = LlamaConfig.from_dict(config)
    llama_config._attn_implementation = "sdpa"
    llama_config.use_cache = True
    torch.set_default_dtype(dtype)
    with torch.device(device):  # 7 billion parameters are made on the GPU at once
        model = LlamaForCausalLM(llama_config).eval()
    torch.set_default_dtype(torch.float32)
    state = {"model": model, "config": llama_config, "device": device, "dtype": dtype, "timer": timer, "context": context}
    prompts = (204, 316, 636) if gpu else (20,)
    contexts = (700, 4000) if gpu else (40,)
    with torch.no_grad():
        for tokens in prompts:
            attempt(rows, f"prefill {tokens} eager", lambda: prefill(state, model.model, tokens))
        for length in contexts:
            attempt(rows, f"decode at {length} eager", lambda: decode(state, length, "eager"))
            if gpu:
                attempt(rows, f"decode at {length} CUDA graph", lambda: decode(state, length, "graph"))
        for tokens in reversed(prompts):
            def fused():
                context.require(22, "compiling")
                return prefill(state, compiled(torch, model.model.forward), tokens)
            attempt(rows, f"prefill {tokens} compiled", fused)
        for length in contexts:
            def fused_step():
                context.require(22, "compiling")
                return decode(state, length, "compiled")
            attempt(rows, f"decode at {length} compiled", fused_step)
    return {"what": f"transformers LlamaForCausalLM, sdpa, static cache, {dtype}", "rows": rows,
            "status": "failed" if any("failed" in row for row in rows) else "passed"}


def prefill(state, call, tokens):
    """A prompt of embedded tokens and the logits of its last position."""
    import torch
    model = state["model"]
    embeds = torch.randn(1, tokens, state["config"].hidden_size, device=state["device"], dtype=state["dtype"])

    def run():
        hidden = call(inputs_embeds=embeds, use_cache=True).last_hidden_state
        return model.lm_head(hidden[:, -1])
    return {"ms": state["timer"](run, runs=15, seconds=2)}


def decode(state, length, how):
    """One token at `length` tokens of context, logits and the choice of the next token included."""
    import torch
    model, device = state["model"], state["device"]
    cache = static_cache(state["config"], length + 64, device, state["dtype"])
    embeds = torch.randn(1, length, state["config"].hidden_size, device=device, dtype=state["dtype"])
    start = torch.arange(length, device=device)
    model(inputs_embeds=embeds, past_key_values=cache, use_cache=True, cache_position=start, position_ids=start[None])
    token = torch.ones(1, 1, dtype=torch.long, device=device)
    position = torch.full((1,), length, dtype=torch.long, device=device)
    call = compiled(torch, model.forward, mode="reduce-overhead") if how == "compiled" else model.forward

    def step():
        logits = call(input_ids=token, past_key_values=cache, use_cache=True, cache_position=position, position_ids=position[None]).logits
        return logits[:, -1].argmax(-1)

    def repeat(run):
        def call_it():
            rewind(cache, length)
            return run()
        return call_it
    if how != "graph":
        return {"ms": state["timer"](repeat(step), runs=30, seconds=2)}
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            rewind(cache, length)
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    rewind(cache, length)
    with torch.cuda.graph(graph):
        step()
    return {"ms": state["timer"](repeat(graph.replay), runs=30, seconds=2)}
