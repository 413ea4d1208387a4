using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Models;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Peers;

/// <summary>This engine's vision encoder, from 8-bit samples to features.</summary>
internal sealed class EngineEncoder : IEncoder
{
    private readonly ConvLlava _engine;
    private readonly ImageBatch _images;
    private readonly Workspace _workspace;

    /// <param name="model">The model.</param>
    /// <param name="options">How to load it.</param>
    /// <param name="pixels">Samples of the picture. [size, size, 3]</param>
    /// <param name="size">Its side.</param>
    /// <param name="table">Value of every sample. [3, 256]</param>
    public EngineEncoder(string model, LoadOptions options, byte[] pixels, int size, float[] table)
    {
        _engine = ConvLlava.LoadAsync(model, options).GetAwaiter().GetResult();
        _images = new ImageBatch([pixels], size, size, table);
        using var planned = Workspace.ForPlanning(_engine.Backend.ActivationType);
        Forward(new PlanningBackend(_engine.Backend), planned);
        _workspace = new Workspace(_engine.Backend.Allocate(planned.HighWaterMark, MemoryOwner.Workspace), _engine.Backend.ActivationType);
    }

    /// <inheritdoc/>
    public float[] Features { get; private set; } = [];

    /// <summary>Encodes with the backend that <paramref name="wrap"/> makes of the engine's.</summary>
    public void RunOn(Func<IBackend, IBackend> wrap) => _engine.Exclusive(() => Forward(wrap(_engine.Backend), _workspace));

    /// <inheritdoc/>
    public void Run() => _engine.Exclusive(() => Forward(_engine.Backend, _workspace));

    private void Forward(IBackend backend, Workspace workspace)
    {
        using var scope = workspace.Open();
        (Tensor features, _) = _engine.Model.Vision.Forward(backend, _images, workspace);
        if (Features.Length == 0) Features = new float[features.Rows * features.Columns];
        if (!workspace.IsPlanning) backend.Read(features, Features);
    }

    public void Dispose()
    {
        _workspace.Dispose();
        _engine.Dispose();
    }
}
