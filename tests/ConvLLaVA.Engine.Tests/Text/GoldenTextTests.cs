using System.Text.Json;
using ConvLLaVA.Engine.Text;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Text;

/// <summary>The golden vectors of the specification, made with transformers 4.39.3 and the stock vocabulary.</summary>
public class GoldenTextTests
{
    [Fact]
    public void Texts_get_the_ids_of_transformers()
    {
        LlamaTokenizer tokenizer = Vocabularies.Stock();
        JsonElement cases = Golden("tokenizer").GetProperty("encode");
        Assert.Equal(28, cases.GetArrayLength());
        foreach (JsonElement entry in cases.EnumerateArray()) Assert.Equal(Ids(entry.GetProperty("ids")), tokenizer.Encode(entry.GetProperty("text").GetString()!));
    }

    [Fact]
    public void Ids_get_the_texts_of_transformers()
    {
        LlamaTokenizer tokenizer = Vocabularies.Stock();
        JsonElement cases = Golden("tokenizer").GetProperty("decode_skip_special");
        Assert.True(cases.GetArrayLength() > 20);
        foreach (JsonElement entry in cases.EnumerateArray()) Assert.Equal(entry.GetProperty("text").GetString(), tokenizer.Decode(Ids(entry.GetProperty("ids"))));
    }

    [Fact]
    public void Prompts_and_their_ids_are_those_of_the_original()
    {
        LlamaTokenizer tokenizer = Vocabularies.Stock();
        JsonElement cases = Golden("prompts");
        Assert.Equal(12, cases.GetArrayLength());
        foreach (JsonElement entry in cases.EnumerateArray())
        {
            string prompt = ConversationTemplate.Get(entry.GetProperty("template").GetString()!).Render(Turns(entry));
            Assert.Equal(entry.GetProperty("prompt").GetString(), prompt);
            Assert.Equal(Ids(entry.GetProperty("ids")), tokenizer.EncodeWithImages(prompt));
        }
    }

    [Fact]
    public void Training_conversations_get_the_ids_of_the_original()
    {
        LlamaTokenizer tokenizer = Vocabularies.Stock();
        JsonElement cases = Golden("labels_v1");
        Assert.NotEqual(0, cases.GetArrayLength());
        foreach (JsonElement entry in cases.EnumerateArray())
        {
            Assert.Equal(Ids(entry.GetProperty("ids")), tokenizer.EncodeWithImages(ConversationTemplate.Default.Render(Turns(entry))));
        }
    }

    [Theory]
    [InlineData("multi_image")]
    [InlineData("image_first")]
    public void Images_split_the_prompt_as_in_the_original(string key)
    {
        LlamaTokenizer tokenizer = Vocabularies.Stock();
        JsonElement entry = Golden(key);
        Assert.Equal(Ids(entry.GetProperty("ids")), tokenizer.EncodeWithImages(entry.GetProperty("text").GetString()!));
    }

    [Fact]
    public void Streamed_answers_are_the_decoded_ones()
    {
        LlamaTokenizer tokenizer = Vocabularies.Stock();
        JsonElement cases = Golden("streaming");
        Assert.NotEqual(0, cases.GetArrayLength());
        foreach (JsonElement entry in cases.EnumerateArray())
        {
            // "streamed" and "events" hold what the original shows, which loses indentation: see StreamingDecoder.
            StreamingDecoder decoder = new(tokenizer);
            int[] ids = Ids(entry.GetProperty("ids"));
            Assert.Equal(entry.GetProperty("decode").GetString(), string.Concat(ids.Select(decoder.Append)) + decoder.Flush());
        }
    }

    [Fact]
    public void Legacy_gives_text_after_a_special_token_its_own_space()
    {
        LlamaTokenizer modern = Vocabularies.Stock(), legacy = Vocabularies.Stock(legacy: true);
        Assert.Equal([1, 263, 2, 11889], modern.Encode("a</s>USER"));
        Assert.Equal([1, 263, 2, 3148, 1001], legacy.Encode("a</s>USER"));
        Assert.Equal([1, 15043, 29871, 1, 29889], modern.Encode("Hello <s>."));
        Assert.Equal([1, 15043, 29871, 1, 869], legacy.Encode("Hello <s>."));
        string prompt = ConversationTemplate.Default.RenderForAnswer([new(ChatRole.User, "<image>\nWhat is this?")]);
        Assert.Equal(modern.EncodeWithImages(prompt), legacy.EncodeWithImages(prompt));
    }

    [Fact]
    public void Image_patch_token_follows_the_stock_vocabulary()
    {
        LlamaTokenizer tokenizer = LlamaTokenizer.Load(Vocabularies.StockFolder(), new() { Legacy = false, AddImPatchToken = true });
        Assert.Equal([1, 319, 29871, 32000, 29890], tokenizer.Encode("A <im_patch>b"));
        Assert.Equal(32001, tokenizer.VocabularySize);
    }

    private static ChatTurn[] Turns(JsonElement entry)
    {
        List<ChatTurn> turns = [];
        foreach (JsonElement pair in entry.GetProperty("turns").EnumerateArray())
        {
            turns.Add(new(ChatRole.User, ImagePrompt.Place(pair[0].GetString()!, turns.Count == 0 ? 1 : 0)));
            turns.Add(new(ChatRole.Assistant, pair[1].GetString()));
        }
        return [.. turns];
    }

    private static JsonElement Golden(string key)
    {
        string file = Path.Combine(Repository.Shared ?? "", "spec", "golden.json");
        if (!File.Exists(file)) Assert.Skip("The golden vectors are not at hand (spec/golden.json in the shared folder).");
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(file));
        return document.RootElement.GetProperty(key).Clone();
    }

    private static int[] Ids(JsonElement list) => [.. list.EnumerateArray().Select(id => id.GetInt32())];
}
