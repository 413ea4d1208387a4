using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Models;

/// <summary>The vision encoder: a ConvNeXt of any number of stages (ConvLLaVA: five, stride 64), read top to bottom as its
/// forward pass. Output is the raw last stage, without final LayerNorm or pooling, channels-last, so that its rows are the
/// visual tokens in row-major order. Source: <c>ConvNextModel</c> as the original runs it (embeddings and encoder only).</summary>
internal sealed class ConvNeXt
{
    private const float LayerNormEpsilon = 1e-6f;
    private readonly LinearWeight _stem;
    private readonly NormWeight _stemNorm;
    private readonly Stage[] _stages;
    private readonly int _patch;

    /// <summary>Binds the weights.</summary>
    /// <param name="backend">Where they will be used.</param>
    /// <param name="patchSize">Side and stride of the stem's patches.</param>
    /// <param name="depths">Blocks of each stage that exist (after <c>mm_vision_select_layer</c>).</param>
    /// <param name="weights">Looks a tensor up by its name in a ConvNeXt checkpoint (<c>embeddings.…</c>, <c>encoder.…</c>).</param>
    public ConvNeXt(IBackend backend, int patchSize, IReadOnlyList<int> depths, Func<string, WeightTensor> weights)
    {
        _patch = patchSize;
        _stem = backend.LoadPatchConvolution(weights("embeddings.patch_embeddings.weight"), weights("embeddings.patch_embeddings.bias"));
        _stemNorm = Norm("embeddings.layernorm");
        _stages = new Stage[depths.Count];
        for (int s = 0; s < depths.Count; s++)
        {
            string stage = $"encoder.stages.{s}";
            var blocks = new Block[depths[s]];
            for (int j = 0; j < blocks.Length; j++)
            {
                string block = $"{stage}.layers.{j}";
                blocks[j] = new Block(
                    backend.LoadDepthwise(weights($"{block}.dwconv.weight"), weights($"{block}.dwconv.bias")),
                    Norm($"{block}.layernorm"),
                    backend.LoadLinear([weights($"{block}.pwconv1.weight")], weights($"{block}.pwconv1.bias")),
                    backend.LoadLinear([weights($"{block}.pwconv2.weight")], weights($"{block}.pwconv2.bias"), weights($"{block}.layer_scale_parameter")));
            }
            string down = $"{stage}.downsampling_layer";
            _stages[s] = s == 0
                ? new Stage(null, null, blocks)
                : new Stage(Norm($"{down}.0"), backend.LoadPatchConvolution(weights($"{down}.1.weight"), weights($"{down}.1.bias")), blocks);
        }

        NormWeight Norm(string name) => backend.LoadNorm(weights($"{name}.weight"), weights($"{name}.bias"), LayerNormEpsilon);
    }

    /// <summary>Number of hidden states: the stem's output and one a stage.</summary>
    public int HiddenStateCount => _stages.Length + 1;

    /// <summary>Encodes pictures.</summary>
    /// <param name="backend">The device.</param>
    /// <param name="images">Pictures of one size, at least as large as the total stride.</param>
    /// <param name="workspace">Takes the activations from here; the result lives there too.</param>
    /// <param name="tap">Told of <c>vision.hidden_states.0</c> (stem) and following, or null.</param>
    /// <param name="lastHiddenState">Stop once this hidden state exists.</param>
    /// <param name="cancellation">Checked before every block.</param>
    /// <returns>Features <c>[images * height * width, C]</c> and the grid of their rows.</returns>
    public (Tensor Features, Grid Grid) Forward(IBackend backend, ImageBatch images, Workspace workspace, TensorTap? tap = null,
        int lastHiddenState = int.MaxValue, CancellationToken cancellation = default)
    {
        var grid = new Grid(images.Count, images.Height / _patch, images.Width / _patch);
        Tensor x = workspace.Take(grid.Rows, _stem.OutFeatures); // [n*h*w, C0]
        using (workspace.Open())
        {
            Tensor patches = workspace.Take(grid.Rows, _stem.InFeatures); // [n*h*w, 3*4*4]
            backend.GatherPatches(images, _patch, patches, workspace);
            backend.Linear(patches, _stem, Activation.None, x);
            backend.LayerNorm(x, _stemNorm, x);
        }
        tap?.Invoke("vision.hidden_states.0", x, grid);

        for (int s = 0; s < _stages.Length && s < lastHiddenState; s++)
        {
            Stage stage = _stages[s];
            if (stage.Downsample is not null)
            {
                Grid half = grid.Downsampled(2);
                Tensor next = workspace.Take(half.Rows, stage.Downsample.OutFeatures); // [n*h/2*w/2, C]
                using (workspace.Open())
                {
                    Tensor cells = workspace.Take(half.Rows, stage.Downsample.InFeatures); // [n*h/2*w/2, 4*C_previous]
                    backend.NormGather(x, grid, stage.DownsampleNorm!, cells);
                    backend.Linear(cells, stage.Downsample, Activation.None, next);
                }
                (x, grid) = (next, half);
            }
            foreach (Block block in stage.Blocks)
            {
                cancellation.ThrowIfCancellationRequested();
                block.Forward(backend, x, grid, workspace);
            }
            tap?.Invoke($"vision.hidden_states.{s + 1}", x, grid);
        }
        return (x, grid);
    }

    private sealed record Stage(NormWeight? DownsampleNorm, LinearWeight? Downsample, Block[] Blocks);

    private sealed record Block(DepthwiseWeight Depthwise, NormWeight Norm, LinearWeight Expand, LinearWeight Contract)
    {
        /// <summary>x += layer_scale * pwconv2(gelu(pwconv1(norm(dwconv(x))))).</summary>
        public void Forward(IBackend backend, Tensor x, Grid grid, Workspace workspace)
        {
            using var scope = workspace.Open();
            Tensor normed = workspace.Take(x.Rows, x.Columns); // [n*h*w, C]
            backend.DepthwiseConvNorm(x, grid, Depthwise, Norm, normed);

            // The 4C expansion is the largest activation of all (226 MB at 1536 px in 16 bits): it exists for a tile of rows only.
            int tile = Math.Min(x.Rows, backend.PreferredTileRows(Expand.OutFeatures));
            Tensor expanded = workspace.Take(tile, Expand.OutFeatures); // [tile, 4C]
            for (int start = 0; start < x.Rows; start += tile)
            {
                int rows = Math.Min(tile, x.Rows - start);
                backend.Linear(normed.Slice(start, rows), Expand, Activation.Gelu, expanded.Slice(0, rows));
                backend.LinearResidual(expanded.Slice(0, rows), Contract, x.Slice(start, rows));
            }
        }
    }
}

/// <summary>Is told of a named intermediate tensor while it exists; <paramref name="grid"/> says what the rows of a feature
/// map mean.</summary>
internal delegate void TensorTap(string name, Tensor tensor, Grid grid);
