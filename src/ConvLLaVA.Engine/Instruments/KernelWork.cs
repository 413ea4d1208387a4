using System.Globalization;
using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Quantization;
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
    private readonly QuantOptions? _quantize;
    private readonly int _prompt;
    private readonly IReadOnlyList<OperationCost> _picture;
    private readonly IReadOnlyList<OperationCost> _promptStep;
    private readonly Dictionary<int, IReadOnlyList<OperationCost>> _decode = [];

    /// <summary>Plans the operations of <paramref name="model"/> (a folder or <c>synth:PRESET</c>), quantised while loading or not.</summary>
    public KernelWorkload(string model, DType type, QuantOptions? quantize = null)
    {
        _model = model;
        _type = type;
        _quantize = quantize;
        (int imageTokens, int positions, int hiddenSize) = PlannedCost.Sizes(model);
        HiddenSize = hiddenSize;
        _prompt = Math.Min(imageTokens + 60, positions);
        Context = Math.Min(DecodeContext, positions - 1);
        _picture = PlannedCost.EncodingOperations(model, type, 1, quantize);
        _promptStep = PlannedCost.StepOperations(model, type, [new SequencePiece(0, _prompt)], quantize);
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
            ("bias_activation.cu", _) => Sum("picture", _picture, "linear + GELU", cost => (2 * Elements(cost) * size, GpuKernels.GeluFlops * Elements(cost))),
            ("embed_tokens.cu", _) => Prompt("embed tokens"),
            ("rms_norm.cu", "rms_norm") => Both("norm + QKV + RoPE", "norm + gated MLP", cost => (2L * cost.Rows * cost.Inputs * size, 4L * cost.Rows * cost.Inputs)),
            ("rope_kv.cu", _) => Sum(PromptName, _promptStep, "norm + QKV + RoPE", cost => (2 * Elements(cost) * size, 3 * Elements(cost))),
            ("attention_prefill.cu" or "attention_prefill_any.cu", _) => Prompt("attention (prefill)"),
            ("silu_multiply.cu", _) => Sum(PromptName, _promptStep, "norm + gated MLP", cost => (3 * Elements(cost) * size, 5 * Elements(cost))),
            ("dequantise.cu", _) => Dequantised(Form(spec)),
            ("attention_decode.cu", "attention_decode") => Step(1, "attention (decode)", cost => (cost.Bytes, cost.Flops)),
            ("gemv_qkv.cu", _) => Product(spec, "norm + QKV + RoPE"),
            ("gemv.cu", _) => Constant(spec, "EPILOGUE") switch
            {
                GemvEpilogue.Add => Together(Product(spec, "linear + residual"), Product(spec, "norm + gated MLP", 1)),
                GemvEpilogue.SwiGlu => Product(spec, "norm + gated MLP"),
                GemvEpilogue.Logits => Product(spec, "norm + logits"),
                _ => null,
            },
            ("penalise.cu", _) => Step(1, "norm + logits", cost => (8L * cost.Outputs, 0)),
            ("sample.cu" or "token_logprobs.cu", _) => Step(1, "norm + logits", cost => (4L * cost.Outputs, 0)),
            _ => null,
        };
    }

    private string PromptName => string.Create(CultureInfo.InvariantCulture, $"prompt of {_prompt}");

    /// <summary>A decoding step's products with a matrix of each operation, where it has the kernel's form: read once for all rows, codes and
    /// scales where it is quantised.</summary>
    private KernelWork? Product(KernelSpec spec, string operation, int matrix = 0)
    {
        int rows = Rows(spec), form = Form(spec);
        return Sum(StepName(rows), [.. Decoding(rows).Where(cost => cost.Name == operation && Matrix(cost).Form == form)], operation,
            cost => (Matrix(cost).ByteLength, 2 * rows * Elements(Matrix(cost))));

        GpuLinear Matrix(OperationCost cost) => (GpuLinear)cost.Weights![matrix];
    }

    /// <summary>All matrices of a form that meet many rows, in a picture and a prompt: codes and scales read, weights written.</summary>
    private KernelWork? Dequantised(int form)
    {
        GpuLinear[] matrices = [.. _picture.Concat(_promptStep).Where(cost => cost.Rows > KernelShape.MaxGemvRows).SelectMany(cost => cost.Weights ?? []).Cast<GpuLinear>().Where(matrix => matrix.Form == form)];
        if (matrices.Length == 0) return null;
        int launches = matrices.Sum(matrix => (matrix.OutFeatures - 1) / WeightBinder.TileRows(matrix.OutFeatures, matrix.InFeatures, _type, WeightBinder.DefaultScratchBytes) + 1);
        return new KernelWork($"picture + {PromptName}", launches, matrices.Sum(matrix => matrix.ByteLength + (Elements(matrix) * _type.SizeInBytes())), 2 * matrices.Sum(Elements));
    }

    private KernelWork? Picture(string operation) => Sum("picture", _picture, operation, cost => (cost.Bytes, cost.Flops));

    private KernelWork? Prompt(string operation) => Sum(PromptName, _promptStep, operation, cost => (cost.Bytes, cost.Flops));

    private KernelWork? Both(string first, string second, Func<OperationCost, (long, long)> share)
        => Together(Sum(PromptName, _promptStep, first, share), Sum(PromptName, _promptStep, second, share));

    private KernelWork? Step(int rows, string operation, Func<OperationCost, (long, long)> share) => Sum(StepName(rows), Decoding(rows), operation, share);

    private static string StepName(int rows) => string.Create(CultureInfo.InvariantCulture, $"step of {rows}");

    private IReadOnlyList<OperationCost> Decoding(int rows)
    {
        if (!_decode.TryGetValue(rows, out IReadOnlyList<OperationCost>? operations))
            _decode.Add(rows, operations = PlannedCost.StepOperations(_model, _type, [.. Enumerable.Repeat(new SequencePiece(Context, 1), rows)], _quantize));
        return operations;
    }

    private static KernelWork? Sum(string what, IReadOnlyList<OperationCost> operations, string operation, Func<OperationCost, (long Bytes, long Flops)> share)
    {
        OperationCost[] those = [.. operations.Where(cost => cost.Name == operation)];
        return those.Length == 0 ? null : new KernelWork(what, those.Length, those.Sum(cost => share(cost).Bytes), those.Sum(cost => share(cost).Flops));
    }

    private static KernelWork? Together(KernelWork? first, KernelWork? second)
        => first is null ? second : second is null ? first : first with { Launches = first.Launches + second.Launches, Bytes = first.Bytes + second.Bytes, Flops = first.Flops + second.Flops };

    private static long Elements(OperationCost cost) => (long)cost.Rows * cost.Outputs;

    private static long Elements(GpuLinear matrix) => (long)matrix.InFeatures * matrix.OutFeatures;

    /// <summary>Rows that a GEMV specialisation takes.</summary>
    public int Rows(KernelSpec spec) => Constant(spec, "ROWS");

    /// <summary>The form of weights that a specialisation reads.</summary>
    private static int Form(KernelSpec spec) => Constant(spec, "WEIGHTS", KernelWeights.Stored);

    private static int Constant(KernelSpec spec, string name, int absent = 0)
        => spec.Constants.Split(' ').FirstOrDefault(constant => constant.StartsWith(name + "=", StringComparison.Ordinal)) is { } constant
            ? int.Parse(constant.AsSpan(name.Length + 1), CultureInfo.InvariantCulture)
            : absent;
}
