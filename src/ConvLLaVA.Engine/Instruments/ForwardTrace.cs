using ConvLLaVA.Engine.Models;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>What a model computes for one prompt and a given answer to it, layer by layer.</summary>
/// <param name="Features">Projected image features, or empty. [image tokens, hidden_size]</param>
/// <param name="Layers">The hidden state after each decoder layer. [layers][tokens, hidden_size]</param>
/// <param name="Logits">Logits that each token of the answer was chosen by. [answer, vocab_size]</param>
internal sealed record ForwardTrace(float[] Features, float[][] Layers, float[] Logits)
{
    private const int BlockSize = 16;

    /// <summary>Runs prompt and answer in one step with memory of its own.</summary>
    /// <param name="model">The networks.</param>
    /// <param name="backend">Their backend, which nobody else may be using.</param>
    /// <param name="prompt">The request.</param>
    /// <param name="answer">Ids that follow it, at least one.</param>
    /// <param name="cancellation">Ends it early.</param>
    public static ForwardTrace Run(LlavaModel model, IBackend backend, PreparedPrompt prompt, IReadOnlyList<int> answer, CancellationToken cancellation)
    {
        int hiddenSize = model.Language.HiddenSize, vocabulary = model.Language.VocabularySize;
        PagedBatch batch = Batch(prompt.Expanded, answer);
        int tokens = batch.TokenCount, height = prompt.Images?.Height ?? model.VisionConfig.TotalStride, width = prompt.Images?.Width ?? model.VisionConfig.TotalStride;
        using var workspace = new Workspace(backend.Allocate(model.PlanWorkspace(height, width, tokens, answer.Count), MemoryOwner.Workspace), backend.ActivationType);
        using KvStorage pages = backend.CreateKvStorage(model.KvLayoutFor(tokens, BlockSize));
        using MemoryBlock? block = prompt.Images is null ? null : backend.Allocate((long)prompt.Images.Tokens * hiddenSize * backend.ActivationType.SizeInBytes(), MemoryOwner.ImageFeatures);
        Tensor features = block is null ? default : new Tensor(block.Data, backend.ActivationType, prompt.Images!.Tokens, hiddenSize);
        if (prompt.Images is { } images) model.EncodeImages(images, features, workspace, cancellation);
        List<float[]> layers = [];
        using var scope = workspace.Open();
        Tensor hidden = workspace.Take(tokens, hiddenSize); // [tokens, hidden]
        Tensor logits = workspace.Take(answer.Count, vocabulary, DType.Float32); // [answer, vocab]
        backend.RunStep(batch, false, () =>
        {
            model.Embed(backend, batch, [features], hidden);
            model.Language.Forward(backend, hidden, batch, pages, workspace, state => layers.Add(ReadBack(backend, state)));
            model.Language.Logits(backend, hidden, batch, logits, workspace);
        });
        return new ForwardTrace(block is null ? [] : ReadBack(backend, features), [.. layers], ReadBack(backend, logits));
    }

    /// <summary>One sequence in pages 1, 2, 3, …; wanted are the logits from the prompt's last token to the answer's last but one.</summary>
    private static PagedBatch Batch(int[] prompt, IReadOnlyList<int> answer)
    {
        int[] ids = [.. prompt, .. answer.Take(answer.Count - 1)], positions = [.. Enumerable.Range(0, ids.Length)];
        int blocks = ((ids.Length - 1) / BlockSize) + 1;
        return new PagedBatch
        {
            TokenCount = ids.Length,
            SequenceCount = 1,
            BlockSize = BlockSize,
            MaxBlocks = blocks,
            TokenIds = ids,
            Positions = positions,
            Slots = Array.ConvertAll(positions, position => position + BlockSize),
            QueryStarts = [0, ids.Length],
            ContextLengths = [ids.Length],
            BlockTables = [.. Enumerable.Range(1, blocks)],
            LogitRows = [.. Enumerable.Range(prompt.Length - 1, answer.Count)],
            LogitCount = answer.Count,
        };
    }

    private static float[] ReadBack(IBackend backend, Tensor tensor)
    {
        float[] values = new float[checked(tensor.Rows * tensor.Columns)];
        backend.Read(tensor, values);
        return values;
    }
}
