namespace ConvLLaVA.Peers;

/// <summary>The vision encoder over one picture, in one of the programs.</summary>
internal interface IEncoder : IDisposable
{
    /// <summary>Features of the last run. [tokens, C]</summary>
    float[] Features { get; }

    /// <summary>Encodes the picture.</summary>
    void Run();
}
