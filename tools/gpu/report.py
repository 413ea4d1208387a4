"""The Markdown table of a record."""


def markdown(record):
    lines = [f"# GPU check, {record['date'][:10]}", ""]
    if record["device"] != "cuda":
        lines += ["**A trial run without a GPU: no number below says anything about speed.**", ""]
    lines += facts(record) + ["", "| stage | result | seconds |", "|---|---|---|"]
    for name, stage in record["stages"].items():
        lines.append(f"| {name} | {stage['status']}{': ' + clip(stage['reason']) if stage.get('reason') else ''} | {stage.get('seconds', '')} |")
    for section in (parity, checks, ceilings, encoder, language, end_to_end, kernels):
        part = section(record["stages"])
        if part:
            lines += ["", *part]
    return "\n".join(lines) + "\n"


def facts(record):
    gpu, versions = record["gpu"] or {}, record["versions"]
    device = f"{gpu.get('name', 'no GPU')}, driver {gpu.get('driver_version', '?')}, {gpu.get('memory.total', '?')}, power limit {gpu.get('power.limit', '?')}"
    doctor = record["stages"].get("doctor", {}).get("doctor", {})
    engine = ", ".join(f"{key} {doctor[key]}" for key in ("nvrtc", "cublaslt") if isinstance(doctor.get(key), str))
    return [f"- {device}", f"- commit {record['commit'] or 'unknown'}{'; engine: ' + engine if engine else ''}",
            "- " + ", ".join(f"{name} {version}" for name, version in versions.items() if version)]


def clip(text, length=160):
    text = " ".join(str(text).replace("|", "/").split())
    return text if len(text) <= length else text[:length - 1] + "…"


def number(value):
    return "" if value is None else f"{value:.2e}"


def rows(stages, name):
    return stages.get(name, {}).get("rows", [])


def bench(stages, dtype):
    """The engine's rows of one precision, by name."""
    for row in rows(stages, "engine"):
        if row["name"] == dtype and "bench" in row:
            return {line["name"]: line for line in row["bench"]["rows"]}, row["bench"].get("ceilings", {})
    return {}, {}


def ms(row):
    if row is None:
        return ""
    if "ms" in row:
        return f"{row['ms']['median']:.3f}"
    return "skipped" if "skipped" in row else "failed"


def percent(row, key):
    return f"{row[key]:.0f} %" if row and row.get(key) is not None else ""


def times(row, base):
    return f"{row['ms']['median'] / base['ms']['median']:.2f}x" if row and base and "ms" in row and "ms" in base else ""


def parity(stages):
    if not rows(stages, "parity"):
        return []
    lines = [f"## Against {stages['parity'].get('what', 'Hugging Face')}", "", "| model and precision | result | worst tensor | distance | the reference's own | tokens equal |", "|---|---|---|---|---|---|"]
    for row in rows(stages, "parity"):
        if "worst" in row:
            worst, tokens = row["worst"], row["tokens"]
            lines.append(f"| {row['name']} | {'pass' if row['passed'] else '**FAIL**'} | {worst['tensor']} | {worst['distance']:.2e} | {number(worst['hugging_face'])} "
                         f"| {'yes' if tokens['passed'] else '**no**'}, {tokens['compared']} of {tokens['generated']} compared |")
        else:
            lines.append(f"| {row['name']} | {clip(row.get('failed') or row.get('skipped'))} | | | | |")
    return lines


def checks(stages):
    lines = []
    for row in rows(stages, "selftest"):
        worst = row.get("worst")
        text = f"{row['operations']} operations, worst {worst['name']} at {worst['error']:.1e} of {worst['tolerance']:.0e}" if worst else clip(row.get("failed") or row.get("skipped"))
        bad = f"; **failed: {', '.join(row['failed_operations'])}**" if row.get("failed_operations") else ""
        lines.append(f"- selftest {row['name']}: {text}{bad}")
    for row in rows(stages, "sanitizer"):
        lines.append(f"- {row['name']}: {'clean' if row.get('passed') else '**not clean**'}; {clip(row.get('summary') or row.get('failed') or row.get('skipped') or '')}")
    return ["## Checks", "", *lines] if lines else []


def ceilings(stages):
    _, ours = bench(stages, "bfloat16")
    lines = [f"- PyTorch: {row['name']} {row['gb_s']:.0f} GB/s" if "gb_s" in row else f"- PyTorch: {row['name']} {row['tflop_s']:.0f} TFLOP/s"
             for row in rows(stages, "ceilings") if "ms" in row]
    if ours:
        lines.append(f"- engine: copy {ours.get('copy_gb_s', 0):.0f} GB/s, gemm {ours.get('gemm_tflop_s', 0):.0f} TFLOP/s (bfloat16, cuBLASLt)")
    return ["## Ceilings of this run", "", *lines] if lines else []


def found(stages, start):
    """Names of the engine's rows that begin so, in the order they were measured."""
    names = [name for dtype in ("bfloat16", "float16") for name in bench(stages, dtype)[0] if name.startswith(start)]
    return list(dict.fromkeys(names))


def compared(stages, title, stage, names, columns, share, key):
    """A table of engine rows beside PyTorch's rows of the same name and a suffix each."""
    ours_bf16, _ = bench(stages, "bfloat16")
    half, _ = bench(stages, "float16")
    theirs = {row["name"]: row for row in rows(stages, stage)}
    if not names:
        return []
    heads = [head for head, _ in columns]
    lines = [f"## {title}", "", f"| | engine bf16 ms | {share} | engine fp16 ms | " + " | ".join(f"{head} ms | gain" for head in heads) + " |",
             "|---|" + "---|" * (3 + 2 * len(heads))]
    for name in names:
        ours = ours_bf16.get(name)
        cells = [ms(ours), percent(ours, key), ms(half.get(name))]
        for _, column in columns:
            row = theirs.get(column(name))
            cells += [ms(row), times(row, ours)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    what = stages.get(stage, {}).get("what")
    return lines + (["", f"PyTorch: {what}."] if what else [])


def encoder(stages):
    names = found(stages, "encode ")
    short = lambda name: name.removeprefix("encode ")
    return compared(stages, "Encoder", "encoder", names, [("eager", lambda name: "eager " + short(name)), ("compiled", lambda name: "compiled " + short(name))],
                    "of GEMM rate", "percent_of_gemm")


def language(stages):
    prefills, decodes = found(stages, "prefill "), found(stages, "decode at ")
    with_suffix = lambda suffix: lambda name: f"{name} {suffix}"
    first = compared(stages, "Prefill", "language", prefills, [("eager", with_suffix("eager")), ("compiled", with_suffix("compiled"))], "of GEMM rate", "percent_of_gemm")
    second = compared(stages, "Decode, one token", "language", decodes,
                      [("eager", with_suffix("eager")), ("CUDA graph", with_suffix("CUDA graph")), ("compiled", with_suffix("compiled"))], "of copy bandwidth", "percent_of_copy")
    return first + ([""] if first and second else []) + second


def end_to_end(stages):
    ours, _ = bench(stages, "bfloat16")
    lines = [f"- engine, {name}: {ms(row)} ms" for name, row in ours.items() if name.startswith(("e2e ", "load"))]
    # What PyTorch needs for the same first token is at least its encoder, its prefill: no preprocessing, no projector, no tokenizer.
    sums = []
    theirs = {**{row["name"]: row for row in rows(stages, "encoder")}, **{row["name"]: row for row in rows(stages, "language")}}
    for how in ("eager", "compiled"):
        encode, prefill = theirs.get(f"{how} 1536 batch 1"), theirs.get(f"prefill 636 {how}")
        if encode and prefill and "ms" in encode and "ms" in prefill:
            sums.append(f"- PyTorch {how}: {encode['ms']['median'] + prefill['ms']['median']:.1f} ms for encoder at 1536 and prefill of 636 tokens alone")
    return ["## Time to first token", "", *lines, *sums] if lines or sums else []


def kernels(stages):
    for row in rows(stages, "engine"):
        if row["name"].startswith("kernels") and "bench" in row:
            lines = ["## Operations alone, cold cache, bfloat16", "", "| operation | ms | GB/s | TFLOP/s | of copy | of GEMM |", "|---|---|---|---|---|---|"]
            for line in row["bench"]["rows"]:
                lines.append(f"| {line['name']} | {ms(line)} | {line.get('gb_s', 0):.0f} | {line.get('tflop_s', 0):.1f} | {percent(line, 'percent_of_copy')} | {percent(line, 'percent_of_gemm')} |")
            return lines
    return []
