using ConvLLaVA.Engine.Text;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Text;

public class TokenizerFilesTests
{
    private const string Config = "tokenizer_config.json";
    private const string Special = "special_tokens_map.json";
    private const string Added = "added_tokens.json";

    [Theory]
    [InlineData("""{"legacy": false}""", false)]
    [InlineData("""{"legacy": true}""", true)]
    [InlineData("""{"legacy": null}""", true)]
    [InlineData("{}", true)]
    public void Legacy_comes_from_the_config(string json, bool legacy)
    {
        Assert.Equal(legacy, Vocabularies.LoadSmall(null, (Config, json)).Legacy);
        Assert.Equal(!legacy, Vocabularies.LoadSmall(new() { Legacy = !legacy }, (Config, json)).Legacy);
    }

    [Fact]
    public void Without_files_the_defaults_of_llama_hold()
    {
        LlamaTokenizer tokenizer = Vocabularies.LoadSmall();
        Assert.True(tokenizer.Legacy);
        Assert.Equal((1, 2, 0, 0), (tokenizer.BosId, tokenizer.EosId, tokenizer.UnkId, tokenizer.PadId));
    }

    [Fact]
    public void Reads_the_files_of_a_published_checkpoint()
    {
        const string token = """{"content": "<s>", "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "__type": "AddedToken"}""";
        LlamaTokenizer tokenizer = Vocabularies.LoadSmall(null,
            (Config, $$"""{"add_bos_token": true, "add_eos_token": false, "legacy": false, "pad_token": null, "sp_model_kwargs": {}, "bos_token": {{token}}, "eos_token": {{token.Replace("<s>", "</s>")}}, "unk_token": {{token.Replace("<s>", "<unk>")}}, "model_max_length": 2048}"""),
            (Special, $$"""{"bos_token": {{token}}, "pad_token": "<unk>"}"""));
        Assert.False(tokenizer.Legacy);
        Assert.Equal((1, 2, 0, 0, 620), (tokenizer.BosId, tokenizer.EosId, tokenizer.UnkId, tokenizer.PadId, tokenizer.VocabularySize));
    }

    [Fact]
    public void Added_tokens_match_the_longest_first_and_decode()
    {
        LlamaTokenizer tokenizer = Vocabularies.LoadSmall(new() { Legacy = false },
            (Added, """{"[[a]]": 621, "[[": 620}"""), (Special, """{"pad_token": "[PAD]"}"""));
        Assert.Equal((622, 623), (tokenizer.PadId, tokenizer.VocabularySize));
        Assert.Equal([1, 621, 620, 622], tokenizer.Encode("[[a]][[[PAD]").Where(id => id is 1 or > 619));
        Assert.Equal("[[a]][[", tokenizer.Decode([621, 620, 622]));
        Assert.Equal("[PAD]", tokenizer.PieceOf(622));
        Assert.True(tokenizer.TryGetId("[[", out int id));
        Assert.Equal(620, id);
    }

    [Fact]
    public void Added_tokens_can_swallow_space()
    {
        LlamaTokenizer tokenizer = Vocabularies.LoadSmall(new() { Legacy = false }, (Config,
            """{"added_tokens_decoder": {"620": {"content": "<L>", "lstrip": true, "special": true}, "621": {"content": "<R>", "rstrip": true, "special": true}}}"""));
        Assert.Equal(tokenizer.Encode("a<L> b"), tokenizer.Encode("a \n <L> b"));
        Assert.Equal(tokenizer.Encode("a <R>b"), tokenizer.Encode("a <R> \t b"));
        Assert.NotEqual(tokenizer.Encode("a<R>b"), tokenizer.Encode("a <R>b"));
        Assert.Equal([1, 621, 620], tokenizer.Encode("<R>   <L>"));
    }

    [Fact]
    public void End_token_is_added_when_the_config_says_so()
    {
        LlamaTokenizer tokenizer = Vocabularies.LoadSmall(new() { Legacy = false }, (Config, """{"add_eos_token": true, "add_bos_token": false}"""));
        Assert.Equal([.. Vocabularies.Small.Encode("the")[1..], 2], tokenizer.Encode("the"));
    }

    [Theory]
    [InlineData(Config, "{", "not valid JSON")]
    [InlineData(Config, "[]", "JSON object")]
    [InlineData(Config, """{"legacy": 3}""", "legacy must be true or false")]
    [InlineData(Config, """{"bos_token": 3}""", "bos_token")]
    [InlineData(Config, """{"bos_token": ""}""", "bos_token")]
    [InlineData(Config, """{"bos_token": {}}""", "bos_token has no content")]
    [InlineData(Config, """{"bos_token": {"content": "<s>", "single_word": true}}""", "single_word")]
    [InlineData(Config, """{"added_tokens_decoder": []}""", "added_tokens_decoder")]
    [InlineData(Config, """{"added_tokens_decoder": {"x": "y"}}""", "'x'")]
    [InlineData(Special, """{"additional_special_tokens": "x"}""", "additional_special_tokens")]
    [InlineData(Added, """{"x": "y"}""", "'x'")]
    [InlineData(Added, """{"x": 1000000000}""", "gap")]
    [InlineData(Added, """{"\ud800": 620}""", Added)]
    [InlineData(Config, """{"bos_token": "\ud800"}""", Config)]
    [InlineData(Added, """{"x": 620, "y": 620}""", "'y'")]
    public void Bad_files_are_named(string name, string json, string word)
    {
        InvalidInputException error = Assert.Throws<InvalidInputException>(() => Vocabularies.LoadSmall(null, (name, json)));
        Assert.Contains(word, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_missing_model_is_named()
    {
        using TemporaryFolder folder = new();
        Assert.Equal($"There is no tokenizer.model in {folder.Path}.", Assert.Throws<InvalidInputException>(() => LlamaTokenizer.Load(folder.Path)).Message);
    }
}
