using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Models;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine;

/// <summary>Runs a request's prefill with memory of its own and writes the named intermediate tensors as they appear. Names,
/// shapes and order are those of <c>tools/pytorch/dump.py</c>, so that the two files compare tensor by tensor.</summary>
internal sealed class RequestDump(LlavaModel model, IBackend backend, PreparedPrompt prompt, DumpTensors wanted, SafetensorsWriter writer)
{
    private const int ChunkTokens = 256;

    /// <summary>Runs what the wanted tensors need. The caller adds <c>generated_ids</c>, which the engine generates.</summary>
    public void Run(CancellationToken cancellation)
    {
        if (wanted.Wants(DumpTensors.InputIds)) writer.Add(DumpTensors.InputIds, [prompt.Ids.Length], Array.ConvertAll(prompt.Ids, id => (long)id));
        if (prompt.Images is { } pictures && wanted.Wants(DumpTensors.PixelValues)) WritePixels(pictures);

        MemoryBlock? featureBlock = null;
        try
        {
            Tensor features = default;
            if (prompt.Images is { } images && wanted.LastHiddenState >= 0)
            {
                featureBlock = backend.Allocate((long)images.Tokens * model.Language.HiddenSize * sizeof(float), MemoryOwner.ImageFeatures);
                features = new Tensor(featureBlock.Data, DType.Float32, images.Tokens, model.Language.HiddenSize);
                Encode(images, features, cancellation);
            }
            if (wanted.NeedsEmbedding) RunLanguageModel(features, cancellation);
        }
        finally
        {
            featureBlock?.Dispose();
        }
    }

    private void WritePixels(PreparedImages images)
    {
        int area = images.Height * images.Width;
        float[] values = new float[checked(images.Tiles.Count * 3 * area)]; // [n, 3, H, W]
        for (int n = 0; n < images.Tiles.Count; n++)
        {
            for (int i = 0; i < area; i++)
            {
                for (int c = 0; c < 3; c++) values[(((n * 3) + c) * area) + i] = images.Lut[(c * 256) + images.Tiles[n][(i * 3) + c]];
            }
        }
        writer.Add(DumpTensors.PixelValues, [images.Tiles.Count, 3, images.Height, images.Width], values);
    }

    private void Encode(PreparedImages images, Tensor projected, CancellationToken cancellation)
    {
        using Workspace workspace = CreateWorkspace(model.PlanWorkspace(images.Height, images.Width, 1, 1));
        var maps = new FeatureMaps(images.Tiles.Count);
        for (int tile = 0; tile < images.Tiles.Count; tile++)
        {
            using var scope = workspace.Open();
            (Tensor features, Grid grid) = model.Vision.Forward(backend, images.Batch(tile), workspace, (name, tensor, map) =>
            {
                if (wanted.Wants(name)) maps.Add(name, ReadBack(tensor), map, tensor.Columns);
            }, wanted.LastHiddenState, cancellation);
            if (wanted.Wants(DumpTensors.ImageFeatures)) maps.AddRows(DumpTensors.ImageFeatures, ReadBack(features), features.Rows, features.Columns);
            if (!wanted.NeedsProjection) continue;
            Tensor output = projected.Slice(tile * grid.Rows, grid.Rows);
            model.Projector.Forward(backend, features, output, workspace);
            if (wanted.Wants(DumpTensors.ProjectedFeatures)) maps.AddRows(DumpTensors.ProjectedFeatures, ReadBack(output), output.Rows, output.Columns);
        }
        maps.WriteTo(writer);
    }

    private void RunLanguageModel(Tensor features, CancellationToken cancellation)
    {
        int tokens = prompt.Expanded.Length, hiddenSize = model.Language.HiddenSize, vocabulary = model.Language.VocabularySize;
        bool logitsWanted = wanted.Wants(DumpTensors.Logits);
        int chunk = Math.Min(tokens, ChunkTokens);
        using Workspace workspace = CreateWorkspace(model.PlanWorkspace(model.VisionConfig.TotalStride, model.VisionConfig.TotalStride, chunk, chunk));
        using KvStorage? pages = logitsWanted ? backend.CreateKvStorage(model.KvLayoutFor(tokens, 16)) : null;
        float[]? embeds = wanted.Wants(DumpTensors.InputsEmbeds) ? new float[checked(tokens * hiddenSize)] : null; // [T', hidden]
        float[]? logits = logitsWanted ? new float[checked(tokens * vocabulary)] : null; // [T', vocab]
        for (int start = 0; start < tokens; start += chunk)
        {
            cancellation.ThrowIfCancellationRequested();
            int count = Math.Min(chunk, tokens - start);
            using var scope = workspace.Open();
            Tensor hidden = workspace.Take(count, hiddenSize); // [count, hidden]
            model.Embed(backend, prompt.Expanded.AsSpan(start, count), features, hidden);
            if (embeds is not null) backend.Read(hidden, embeds.AsSpan(start * hiddenSize, count * hiddenSize));
            if (logits is null) continue;
            model.Language.Forward(backend, hidden, Batch(start, count), pages!, workspace);
            Tensor output = workspace.Take(count, vocabulary); // [count, vocab]
            model.Language.Logits(backend, hidden, Enumerable.Range(0, count).ToArray(), output, workspace);
            backend.Read(output, logits.AsSpan(start * vocabulary, count * vocabulary));
        }
        if (embeds is not null) writer.Add(DumpTensors.InputsEmbeds, [tokens, hiddenSize], embeds);
        if (logits is not null) writer.Add(DumpTensors.Logits, [tokens, vocabulary], logits);
    }

    /// <summary>One sequence in pages 1, 2, 3, …</summary>
    private static PagedBatch Batch(int start, int count)
    {
        const int BlockSize = 16;
        int blocks = ((start + count - 1) / BlockSize) + 1;
        int[] positions = Enumerable.Range(start, count).ToArray();
        return new PagedBatch
        {
            TokenCount = count,
            SequenceCount = 1,
            BlockSize = BlockSize,
            MaxBlocks = blocks,
            Positions = positions,
            Slots = Array.ConvertAll(positions, position => position + BlockSize),
            QueryStarts = [0, count],
            ContextLengths = [start + count],
            BlockTables = Enumerable.Range(1, blocks).ToArray(),
        };
    }

    private Workspace CreateWorkspace(long bytes) => new(backend.Allocate(bytes, MemoryOwner.Workspace));

    private float[] ReadBack(Tensor tensor)
    {
        float[] values = new float[checked(tensor.Rows * tensor.Columns)];
        backend.Read(tensor, values);
        return values;
    }
}
