using ConvLLaVA.Cuda;

namespace ConvLLaVA.Engine.Gpu;

internal sealed partial class GpuKernels
{
    private const int SamplingThreads = 512;
    private CudaFunction _penalise = null!;
    private CudaFunction _sample = null!;
    private CudaFunction _tokenLogProbs = null!;

    /// <summary>penalised = logits with penalties. Both float [rows, vocabulary]</summary>
    public void Penalise(nint logits, SamplingArrays arrays, int maxCounted, nint penalised, int rows, int vocabulary)
    {
        var arguments = default(KernelArguments);
        arguments.Add(logits);
        arguments.Add(arrays.Penalties);
        arguments.Add(arrays.Counted);
        arguments.Add(arrays.CountedIds);
        arguments.Add(arrays.Counts);
        arguments.Add(maxCounted);
        arguments.Add(penalised);
        arguments.Add(rows);
        arguments.Add(vocabulary);
        _stream.Launch(_penalise, new Dim3(rows), new Dim3(SamplingThreads), 0, ref arguments, new Cost("penalise", 2L * rows * vocabulary * sizeof(float), 0));
    }

    /// <summary>Chooses a token a row. logits float [rows, vocabulary], weights [rows, vocabulary] scratch, tokens [rows]</summary>
    public void Sample(nint logits, SamplingArrays arrays, nint weights, nint tokens, int rows, int vocabulary)
    {
        var arguments = default(KernelArguments);
        arguments.Add(logits);
        arguments.Add(arrays.Settings);
        arguments.Add(arrays.TopK);
        arguments.Add(arrays.Randomness);
        arguments.Add(weights);
        arguments.Add(tokens);
        arguments.Add(rows);
        arguments.Add(vocabulary);
        _stream.Launch(_sample, new Dim3(rows), new Dim3(SamplingThreads), 0, ref arguments, new Cost("sample", (long)rows * vocabulary * sizeof(float), 0));
    }

    /// <summary>Log-probabilities of the chosen tokens and the likeliest ones, where they are wanted. logits float [rows, vocabulary]</summary>
    public void TokenLogProbs(nint logits, SamplingArrays arrays, nint results, SamplingResults layout, int maxWanted, int rows, int vocabulary)
    {
        var arguments = default(KernelArguments);
        arguments.Add(logits);
        arguments.Add(results);
        arguments.Add(arrays.Wanted);
        arguments.Add(results + (layout.LogProbs * sizeof(int)));
        arguments.Add(results + (layout.LikeliestIds * sizeof(int)));
        arguments.Add(results + (layout.LikeliestLogProbs * sizeof(int)));
        arguments.Add(rows);
        arguments.Add(vocabulary);
        arguments.Add(maxWanted);
        _stream.Launch(_tokenLogProbs, new Dim3(rows), new Dim3(SamplingThreads), 0, ref arguments,
            new Cost("token_logprobs", (long)rows * vocabulary * sizeof(float), 2L * rows * vocabulary));
    }

    private void LoadSampling()
    {
        _penalise = Function(KernelShape.Penalise);
        _sample = Function(KernelShape.Sample);
        _tokenLogProbs = Function(KernelShape.TokenLogProbs);
    }
}
