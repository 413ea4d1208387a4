using System.Globalization;
using ConvLLaVA.Engine.Generation;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>A precision to compare: unquantised in some type, or a quantised format.</summary>
/// <param name="Name">Name for people.</param>
/// <param name="Options">How a model is loaded that way.</param>
public sealed record ComparedPrecision(string Name, LoadOptions Options);

/// <summary>Runs prompts through a model in two precisions and says how far they are apart.</summary>
public sealed class PrecisionComparison
{
    private readonly string _model;
    private readonly ComparedPrecision _reference;
    private readonly IReadOnlyList<PromptRequest> _requests;
    private readonly GenerationOptions _generation;
    private readonly Action<string> _say;

    /// <summary>Decides what to compare.</summary>
    /// <param name="model">Checkpoint folder.</param>
    /// <param name="reference">What the others are held against.</param>
    /// <param name="requests">Prompts, at least one.</param>
    /// <param name="maxNewTokens">Most tokens of an answer.</param>
    /// <param name="say">Told what is being done, or null.</param>
    public PrecisionComparison(string model, ComparedPrecision reference, IReadOnlyList<PromptRequest> requests, int maxNewTokens, Action<string>? say = null)
    {
        if (requests.Count == 0) throw new InvalidInputException("There is no prompt to compare with, expected at least one.");
        _model = model;
        _reference = reference;
        _requests = requests;
        _generation = new GenerationOptions { MaxNewTokens = maxNewTokens };
        _generation.Validate();
        _say = say ?? (_ => { });
    }

    /// <summary>Compares each of <paramref name="others"/> with the reference. Two models are held at a time.</summary>
    public async Task<ComparisonReport> RunAsync(IReadOnlyList<ComparedPrecision> others, CancellationToken cancellation = default)
    {
        _say($"loading {_model} as {_reference.Name}");
        await using ConvLlava reference = await ConvLlava.LoadAsync(_model, _reference.Options, null, cancellation).ConfigureAwait(false);
        var answers = new List<IReadOnlyList<int>>();
        foreach (PromptRequest request in _requests) answers.Add((await reference.AnswerAsync(request, _generation, cancellation).ConfigureAwait(false)).TokenIds);

        var formats = new List<FormatComparison>();
        foreach (ComparedPrecision other in others)
        {
            _say($"loading {_model} as {other.Name}");
            await using ConvLlava model = await ConvLlava.LoadAsync(_model, other.Options, null, cancellation).ConfigureAwait(false);
            var sums = new Sums();
            for (int i = 0; i < _requests.Count; i++)
            {
                _say(string.Create(CultureInfo.InvariantCulture, $"{other.Name}: prompt {i + 1} of {_requests.Count}"));
                ForwardTrace expected = await reference.TraceAsync(_requests[i], answers[i], cancellation).ConfigureAwait(false);
                ForwardTrace actual = await model.TraceAsync(_requests[i], answers[i], cancellation).ConfigureAwait(false);
                sums.Add(expected, actual, answers[i].Count);
                GenerationResult own = await model.AnswerAsync(_requests[i], _generation, cancellation).ConfigureAwait(false);
                sums.AddAnswer(own.TokenIds.SequenceEqual(answers[i]));
            }
            formats.Add(sums.Result(other.Name));
        }
        return new ComparisonReport(_model, _reference.Name, formats);
    }

    /// <summary>Errors of all prompts of one format.</summary>
    internal sealed class Sums
    {
        private readonly List<(string Name, double Difference, double Norm)> _places = [];
        private double _kl;
        private double _klMax;
        private int _tokens;
        private int _agreed;
        private int _answers;
        private int _same;

        /// <summary>Adds one prompt whose answer has <paramref name="tokens"/> tokens.</summary>
        public void Add(ForwardTrace expected, ForwardTrace actual, int tokens)
        {
            int place = 0;
            AddPlace(place++, "projected features", expected.Features, actual.Features);
            for (int layer = 0; layer < expected.Layers.Length; layer++)
                AddPlace(place++, string.Create(CultureInfo.InvariantCulture, $"layer {layer}"), expected.Layers[layer], actual.Layers[layer]);
            AddPlace(place, "logits", expected.Logits, actual.Logits);
            int vocabulary = expected.Logits.Length / tokens;
            for (int t = 0; t < tokens; t++)
            {
                ReadOnlySpan<float> p = expected.Logits.AsSpan(t * vocabulary, vocabulary), q = actual.Logits.AsSpan(t * vocabulary, vocabulary);
                double kl = Divergence(p, q);
                _kl += kl;
                _klMax = Math.Max(_klMax, kl);
                _tokens++;
                if (Best(p) == Best(q)) _agreed++;
            }
        }

        /// <summary>Adds whether the format's own answer was the reference's.</summary>
        public void AddAnswer(bool same)
        {
            _answers++;
            if (same) _same++;
        }

        /// <summary>The sums as they stand in a report.</summary>
        public FormatComparison Result(string name) => new(name,
            [.. _places.Where(place => place.Norm > 0).Select(place => new LayerError(place.Name, Math.Sqrt(place.Difference / place.Norm)))],
            _kl / _tokens, _klMax, _tokens, _agreed, _answers, _same);

        /// <summary>Kullback-Leibler divergence of softmax(<paramref name="q"/>) from softmax(<paramref name="p"/>), in nats.</summary>
        internal static double Divergence(ReadOnlySpan<float> p, ReadOnlySpan<float> q)
        {
            double logP = LogSum(p), logQ = LogSum(q), sum = 0;
            for (int i = 0; i < p.Length; i++) sum += Math.Exp(p[i] - logP) * ((p[i] - logP) - (q[i] - logQ));
            return Math.Max(0, sum); // rounding can leave equal distributions a trace below zero
        }

        private static double LogSum(ReadOnlySpan<float> logits)
        {
            double largest = double.NegativeInfinity, sum = 0;
            foreach (float logit in logits) largest = Math.Max(largest, logit);
            foreach (float logit in logits) sum += Math.Exp(logit - largest);
            return largest + Math.Log(sum);
        }

        private static int Best(ReadOnlySpan<float> logits)
        {
            int best = 0;
            for (int i = 1; i < logits.Length; i++)
            {
                if (logits[i] > logits[best]) best = i;
            }
            return best;
        }

        private void AddPlace(int index, string name, float[] expected, float[] actual)
        {
            if (index == _places.Count) _places.Add((name, 0, 0));
            (_, double difference, double norm) = _places[index];
            for (int i = 0; i < expected.Length; i++)
            {
                double apart = (double)actual[i] - expected[i];
                difference += apart * apart;
                norm += (double)expected[i] * expected[i];
            }
            _places[index] = (name, difference, norm);
        }
    }
}
