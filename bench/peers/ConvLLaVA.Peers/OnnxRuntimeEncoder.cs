using Microsoft.ML.OnnxRuntime;

namespace ConvLLaVA.Peers;

/// <summary>The same vision encoder in ONNX Runtime, with every optimisation that it makes to a graph.</summary>
internal sealed class OnnxRuntimeEncoder : IEncoder
{
    private readonly RunOptions _run = new();
    private readonly InferenceSession _session;
    private readonly OrtValue _input;

    /// <param name="path">The model.</param>
    /// <param name="threads">CPU threads.</param>
    /// <param name="values">The normalised picture. [3, size, size]</param>
    public OnnxRuntimeEncoder(string path, int threads, float[] values)
    {
        using var options = new SessionOptions
        {
            IntraOpNumThreads = threads,
            InterOpNumThreads = 1,
            ExecutionMode = ExecutionMode.ORT_SEQUENTIAL,
            GraphOptimizationLevel = GraphOptimizationLevel.ORT_ENABLE_ALL,
        };
        // Its threads spin while a run goes on, but not into the next contestant's.
        options.AddSessionConfigEntry("session.force_spinning_stop", "1");
        _session = new InferenceSession(path, options);
        int size = (int)Math.Sqrt(values.Length / 3);
        _input = OrtValue.CreateTensorValueFromMemory(values, [1, 3, size, size]);
    }

    /// <summary>Its version.</summary>
    public static string Version => OrtEnv.Instance().GetVersionString();

    /// <inheritdoc/>
    public float[] Features { get; private set; } = [];

    /// <inheritdoc/>
    public void Run()
    {
        using IDisposableReadOnlyCollection<OrtValue> outputs = _session.Run(_run, ["pixels"], [_input], _session.OutputNames);
        Features = outputs[0].GetTensorDataAsSpan<float>().ToArray();
    }

    public void Dispose()
    {
        _input.Dispose();
        _session.Dispose();
        _run.Dispose();
    }
}
