using System.Collections.Concurrent;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Quantization;

/// <summary>Quantises weights between the checkpoint and the backend. Each matrix is quantised when the backend takes it and let go of
/// right after, as are the pages of the file that were read: no more than one matrix is held twice.</summary>
/// <param name="options">What to quantise and how.</param>
/// <param name="threads">Threads to do it on; 0 for all.</param>
/// <param name="cancellation">Ends it between two matrices.</param>
internal sealed class WeightQuantizer(QuantOptions options, int threads, CancellationToken cancellation)
{
    private readonly int _threads = threads == 0 ? Environment.ProcessorCount : threads;
    private readonly ConcurrentBag<string> _skipped = [];

    /// <summary>Matrices that the format does not fit, which stay as they are stored.</summary>
    public IReadOnlyCollection<string> Skipped => _skipped;

    /// <summary>A tensor of decoder or projector, quantised if it is one of those to be.</summary>
    public WeightTensor Language(string name, WeightTensor stored) => options.Covers(name) ? Quantize(stored) : stored;

    /// <summary>The same for the vision tower, by the name without prefix.</summary>
    public WeightTensor Vision(string name, WeightTensor stored) => options.CoversVision(name) ? Quantize(stored) : stored;

    private WeightTensor Quantize(WeightTensor stored)
    {
        if (!QuantLayout.Fits(options.Format, stored.Shape[1]))
        {
            _skipped.Add(stored.Name);
            return stored;
        }
        var layout = new QuantLayout(options.Format, checked((int)stored.Shape[0]), checked((int)stored.Shape[1]));
        return new WeightTensor(stored.Name, new QuantizedTensor(layout, () =>
        {
            cancellation.ThrowIfCancellationRequested();
            QuantizedBytes bytes = QuantEncoder.Encode(stored, layout, _threads);
            stored.Release();
            return bytes;
        }), stored.Source);
    }
}
