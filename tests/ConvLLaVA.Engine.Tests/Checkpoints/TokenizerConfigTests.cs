using ConvLLaVA.Engine.Checkpoints;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Checkpoints;

public sealed class TokenizerConfigTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Defaults_without_any_file()
    {
        TokenizerConfig config = TokenizerConfig.Load(_folder.Root);
        Assert.Equal((true, true, false), (config.Legacy, config.AddBosToken, config.AddEosToken));
        Assert.Equal(("<s>", "</s>", "<unk>", null), (config.BosToken, config.EosToken, config.UnkToken, config.PadToken));
        Assert.Empty(config.AddedTokens);
    }

    [Fact]
    public void Published_form()
    {
        _folder.Write("tokenizer_config.json", """
            {"add_bos_token":true,"add_eos_token":false,"bos_token":{"__type":"AddedToken","content":"<s>","lstrip":false},"legacy":false,
            "eos_token":{"content":"</s>"},"model_max_length":2048,"pad_token":null,"padding_side":"right","tokenizer_class":"LlamaTokenizer","unk_token":"<unk>"}
            """);
        _folder.Write("special_tokens_map.json", """{"bos_token":{"content":"<s>"},"pad_token":"<unk>"}""");
        _folder.Write("added_tokens.json", """{"<im_patch>":32000,"</s>":2}""");
        TokenizerConfig config = TokenizerConfig.Load(_folder.Root);
        Assert.Equal((false, 2048, "<unk>", "LlamaTokenizer"), (config.Legacy, config.ModelMaxLength, config.PadToken, config.TokenizerClass));
        Assert.Equal([("</s>", 2, true), ("<im_patch>", 32000, false)], config.AddedTokens.Select(token => (token.Content, token.Id, token.Special)));
    }

    [Fact]
    public void The_decoder_list_outranks_the_older_files()
    {
        _folder.Write("tokenizer_config.json", """
            {"added_tokens_decoder":{"10":{"content":"<b>","special":true,"lstrip":true,"normalized":false},"2":{"content":"</s>"}},"pad_token":"<b>"}
            """);
        _folder.Write("special_tokens_map.json", """{"pad_token":"<unk>"}""");
        _folder.Write("added_tokens.json", """{"x":5}""");
        TokenizerConfig config = TokenizerConfig.Load(_folder.Root);
        Assert.Equal("<b>", config.PadToken);
        Assert.Equal([new AddedToken("</s>", 2, false, false, false, false, true), new AddedToken("<b>", 10, true, true, false, false, false)], config.AddedTokens);
        Assert.True(config.Legacy);
    }

    [Theory]
    [InlineData("tokenizer_config.json", """{"bos_token":5}""", "\"bos_token\" is 5, expected a string")]
    [InlineData("tokenizer_config.json", """{"added_tokens_decoder":{"-1":{"content":"x"}}}""", "with the entry \"-1\"")]
    [InlineData("tokenizer_config.json", """{"added_tokens_decoder":{"1":{}}}""", "without \"content\" for token 1")]
    [InlineData("added_tokens.json", """{"x":"y"}""", "\"x\" is \"y\", expected an integer")]
    [InlineData("added_tokens.json", """{"x":null}""", "\"x\" is null, expected a token id")]
    [InlineData("special_tokens_map.json", "[]", "holds a JSON array")]
    public void Unusable_values(string name, string json, string expected)
    {
        string path = _folder.Write(name, json);
        InvalidInputException error = Assert.Throws<InvalidInputException>(() => TokenizerConfig.Load(_folder.Root));
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.StartsWith(path, error.Message, StringComparison.Ordinal);
    }
}
