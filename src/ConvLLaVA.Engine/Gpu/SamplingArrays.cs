using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>A step's <see cref="SamplingBatch"/> among the <see cref="StepArrays"/>: what every row has at a fixed place, and the tokens that
/// penalties count behind everything else, so that only those in use are copied. Arrays lie as close as the step's rows allow: the kernels
/// that read them are never part of a recording.</summary>
internal sealed class SamplingArrays
{
    private const int WordsPerRow = 4 + 3 + 3 + 1 + 1 + 1; // seed and draws, settings, penalties, top-k, wanted, counted
    private nint _fixed, _history;
    private int _rows, _historyRow;

    /// <summary>Words that the fixed part of so many rows takes.</summary>
    public static long FixedWords(int rows) => (long)rows * WordsPerRow;

    /// <summary>Words that the counted tokens of so many rows take at most.</summary>
    public static long HistoryWords(int rows, int counted) => 2L * rows * counted;

    /// <summary>Seeds, then numbers drawn before, 64 bits each. [2, rows]</summary>
    public nint Randomness => _fixed;

    /// <summary>Temperature, top-p, min-p. [3, rows]</summary>
    public nint Settings => Word(4);

    /// <summary>Repetition, presence, frequency. [3, rows]</summary>
    public nint Penalties => Word(7);

    /// <summary>Top-k. [rows]</summary>
    public nint TopK => Word(10);

    /// <summary>Likeliest tokens wanted. [rows]</summary>
    public nint Wanted => Word(11);

    /// <summary>Tokens counted. [rows]</summary>
    public nint Counted => Word(12);

    /// <summary>Their ids. [rows, max_counted]</summary>
    public nint CountedIds => _history;

    /// <summary>How often each was generated. [rows, max_counted]</summary>
    public nint Counts => _history + (_historyRow * _rows * sizeof(int));

    /// <summary>Writes a batch.</summary>
    /// <param name="batch">The batch.</param>
    /// <param name="host">First word of the staged arrays.</param>
    /// <param name="device">Where that word will be on the device.</param>
    /// <param name="fixedAt">Word at which the fixed part begins, a multiple of two.</param>
    /// <param name="historyAt">Word at which the counted tokens begin.</param>
    /// <returns>The word behind the last one.</returns>
    public unsafe long Put(SamplingBatch batch, int* host, nint device, long fixedAt, long historyAt)
    {
        (_rows, _historyRow) = (batch.Rows, batch.MaxCounted);
        _fixed = device + (nint)(fixedAt * sizeof(int));
        _history = device + (nint)(historyAt * sizeof(int));
        int* to = host + fixedAt;
        Put<ulong>(batch.Seeds, ref to);
        Put<ulong>(batch.Draws, ref to);
        Put<float>(batch.Temperatures, ref to);
        Put<float>(batch.TopP, ref to);
        Put<float>(batch.MinP, ref to);
        Put<float>(batch.RepetitionPenalties, ref to);
        Put<float>(batch.PresencePenalties, ref to);
        Put<float>(batch.FrequencyPenalties, ref to);
        Put<int>(batch.TopK, ref to);
        Put<int>(batch.Wanted, ref to);
        Put<int>(batch.Counted, ref to);
        int history = _rows * _historyRow;
        batch.CountedIds.AsSpan(0, history).CopyTo(new Span<int>(host + historyAt, history));
        batch.Counts.AsSpan(0, history).CopyTo(new Span<int>(host + historyAt + history, history));
        return historyAt + (2 * history);
    }

    private unsafe void Put<T>(T[] values, ref int* to) where T : unmanaged
    {
        values.AsSpan(0, _rows).CopyTo(new Span<T>(to, _rows));
        to += _rows * sizeof(T) / sizeof(int);
    }

    private nint Word(int column) => _fixed + (column * _rows * sizeof(int));
}

/// <summary>How the results of sampling lie on the device, one after the other as close as they fit, so that one small copy brings all of them:
/// tokens [rows], and where some row wants them log-probabilities [rows], likeliest ids [rows, wanted] and theirs [rows, wanted].</summary>
internal readonly struct SamplingResults(int rows, int maxWanted, bool logProbs)
{
    /// <summary>Most words of a row.</summary>
    public const int MostWords = 2 + (2 * SamplingBatch.MostLikeliest);

    /// <summary>Word at which log-probabilities begin.</summary>
    public int LogProbs => rows;

    /// <summary>Word at which the likeliest ids begin.</summary>
    public int LikeliestIds => 2 * rows;

    /// <summary>Word at which their log-probabilities begin.</summary>
    public int LikeliestLogProbs => (2 + maxWanted) * rows;

    /// <summary>All words.</summary>
    public int Words => logProbs ? (2 + (2 * maxWanted)) * rows : rows;

    /// <summary>Hands the results to the batch that asked for them.</summary>
    public void CopyTo(SamplingBatch batch, ReadOnlySpan<int> words)
    {
        words[..rows].CopyTo(batch.Tokens);
        if (!logProbs) return;
        ReadOnlySpan<float> floats = System.Runtime.InteropServices.MemoryMarshal.Cast<int, float>(words);
        floats.Slice(LogProbs, rows).CopyTo(batch.LogProbs);
        words.Slice(LikeliestIds, rows * maxWanted).CopyTo(batch.LikeliestIds);
        floats.Slice(LikeliestLogProbs, rows * maxWanted).CopyTo(batch.LikeliestLogProbs);
    }
}
