using BenchmarkDotNet.Attributes;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Text;

namespace ConvLLaVA.Bench.Micro;

/// <summary>Tokenizing a prompt, decoding an answer whole and piece by piece. The vocabulary has the stock one's size and is made by rule.</summary>
[MemoryDiagnoser]
public class TextBenchmarks
{
    private const string Prompt = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. "
        + "USER: <image>\nWhat is unusual about this image? ASSISTANT:";

    private string _folder = "";
    private LlamaTokenizer _tokenizer = null!;
    private string _long = "";
    private int[] _answer = [];

    [GlobalSetup]
    public void Setup()
    {
        _folder = Directory.CreateTempSubdirectory("convllava-bench-").FullName;
        string model = Path.Combine(_folder, "model");
        SyntheticCheckpoint.WriteConfiguration(model, SyntheticPreset.Get("7b-1536"), Engine.Tensors.DType.BFloat16);
        _tokenizer = ConvLlava.LoadTokenizer(model);
        _long = string.Concat(Enumerable.Repeat("The picture shows a man who irons on the back of a yellow car in the middle of a busy street. ", 40));
        _answer = _tokenizer.Encode(_long)[1..257];
    }

    [GlobalCleanup]
    public void Cleanup() => Directory.Delete(_folder, true);

    [Benchmark]
    public int[] EncodePrompt() => _tokenizer.EncodeWithImages(Prompt);

    [Benchmark]
    public int[] EncodeFourThousandCharacters() => _tokenizer.Encode(_long);

    [Benchmark]
    public string Decode256Tokens() => _tokenizer.Decode(_answer);

    [Benchmark(OperationsPerInvoke = 256)]
    public int StreamOneToken()
    {
        var decoder = new StreamingDecoder(_tokenizer);
        int length = 0;
        foreach (int id in _answer) length += decoder.Append(id).Length;
        return length + decoder.Flush().Length;
    }
}
