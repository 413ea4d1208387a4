namespace ConvLLaVA.Peers;

/// <summary>The same language model in llama.cpp.</summary>
internal sealed class LlamaCppModel : ILanguageModel
{
    private readonly LlamaCpp _library;
    private readonly nint _model;
    private readonly nint _context;
    private readonly int _vocabulary;

    public LlamaCppModel(LlamaCpp library, string path, int maxTokens, int threads, int vocabulary)
    {
        _library = library;
        _vocabulary = vocabulary;
        _model = library.LoadModel(path);
        _context = library.NewContext(_model, maxTokens, threads);
    }

    /// <inheritdoc/>
    public ReadOnlySpan<float> Logits => _library.Logits(_context, _vocabulary);

    /// <inheritdoc/>
    public void Reset() => _library.Clear(_context);

    /// <inheritdoc/>
    public void Feed(int[] tokens) => _library.Decode(_context, tokens);

    public void Dispose() => _library.Free(_context, _model);
}
