using System.Diagnostics;
using System.Threading.Channels;

namespace ConvLLaVA.Engine.Generation;

/// <summary>The answer of one request while it grows: tokens to text, stop rules, the clock, and the channel to the caller.</summary>
internal sealed class AnswerState
{
    private readonly SequenceRequest _request;
    private readonly int _mostTokens;
    private readonly StopDetector _stops;
    private readonly ulong _seed;
    private readonly long _submitted = Stopwatch.GetTimestamp();
    // Writing never runs the reader's code: continuations are asynchronous.
    private readonly Channel<GenerationUpdate> _updates = Channel.CreateUnbounded<GenerationUpdate>(new UnboundedChannelOptions { SingleReader = true, SingleWriter = true });
    private long _started;
    private long _first;
    private long _last;
    private int _generated;
    private GenerationUpdate? _pending;

    /// <summary>Prepares an answer of at most <paramref name="mostTokens"/> tokens.</summary>
    public AnswerState(SequenceRequest request, int mostTokens)
    {
        _request = request;
        _mostTokens = mostTokens;
        _stops = new StopDetector(request.Options.StopStrings);
        _seed = request.Options.Seed ?? (ulong)Random.Shared.NextInt64();
        Sampling = new SamplerState(_seed);
    }

    /// <summary>Updates for the caller.</summary>
    public ChannelReader<GenerationUpdate> Updates => _updates.Reader;

    /// <summary>What sampling remembers.</summary>
    public SamplerState Sampling { get; }

    /// <summary>Time the vision tower took.</summary>
    public TimeSpan EncodeTime { get; set; }

    /// <summary>Time the steps took that processed the prompt.</summary>
    public TimeSpan PrefillTime { get; set; }

    /// <summary>Tokens of the prompt that an earlier request had processed already.</summary>
    public int ReusedTokens { get; set; }

    /// <summary>Notes that work on the request begins.</summary>
    public void Start()
    {
        if (_started == 0) _started = Stopwatch.GetTimestamp();
    }

    /// <summary>Takes a generated token and says whether the answer is over; <see cref="Send"/> shows it to the caller.</summary>
    public bool Append(int id, LogProbEntry? logProb)
    {
        _last = Stopwatch.GetTimestamp();
        if (_generated++ == 0) _first = _last;
        bool eos = !_request.Options.IgnoreEos && _request.EosTokenIds.Contains(id);
        string text = eos ? "" : _stops.Append(_request.Decoder.Append(id));
        FinishReason? reason = eos ? FinishReason.Stop
            : _stops.Stopped ? FinishReason.StopString
            : _generated >= _mostTokens ? FinishReason.Length
            : null;
        if (reason is FinishReason.Stop or FinishReason.Length)
        {
            text += _stops.Append(_request.Decoder.Flush());
            if (_stops.Stopped) reason = FinishReason.StopString;
            else text += _stops.Flush();
        }
        _pending = new GenerationUpdate
        {
            Text = text,
            TokenIds = [id],
            LogProbs = logProb is null ? [] : [logProb],
            End = reason is { } finished ? End(finished) : null,
        };
        return reason is not null;
    }

    /// <summary>Sends what the last token gave.</summary>
    public void Send()
    {
        if (_pending is null) return;
        _updates.Writer.TryWrite(_pending);
        if (_pending.End is not null) _updates.Writer.TryComplete();
        _pending = null;
    }

    /// <summary>Ends the answer with an error.</summary>
    public void Fail(Exception error) => _updates.Writer.TryComplete(error);

    private GenerationEnd End(FinishReason reason)
    {
        TimeSpan decode = Stopwatch.GetElapsedTime(_first, _last);
        return new GenerationEnd(
            reason,
            new TokenUsage(_request.PromptTokens.Length, _request.PromptTokens.Count(id => id < 0), _generated, ReusedTokens),
            new GenerationTimings(
                Stopwatch.GetElapsedTime(_submitted, _started), _request.PreprocessTime, EncodeTime, PrefillTime, decode,
                _request.PreprocessTime + Stopwatch.GetElapsedTime(_submitted, _first),
                _generated > 1 ? decode / (_generated - 1) : TimeSpan.Zero),
            _request.Options.Samples ? _seed : null);
    }
}
