using System.Runtime.InteropServices;
using ConvLLaVA.Engine.Gpu;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Kernels.Tests.Language;

/// <summary>A random matrix, quantised by the formats' definition, and what the codes stand for.</summary>
internal sealed class QuantMatrix
{
    private readonly QuantFormat _format;
    private readonly byte[] _codes;
    private readonly byte[] _scales;
    private readonly float[] _expanded = [];

    /// <summary>Quantises a matrix [rows, columns].</summary>
    public unsafe QuantMatrix(QuantFormat format, int seed, int rows, int columns, double scale)
    {
        _format = format;
        var layout = new QuantLayout(format, rows, columns);
        float[] matrix = Numbers.Normal(seed, rows * columns, scale: scale);
        _codes = new byte[layout.CodeBytes];
        _scales = new byte[layout.ScaleBytes];
        var absMax = new float[layout.AbsMaxCount];
        float offset = 0;
        if (format == QuantFormat.Nf4)
        {
            offset = QuantReference.EncodeNf4(matrix, _codes, _scales, absMax);
        }
        else
        {
            int scaleBytes = _scales.Length / rows;
            for (int r = 0; r < rows; r++)
                QuantReference.EncodeRow(format, matrix.AsSpan(r * columns, columns), _codes.AsSpan(r * layout.RowBytes, layout.RowBytes), _scales.AsSpan(r * scaleBytes, scaleBytes));
        }
        Values = new float[matrix.Length];
        fixed (byte* codes = _codes, scales = _scales)
        fixed (float* second = absMax)
        {
            var tensor = new QuantizedTensor(layout, new QuantizedBytes((nint)codes, (nint)scales, (nint)second, offset));
            for (int r = 0; r < rows; r++) QuantReference.DecodeRow(tensor, r, Values.AsSpan(r * columns, columns));
            if (format == QuantFormat.Nf4)
            {
                _expanded = new float[layout.ScaleCount];
                Nf4.ExpandScales(tensor, 0, _expanded);
            }
        }
    }

    /// <summary>What the codes stand for. [rows, columns]</summary>
    public float[] Values { get; }

    /// <summary>The kernels' constant.</summary>
    public string Constant => $"WEIGHTS={KernelWeights.Of(_format)}";

    /// <summary>The codes on the device.</summary>
    public DeviceArray Codes(KernelRun run) => run.Upload<byte>(_codes);

    /// <summary>The scales on the device, as kernels take them: float16 of groups, float of rows and of nf4's blocks.</summary>
    public DeviceArray Scales(KernelRun run) => _format switch
    {
        QuantFormat.Nf4 => run.Upload(_expanded),
        QuantFormat.Int8 => run.Upload([.. MemoryMarshal.Cast<byte, float>(_scales).ToArray().Select(scale => scale / 127)]),
        _ => run.Upload<byte>(_scales),
    };
}
