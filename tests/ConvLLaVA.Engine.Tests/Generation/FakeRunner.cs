using ConvLLaVA.Engine.Generation;

namespace ConvLLaVA.Engine.Tests.Generation;

/// <summary>A model whose next token is a function of all tokens before it, which it reads out of pages like a real one: a token in
/// a wrong page, or a page lost, changes the answer.</summary>
internal sealed class FakeRunner(int blocks, int blockSize) : IModelRunner
{
    public const int Vocabulary = 97;
    private const int FirstImageToken = 1000;
    private readonly int[] _memory = new int[blocks * blockSize];
    private int _encoded, _released;

    /// <summary>Throws on the forward call of this number, counted from 1.</summary>
    public int FailsAt { get; set; } = int.MaxValue;

    /// <summary>How long a step takes.</summary>
    public TimeSpan StepTime { get; set; }

    /// <summary>What encoding a picture throws, or nothing.</summary>
    public Exception? EncodeError { get; set; }

    /// <summary>Steps run.</summary>
    public int Steps { get; private set; }

    /// <summary>Most tokens of a step so far.</summary>
    public int LargestStep { get; private set; }

    /// <summary>Encoded pictures that nobody has released yet.</summary>
    public int HeldImages => Volatile.Read(ref _encoded) - Volatile.Read(ref _released);

    /// <summary>How often pictures were encoded.</summary>
    public int Encoded => _encoded;

    public int VocabularySize => Vocabulary;

    public int MaxPositions { get; init; } = 10_000;

    public void EncodeImages(RunningSequence sequence)
    {
        if (EncodeError is not null) throw EncodeError;
        if (sequence.Features is not null) throw new InvalidOperationException("The pictures were encoded twice.");
        sequence.Features = sequence.Request.Images;
        Interlocked.Increment(ref _encoded);
    }

    public void Forward(StepPlan plan)
    {
        Steps++;
        LargestStep = Math.Max(LargestStep, plan.TokenCount);
        if (StepTime > TimeSpan.Zero) Thread.Sleep(StepTime);
        if (Steps == FailsAt) throw new InvalidOperationException("the device fell over");
        for (int row = 0; row < plan.TokenCount; row++) _memory[plan.Batch.Slots[row]] = Seen(plan.Batch.TokenIds[row]);
        int output = 0;
        for (int s = 0; s < plan.Batch.SequenceCount; s++)
        {
            int last = plan.Batch.QueryStarts[s + 1] - 1;
            if (output == plan.Batch.LogitCount || plan.Batch.LogitRows[output] != last) continue;
            bool imageRows = plan.Batch.TokenIds.AsSpan(plan.Batch.QueryStarts[s], last + 1 - plan.Batch.QueryStarts[s]).IndexOfAnyExceptInRange(0, int.MaxValue) >= 0;
            if (imageRows && plan.Sequences[s].Features is null) throw new InvalidOperationException("The pictures are not there.");
            int[] context = new int[plan.Batch.ContextLengths[s]];
            for (int i = 0; i < context.Length; i++)
            {
                int block = plan.Batch.BlockTables[(s * plan.Batch.MaxBlocks) + (i / blockSize)];
                context[i] = _memory[(block * blockSize) + (i % blockSize)];
            }
            plan.Batch.Sampling.Tokens[output++] = Next(context);
        }
    }

    public void ReleaseImages(RunningSequence sequence)
    {
        if (sequence.Features is null) return;
        sequence.Features = null;
        Interlocked.Increment(ref _released);
    }

    public void CopyBlock(int source, int destination) => Array.Copy(_memory, source * blockSize, _memory, destination * blockSize, blockSize);

    /// <summary>The greedy answer to a prompt, without any engine.</summary>
    public static int[] Answer(IEnumerable<int> prompt, int count)
    {
        List<int> tokens = [.. prompt.Select(Seen)];
        int start = tokens.Count;
        while (tokens.Count < start + count) tokens.Add(Next([.. tokens]));
        return [.. tokens.Skip(start)];
    }

    private static int Seen(int token) => token >= 0 ? token : FirstImageToken - token;

    private static int Next(ReadOnlySpan<int> context)
    {
        ulong hash = 1469598103934665603;
        foreach (int token in context) hash = (hash ^ (uint)token) * 1099511628211;
        return (int)((hash >> 20) % Vocabulary);
    }
}
