using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>Builds the cases of a self-test: each binds weights and inputs of its own when it is made, so that all are on the device before the first
/// runs. Inputs are tables that are looked up row by row, the one way data gets to every device.</summary>
internal sealed partial class SelftestCases(IBackend backend, RandomTensors data, HeadShape heads)
{
    private const long Budget = 40_000_000; // multiplications of a reference
    private const int BlockSize = 16;
    private const float LayerNormEpsilon = 1e-6f;
    private const float RmsNormEpsilon = 1e-5f;
    private readonly RopeParameters _rope = new(heads.HeadDim, 10000);

    /// <summary>Rows of tables looked up, exactly.</summary>
    public SelftestCase Embed(int vocabulary, int width, int tokens)
    {
        WeightTensor table = data.Make([vocabulary, width], 0, 1);
        EmbeddingTable bound = backend.LoadEmbedding(table);
        PagedBatch batch = InstrumentBackend.StepOf([new SequencePiece(0, tokens)], BlockSize, 0);
        for (int t = 0; t < tokens; t++) batch.TokenIds[t] = (int)((t * 7919L) % vocabulary);
        return new("embed tokens", $"{tokens} of [{vocabulary}, {width}]", (device, workspace) =>
        {
            Tensor output = workspace.Take(tokens, width);
            device.RunStep(batch, false, () => device.EmbedTokens(bound, batch, output));
            return output;
        }, (actual, compare) =>
        {
            for (int t = 0; t < tokens; t++) compare.Add(actual.AsSpan(t * width, width), Array.ConvertAll(SelftestReference.Row(table, batch.TokenIds[t]), value => (double)value));
        });
    }

    /// <summary>Normalised pixels, gathered and convolved into patches.</summary>
    public SelftestCase Patches(int images, int height, int width, int patch, int channels)
    {
        WeightTensor filter = data.Make([channels, 3, patch, patch], 0, 0.2), bias = data.Make([channels], 0, 0.1);
        LinearWeight weight = backend.LoadPatchConvolution(filter, bias);
        var random = new Random(images + height);
        byte[][] pixels = [.. Enumerable.Range(0, images).Select(_ => { var picture = new byte[height * width * 3]; random.NextBytes(picture); return picture; })];
        float[] lut = [.. Enumerable.Range(0, 768).Select(i => ((i % 256) - 127.5f) / (60 + (i / 256)))];
        var batch = new ImageBatch(pixels, height, width, lut);
        var grid = new Grid(images, height / patch, width / patch);
        return new("gather patches + convolution", $"{images} x {height} x {width} / {patch} -> {channels}", (device, workspace) =>
        {
            Tensor output = workspace.Take(grid.Rows, channels);
            using var scope = workspace.Open();
            Tensor rows = workspace.Take(grid.Rows, 3 * patch * patch);
            device.GatherPatches(batch, patch, rows, workspace);
            device.Linear(rows, weight, Activation.None, output);
            return output;
        }, (actual, compare) =>
        {
            float[] taps = SelftestReference.All(filter), biases = SelftestReference.All(bias);
            foreach (int row in Samples.Of(grid.Rows, (int)Math.Max(8, Budget / (3L * patch * patch * channels)), 1))
            {
                int image = row / (grid.Height * grid.Width), y = row / grid.Width % grid.Height * patch, x = row % grid.Width * patch;
                double[] expected = Array.ConvertAll(biases, value => (double)value);
                for (int c = 0; c < 3; c++)
                {
                    for (int k = 0; k < patch * patch; k++)
                    {
                        double value = lut[(c * 256) + pixels[image][((((y + (k / patch)) * width) + x + (k % patch)) * 3) + c]];
                        for (int o = 0; o < channels; o++) expected[o] += value * taps[(((o * 3) + c) * patch * patch) + k];
                    }
                }
                compare.Add(actual.AsSpan(row * channels, channels), expected);
            }
        });
    }

    /// <summary>LayerNorm in place.</summary>
    public SelftestCase LayerNorm(int rows, int channels)
    {
        Input input = Matrix(rows, channels, 0.3);
        (NormWeight norm, float[] weight, float[] bias) = LayerNormWeight(channels);
        return new("layer norm", $"[{rows}, {channels}]", (device, workspace) =>
        {
            Tensor x = input.Upload(device, workspace);
            device.LayerNorm(x, norm, x);
            return x;
        }, (actual, compare) => Rows(rows, channels, 4, row => compare.Add(actual.AsSpan(row * channels, channels),
            Wide(SelftestReference.LayerNorm(Wide(input.Row(row)), weight, bias, LayerNormEpsilon)))));
    }

    /// <summary>Depthwise convolution and LayerNorm.</summary>
    public SelftestCase Depthwise(Grid grid, int channels)
    {
        Input input = Matrix(grid.Rows, channels, 0);
        WeightTensor filter = data.Make([channels, 1, 7, 7], 0, 0.25), offset = data.Make([channels], 0, 0.1);
        DepthwiseWeight depthwise = backend.LoadDepthwise(filter, offset);
        (NormWeight norm, float[] weight, float[] bias) = LayerNormWeight(channels);
        return new("depthwise 7x7 + norm", $"{grid.Images} x {grid.Height} x {grid.Width} x {channels}", (device, workspace) =>
        {
            Tensor x = input.Upload(device, workspace), y = workspace.Take(grid.Rows, channels);
            device.DepthwiseConvNorm(x, grid, depthwise, norm, y);
            return y;
        }, (actual, compare) =>
        {
            float[] taps = SelftestReference.All(filter), offsets = SelftestReference.All(offset);
            Rows(grid.Rows, channels, 60, row => compare.Add(actual.AsSpan(row * channels, channels), Wide(SelftestReference.LayerNorm(
                SelftestReference.Depthwise(input.Tensor, grid, row / (grid.Height * grid.Width), row / grid.Width % grid.Height, row % grid.Width, taps, offsets),
                weight, bias, LayerNormEpsilon))));
        });
    }

    /// <summary>LayerNorm, 2x2 cells, convolution: a stage's downsampling.</summary>
    public SelftestCase Downsample(Grid grid, int channels, int outputs)
    {
        Input input = Matrix(grid.Rows, channels, 0);
        (NormWeight norm, float[] weight, float[] bias) = LayerNormWeight(channels);
        WeightTensor filter = data.Make([outputs, channels, 2, 2], 0, Math.Sqrt(3.0 / (4 * channels))), offset = data.Make([outputs], 0, 0.1);
        LinearWeight convolution = backend.LoadPatchConvolution(filter, offset);
        Grid half = grid.Downsampled(2);
        return new("norm + 2x2 gather + convolution", $"{grid.Images} x {grid.Height} x {grid.Width} x {channels} -> {outputs}", (device, workspace) =>
        {
            Tensor x = input.Upload(device, workspace), cells = workspace.Take(half.Rows, 4 * channels), y = workspace.Take(half.Rows, outputs);
            device.NormGather(x, grid, norm, cells);
            device.Linear(cells, convolution, Activation.None, y);
            return y;
        }, (actual, compare) =>
        {
            float[] taps = SelftestReference.All(filter), offsets = SelftestReference.All(offset);
            int sampled = Within(Budget / (4L * channels * half.Rows), 8, outputs);
            Rows(half.Rows, 4 * sampled * channels, 1, row =>
            {
                int image = row / (half.Height * half.Width), y = row / half.Width % half.Height, x = row % half.Width;
                float[][] cells = [.. Enumerable.Range(0, 4).Select(k => SelftestReference.LayerNorm(
                    Wide(input.Row(((((image * grid.Height) + (2 * y) + (k / 2)) * grid.Width) + (2 * x) + (k % 2)))), weight, bias, LayerNormEpsilon))];
                foreach (int o in Samples.Of(outputs, sampled, (ulong)row))
                {
                    double sum = offsets[o];
                    for (int c = 0; c < channels; c++)
                    {
                        for (int k = 0; k < 4; k++) sum += (double)cells[k][c] * taps[(((o * channels) + c) * 4) + k];
                    }
                    compare.Add(actual[(row * outputs) + o], sum);
                }
            });
        });
    }

    /// <summary>A matrix product with bias, and GELU behind it or not, at several numbers of rows.</summary>
    public IEnumerable<SelftestCase> Linear(int inputs, int outputs, Activation activation, params int[] rowCounts)
    {
        WeightTensor weight = data.Linear(outputs, inputs), bias = data.Make([outputs], 0, 0.5);
        LinearWeight linear = backend.LoadLinear([weight], bias);
        foreach (int rows in rowCounts)
        {
            Input input = Matrix(rows, inputs, 0);
            yield return new(activation == Activation.Gelu ? "linear + GELU" : "linear", $"[{rows}, {inputs}] -> {outputs}", (device, workspace) =>
            {
                Tensor x = input.Upload(device, workspace), y = workspace.Take(rows, outputs);
                device.Linear(x, linear, activation, y);
                return y;
            }, (actual, compare) =>
            {
                float[] biases = SelftestReference.All(bias);
                Products(rows, inputs, outputs, input.Row, weight, (row, o, product) =>
                    compare.Add(actual[(row * outputs) + o], activation == Activation.Gelu ? SelftestReference.Gelu(product + biases[o]) : product + biases[o]));
            });
        }
    }

    /// <summary>A matrix product added onto what is there, with bias and factor where a vision block has them.</summary>
    public IEnumerable<SelftestCase> Residual(int inputs, int outputs, bool scaled, params int[] rowCounts)
    {
        WeightTensor weight = data.Linear(outputs, inputs);
        WeightTensor? bias = scaled ? data.Make([outputs], 0, 0.5) : null, scale = scaled ? data.Make([outputs], 0.3, 0.2) : null;
        LinearWeight linear = backend.LoadLinear([weight], bias, scale);
        foreach (int rows in rowCounts)
        {
            Input input = Matrix(rows, inputs, 0), before = Matrix(rows, outputs, 0);
            yield return new(scaled ? "linear x scale + residual" : "linear + residual", $"[{rows}, {inputs}] -> {outputs}", (device, workspace) =>
            {
                Tensor x = input.Upload(device, workspace), y = before.Upload(device, workspace);
                device.LinearResidual(x, linear, y);
                return y;
            }, (actual, compare) =>
            {
                float[]? biases = bias is null ? null : SelftestReference.All(bias), scales = scale is null ? null : SelftestReference.All(scale);
                Products(rows, inputs, outputs, input.Row, weight, (row, o, product) => compare.Add(actual[(row * outputs) + o],
                    before.At(row, o) + (scales is null ? product : scales[o] * (product + biases![o]))));
            });
        }
    }

    /// <summary>RMSNorm, gate and up, SwiGLU, down, residual.</summary>
    public IEnumerable<SelftestCase> GatedMlp(int hidden, int intermediate, params int[] rowCounts)
    {
        (NormWeight norm, float[] weight) = RmsNormWeight(hidden);
        WeightTensor gate = data.Linear(intermediate, hidden), up = data.Linear(intermediate, hidden), down = data.Linear(hidden, intermediate);
        LinearWeight gateUp = backend.LoadLinear([gate, up]), last = backend.LoadLinear([down]);
        foreach (int rows in rowCounts)
        {
            Input input = Matrix(rows, hidden, 0);
            yield return new("norm + gated MLP", $"[{rows}, {hidden}] x {intermediate}", (device, workspace) =>
            {
                Tensor x = input.Upload(device, workspace);
                device.NormGatedMlpResidual(x, norm, gateUp, last, workspace);
                return x;
            }, (actual, compare) =>
            {
                int most = Within(4 * Budget / (2L * hidden * intermediate), 2, rows);
                foreach (int row in Samples.Of(rows, most, 3))
                {
                    float[] normed = SelftestReference.RmsNorm(input.Row(row), weight, RmsNormEpsilon), inner = new float[intermediate];
                    Parallel.For(0, intermediate, i => inner[i] = (float)(SelftestReference.Silu(SelftestReference.Dot(normed, SelftestReference.Row(gate, i)))
                        * SelftestReference.Dot(normed, SelftestReference.Row(up, i))));
                    Parallel.ForEach(Samples.Of(hidden, 512, (ulong)row), o => compare.Add(actual[(row * hidden) + o],
                        input.At(row, o) + SelftestReference.Dot(inner, SelftestReference.Row(down, o))));
                }
            });
        }
    }

    /// <summary>Norm and output head of each sequence's last row.</summary>
    public IEnumerable<SelftestCase> Logits(int hidden, int vocabulary, params (int Sequences, int TokensEach)[] batches)
    {
        (NormWeight norm, float[] weight) = RmsNormWeight(hidden);
        WeightTensor head = data.Linear(vocabulary, hidden);
        LinearWeight bound = backend.LoadLinear([head]);
        foreach ((int sequences, int tokensEach) in batches)
        {
            Input input = Matrix(sequences * tokensEach, hidden, 0);
            PagedBatch batch = InstrumentBackend.StepOf([.. Enumerable.Repeat(new SequencePiece(0, tokensEach), sequences)], BlockSize, 0);
            yield return new("norm + logits", $"{sequences} of [{sequences * tokensEach}, {hidden}] -> {vocabulary}", (device, workspace) =>
            {
                Tensor x = input.Upload(device, workspace), logits = workspace.Take(sequences, vocabulary, DType.Float32);
                device.RunStep(batch, false, () => device.NormLogits(x, batch, norm, bound, logits, workspace));
                return logits;
            }, (actual, compare) => Products(sequences, hidden, vocabulary, row => SelftestReference.RmsNorm(input.Row(batch.LogitRows[row]), weight, RmsNormEpsilon),
                head, (row, o, product) => compare.Add(actual[(row * vocabulary) + o], product)));
        }
    }

    /// <summary>Calls <paramref name="check"/> for sampled elements of every row of a product, as many as the budget allows.</summary>
    private static void Products(int rows, int inputs, int outputs, Func<int, float[]> input, WeightTensor weight, Action<int, int, double> check)
    {
        int sampled = Within(Budget / ((long)rows * inputs), 8, outputs);
        Rows(rows, sampled * inputs, 1, row =>
        {
            float[] x = input(row);
            foreach (int o in Samples.Of(outputs, sampled, (ulong)row)) check(row, o, SelftestReference.Dot(x, SelftestReference.Row(weight, o)));
        });
    }

    /// <summary>Calls <paramref name="check"/> for rows, from several threads, as many as the budget allows.</summary>
    private static void Rows(int rows, int columns, int costOfAnElement, Action<int> check)
        => Parallel.ForEach(Samples.Of(rows, Within(4 * Budget / ((long)columns * costOfAnElement), 8, rows), 2), check);

    /// <summary>A number of samples: what is affordable, at least <paramref name="least"/>, at most what there is.</summary>
    private static int Within(long affordable, int least, int all) => (int)Math.Min(all, Math.Max(least, affordable));

    private Input Matrix(int rows, int columns, double offset)
    {
        WeightTensor tensor = data.Make([rows, columns], offset, 1);
        MostRows = Math.Max(MostRows, rows);
        return new Input(tensor, backend.LoadEmbedding(tensor), rows, columns);
    }

    private (NormWeight, float[] Weight, float[] Bias) LayerNormWeight(int channels)
    {
        WeightTensor weight = data.Make([channels], 1, 0.3), bias = data.Make([channels], 0, 0.3);
        return (backend.LoadNorm(weight, bias, LayerNormEpsilon), SelftestReference.All(weight), SelftestReference.All(bias));
    }

    private (NormWeight, float[] Weight) RmsNormWeight(int width)
    {
        WeightTensor weight = data.Make([width], 1, 0.3);
        return (backend.LoadNorm(weight, null, RmsNormEpsilon), SelftestReference.All(weight));
    }

    private static double[] Wide(float[] values) => Array.ConvertAll(values, value => (double)value);

    /// <summary>An input that is on the device as a table.</summary>
    private sealed record Input(WeightTensor Tensor, EmbeddingTable Table, int Rows, int Columns)
    {
        public float[] Row(int row) => SelftestReference.Row(Tensor, row);

        public float At(int row, int column) => Row(row)[column];

        public Tensor Upload(IBackend device, Workspace workspace)
        {
            Tensor matrix = workspace.Take(Rows, Columns);
            InstrumentBackend.Upload(device, Table, matrix);
            return matrix;
        }
    }

    /// <summary>Most rows of an input: the largest step that will run.</summary>
    public int MostRows { get; private set; } = 1024;

    /// <summary>Memory that the cases hold on the device.</summary>
    public List<IDisposable> Owned { get; } = [];
}
