using ConvLLaVA.Cuda;
using Microsoft.Extensions.Logging;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>Decode steps as CUDA graphs, one a number of rows. The first step of a size runs as it is written, so that plans are made and
/// kernels are loaded, the second is recorded, and from then on it is replayed with one call.</summary>
internal sealed partial class DecodeGraphs(GpuStream stream, ILogger logger) : IDisposable
{
    private readonly Dictionary<int, CudaGraphExec?> _graphs = []; // null: ran once, not recorded yet
    private bool _disabled;

    /// <summary>Graphs recorded.</summary>
    public int Recorded { get; private set; }

    /// <summary>Steps that were replayed.</summary>
    public long Replayed { get; private set; }

    /// <summary>Runs a step of <paramref name="rows"/> rows.</summary>
    public void Run(int rows, Action forward)
    {
        if (_disabled)
        {
            forward();
        }
        else if (!_graphs.TryGetValue(rows, out CudaGraphExec? graph))
        {
            forward();
            _graphs.Add(rows, null);
        }
        else if (graph is not null || (graph = Record(rows, forward)) is not null)
        {
            Launch(graph);
        }
        else
        {
            forward();
        }
    }

    /// <summary>Forgets all graphs, because addresses changed.</summary>
    public void Clear()
    {
        foreach (CudaGraphExec? graph in _graphs.Values) graph?.Dispose();
        _graphs.Clear();
    }

    /// <inheritdoc/>
    public void Dispose() => Clear();

    private void Launch(CudaGraphExec graph)
    {
        stream.Replay(graph);
        Replayed++;
    }

    /// <summary>Records the step; null when this device cannot, and then it is not tried again.</summary>
    private CudaGraphExec? Record(int rows, Action forward)
    {
        bool recording = false;
        try
        {
            stream.BeginCapture();
            recording = true;
            forward();
            recording = false;
            using CudaGraph graph = stream.EndCapture();
            CudaGraphExec executable = graph.Instantiate();
            _graphs[rows] = executable;
            Recorded++;
            return executable;
        }
        catch (Exception error) when (error is CudaException or ConvLlavaException)
        {
            if (recording) stream.AbandonCapture();
            if (error is CudaException cuda && cuda.IsSticky) throw stream.Faults.Translate(cuda);
            stream.Faults.ThrowIfFaulted();
            _disabled = true;
            LogDisabled(logger, error.Message);
            return null;
        }
    }

    [LoggerMessage(EventId = 310, Level = LogLevel.Warning, Message = "Decode steps are launched kernel by kernel, because they cannot be recorded: {Problem}")]
    private static partial void LogDisabled(ILogger logger, string problem);
}
