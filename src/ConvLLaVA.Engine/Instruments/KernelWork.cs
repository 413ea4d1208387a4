using System.Globalization;
using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>What a model has a kernel do: all its launches for one picture, one prompt or one decoding step together.</summary>
/// <param name="What">For what: <c>picture</c>, <c>prompt of 636</c>, <c>step of 1</c>.</param>
/// <param name="Launches">How often it is launched.</param>
/// <param name="Bytes">Bytes it must move at least.</param>
/// <param name="Flops">Floating-point operations.</param>
internal sealed record KernelWork(string What, int Launches, long Bytes, long Flops);

/// <summary>Works out the <see cref="KernelWork"/> of every kernel specialisation from the operations of a model.</summary>
internal sealed class KernelWorkload
{
    private const int DecodeContext = 700;
    private readonly string _model;
    private readonly DType _type;
    private readonly int _prompt;
    private readonly IReadOnlyList<OperationCost> _picture;
    private readonly IReadOnlyList<OperationCost> _promptStep;
    private readonly Dictionary<int, IReadOnlyList<OperationCost>> _decode = [];

    /// <summary>Plans the operations of <paramref name="model"/> (a folder or <c>synth:PRESET</c>).</summary>
    public KernelWorkload(string model, DType type)
    {
        _model = model;
        _type = type;
        (int imageTokens, int positions, int hiddenSize) = PlannedCost.Sizes(model);
        HiddenSize = hiddenSize;
        _prompt = Math.Min(imageTokens + 60, positions);
        Context = Math.Min(DecodeContext, positions - 1);
        _picture = PlannedCost.EncodingOperations(model, type, 1);
        _promptStep = PlannedCost.StepOperations(model, type, [new SequencePiece(0, _prompt)]);
    }

    /// <summary>Tokens of context that decoding is looked at with.</summary>
    public int Context { get; }

    /// <summary>Width of the decoder.</summary>
    public int HiddenSize { get; }

    /// <summary>The work of a specialisation's entry point; null for what no forward pass of the model launches.</summary>
    public KernelWork? Of(KernelSpec spec, string entry)
    {
        long size = _type.SizeInBytes();
        return (spec.File, entry) switch
        {
            ("gather_patches.cu", _) => Picture("gather patches"),
            ("layer_norm.cu", _) => Picture("layer norm"),
            ("depthwise_norm.cu", _) => Picture("depthwise 7x7 + norm"),
            ("norm_gather.cu", _) => Picture("norm + 2x2 gather"),
            ("bias_activation.cu", _) => Sum("picture", _picture, "linear + GELU", cost => (2 * Elements(cost) * size, 10 * Elements(cost))),
            ("embed_tokens.cu", _) => Prompt("embed tokens"),
            ("rms_norm.cu", "rms_norm") => Both("norm + QKV + RoPE", "norm + gated MLP", cost => (2L * cost.Rows * cost.Inputs * size, 4L * cost.Rows * cost.Inputs)),
            ("rope_kv.cu", _) => Sum(PromptName, _promptStep, "norm + QKV + RoPE", cost => (2 * Elements(cost) * size, 3 * Elements(cost))),
            ("attention_prefill.cu" or "attention_prefill_any.cu", _) => Prompt("attention (prefill)"),
            ("silu_multiply.cu", _) => Sum(PromptName, _promptStep, "norm + gated MLP", cost => (3 * Elements(cost) * size, 5 * Elements(cost))),
            ("attention_decode.cu", "attention_decode") => Step(1, "attention (decode)", cost => (cost.Bytes, cost.Flops)),
            ("gemv_qkv.cu", _) => Step(Rows(spec), "norm + QKV + RoPE", cost => Product(cost.Inputs, cost.Outputs, cost.Rows, size)),
            ("gemv.cu", _) => Gemv(spec, size),
            ("penalise.cu", _) => Step(1, "norm + logits", cost => (8L * cost.Outputs, 0)),
            ("sample.cu" or "token_logprobs.cu", _) => Step(1, "norm + logits", cost => (4L * cost.Outputs, 0)),
            _ => null,
        };
    }

    private string PromptName => string.Create(CultureInfo.InvariantCulture, $"prompt of {_prompt}");

    private KernelWork? Gemv(KernelSpec spec, long size) => Constant(spec, "EPILOGUE") switch
    {
        GemvEpilogue.Add => Together(Step(Rows(spec), "linear + residual", cost => Product(cost.Inputs, cost.Outputs, cost.Rows, size)),
            Step(Rows(spec), "norm + gated MLP", cost => Product(cost.Outputs, cost.Inputs, cost.Rows, size))),
        GemvEpilogue.SwiGlu => Step(Rows(spec), "norm + gated MLP", cost => Product(cost.Inputs, 2L * cost.Outputs, cost.Rows, size)),
        GemvEpilogue.Logits => Step(Rows(spec), "norm + logits", cost => Product(cost.Inputs, cost.Outputs, cost.Rows, size)),
        _ => null,
    };

    private KernelWork? Picture(string operation) => Sum("picture", _picture, operation, cost => (cost.Bytes, cost.Flops));

    private KernelWork? Prompt(string operation) => Sum(PromptName, _promptStep, operation, cost => (cost.Bytes, cost.Flops));

    private KernelWork? Both(string first, string second, Func<OperationCost, (long, long)> share)
        => Together(Sum(PromptName, _promptStep, first, share), Sum(PromptName, _promptStep, second, share));

    private KernelWork? Step(int rows, string operation, Func<OperationCost, (long, long)> share)
    {
        if (!_decode.TryGetValue(rows, out IReadOnlyList<OperationCost>? operations))
            _decode.Add(rows, operations = PlannedCost.StepOperations(_model, _type, [.. Enumerable.Repeat(new SequencePiece(Context, 1), rows)]));
        return Sum(string.Create(CultureInfo.InvariantCulture, $"step of {rows}"), operations, operation, share);
    }

    private static KernelWork? Sum(string what, IReadOnlyList<OperationCost> operations, string operation, Func<OperationCost, (long Bytes, long Flops)> share)
    {
        OperationCost[] those = [.. operations.Where(cost => cost.Name == operation)];
        return those.Length == 0 ? null : new KernelWork(what, those.Length, those.Sum(cost => share(cost).Bytes), those.Sum(cost => share(cost).Flops));
    }

    private static KernelWork? Together(KernelWork? first, KernelWork? second)
        => first is null ? second : second is null ? first : first with { Launches = first.Launches + second.Launches, Bytes = first.Bytes + second.Bytes, Flops = first.Flops + second.Flops };

    /// <summary>A weight read once for all rows.</summary>
    private static (long Bytes, long Flops) Product(long inputs, long outputs, long rows, long size) => (inputs * outputs * size, 2 * inputs * outputs * rows);

    private static long Elements(OperationCost cost) => (long)cost.Rows * cost.Outputs;

    /// <summary>Rows that a GEMV specialisation takes.</summary>
    public int Rows(KernelSpec spec) => Constant(spec, "ROWS");

    private static int Constant(KernelSpec spec, string name) => int.Parse(spec.Constants.Split(' ').First(constant => constant.StartsWith(name + "=", StringComparison.Ordinal))[(name.Length + 1)..], CultureInfo.InvariantCulture);
}
