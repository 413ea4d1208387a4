using System.Text.Json;
using Xunit;

namespace ConvLLaVA.Cli.Tests;

/// <summary>What the program does when all is well, with the model and pictures that ship.</summary>
public sealed class AnswerTests : IDisposable
{
    private const string Question = "What color is the star?"; // shapes-1.png: a blue star
    private readonly string _folder = Directory.CreateTempSubdirectory("convllava-test-").FullName;
    private static readonly string Star = Path.Combine(Repository.Root, "samples", "shapes-1.png");

    public void Dispose() => Directory.Delete(_folder, true);

    [Fact]
    public void Answers_a_question_about_a_picture() => Assert.Equal("Blue\n", CommandLine.Run("run", "--image", Star, "--prompt", Question).Succeeds());

    [Fact]
    public void Says_nothing_else_on_standard_error() => Assert.Equal("", CommandLine.Run("run", "--image", Star, "--prompt", Question).Error);

    [Fact]
    public void Prints_one_json_object()
    {
        string output = CommandLine.Run("run", "--image", Star, "--prompt", Question, "--json").Succeeds();
        using JsonDocument document = JsonDocument.Parse(output);
        JsonElement root = document.RootElement;
        Assert.Equal("Blue", root.GetProperty("text").GetString());
        Assert.Equal(16, root.GetProperty("image_tokens").GetInt32());
        Assert.Equal("stop", root.GetProperty("finish_reason").GetString());
        int completion = root.GetProperty("completion_tokens").GetInt32();
        Assert.Equal(completion, root.GetProperty("token_ids").GetArrayLength());
        Assert.Equal(2, root.GetProperty("token_ids")[completion - 1].GetInt32());
        string prompt = root.GetProperty("prompt").GetString()!;
        Assert.EndsWith($"USER: <image>\n{Question} ASSISTANT:", prompt);
        Assert.True(root.GetProperty("prompt_tokens").GetInt32() > 16);
        Assert.True(root.GetProperty("timings").GetProperty("prefill_ms").GetDouble() > 0);
    }

    [Fact]
    public void A_raw_prompt_answers_as_the_template_does()
    {
        using JsonDocument templated = JsonDocument.Parse(CommandLine.Run("run", "--image", Star, "--prompt", Question, "--json").Succeeds());
        string prompt = templated.RootElement.GetProperty("prompt").GetString()!;
        Assert.Equal("Blue\n", CommandLine.Run("run", "--image", Star, "--raw", prompt).Succeeds());
    }

    [Fact]
    public void Messages_with_a_data_url_answer_as_a_file_does()
    {
        string url = "data:image/png;base64," + Convert.ToBase64String(File.ReadAllBytes(Star));
        string path = Path.Combine(_folder, "messages.json");
        File.WriteAllText(path, $$$"""[{"role":"user","content":[{"type":"image_url","image_url":{"url":"{{{url}}}"}},{"type":"text","text":"{{{Question}}}"}]}]""");
        Assert.Equal("Blue\n", CommandLine.Run("run", "--messages", path).Succeeds());
    }

    [Fact]
    public void Messages_with_plain_strings_take_the_image_of_the_command_line()
    {
        string path = Path.Combine(_folder, "messages.json");
        File.WriteAllText(path, $$"""[{"role":"user","content":"{{Question}}"} ]""");
        Assert.Equal("Blue\n", CommandLine.Run("run", "--image", Star, "--messages", path).Succeeds());
    }

    [Fact]
    public void A_seed_makes_sampling_repeatable()
    {
        string[] arguments = ["run", "--image", Star, "--prompt", "Describe the image.", "--temperature", "2", "--seed", "7", "--max-new-tokens", "20"];
        Assert.Equal(CommandLine.Run(arguments).Succeeds(), CommandLine.Run(arguments).Succeeds());
    }

    [Fact]
    public void Stops_before_a_stop_string()
    {
        string whole = CommandLine.Run("run", "--image", Star, "--prompt", "Describe the image.").Succeeds();
        string cut = CommandLine.Run("run", "--image", Star, "--prompt", "Describe the image.", "--stop", " are").Succeeds();
        Assert.Equal(whole[..whole.IndexOf(" are", StringComparison.Ordinal)] + "\n", cut);
    }

    [Fact]
    public void The_length_limit_is_exact()
    {
        using JsonDocument document = JsonDocument.Parse(CommandLine.Run("run", "--image", Star, "--prompt", "Describe the image.", "--json", "-n", "3").Succeeds());
        Assert.Equal(3, document.RootElement.GetProperty("completion_tokens").GetInt32());
        Assert.Equal("length", document.RootElement.GetProperty("finish_reason").GetString());
    }

    [Fact]
    public void Text_only_works() => CommandLine.Run("run", "--prompt", "Hello", "-n", "4").Succeeds();

    [Fact]
    public void A_prompt_may_begin_with_any_character()
    {
        foreach (string prompt in (string[])["@nobody", "-1?", "[suggest]", "é"])
            CommandLine.Run("run", "--model", Path.Combine(Repository.Fixtures, "models", "two-shards"), "--prompt", prompt, "-n", "1").Succeeds();
    }

    [Fact]
    public void Verbose_says_which_vision_tower_counts()
    {
        CommandLine run = CommandLine.Run("run", "--model", Path.Combine(Repository.Fixtures, "models", "two-shards"), "--prompt", "Hello", "-n", "1", "-v");
        run.Succeeds();
        Assert.Contains("debug: Both ", run.Error);
        Assert.Contains("Running on cpu", run.Error);
    }

    [Theory]
    [InlineData("float32")]
    [InlineData("float16")]
    [InlineData("bfloat16")]
    public void Every_weight_precision_answers(string dtype) => Assert.Equal("Blue\n", CommandLine.Run("run", "--image", Star, "--prompt", Question, "--dtype", dtype).Succeeds());

    [Fact]
    public void Chats_over_several_turns()
    {
        CommandLine chat = CommandLine.RunWithInput($"{Question}\n/reset\n/image {Star}\nHow many shapes are there?\n/nonsense\n/image /no/such/file\n/quit\n", "chat", "--image", Star);
        Assert.Equal(0, chat.ExitCode);
        string[] answers = chat.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(2, answers.Length);
        Assert.Equal("Blue", answers[0]);
        Assert.Contains("/nonsense", chat.Error);
        Assert.Contains("/no/such/file", chat.Error);
    }

    [Fact]
    public void Dumps_the_tensors_asked_for_and_no_others()
    {
        string path = Path.Combine(_folder, "dump.safetensors");
        CommandLine.Run("dump", "--image", Star, "--prompt", Question, "--out", path, "--tensors", "input_ids,vision.hidden_states.1").Succeeds();
        using FileStream file = File.OpenRead(path);
        byte[] length = new byte[8];
        file.ReadExactly(length);
        byte[] header = new byte[BitConverter.ToInt64(length)];
        file.ReadExactly(header);
        using JsonDocument document = JsonDocument.Parse(header);
        Assert.Equal(["input_ids", "vision.hidden_states.1"], document.RootElement.EnumerateObject().Select(p => p.Name).Where(n => n != "__metadata__").Order());
    }

    [Fact]
    public void Tokenizes_and_decodes_back()
    {
        string ids = CommandLine.RunWithInput("\"What color is it?\"\n\"\"\n", "tokenize").Succeeds();
        string[] lines = ids.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(2, lines.Length);
        Assert.Equal("[1]", lines[1]);
        Assert.Equal("\"What color is it?\"\n\"\"\n", CommandLine.RunWithInput(ids, "tokenize", "--decode").Succeeds());
        Assert.Contains("-200", CommandLine.RunWithInput("\"<image>\\nHi\"\n", "tokenize", "--image-tokens").Succeeds());
        Assert.DoesNotContain("-200", CommandLine.RunWithInput("\"<image>\\nHi\"\n", "tokenize").Succeeds());
    }

    [Fact]
    public void A_folder_with_only_a_tokenizer_is_enough_to_tokenize()
    {
        File.Copy(Path.Combine(Repository.Fixtures, "models", "two-shards", "tokenizer.model"), Path.Combine(_folder, "tokenizer.model"));
        string ids = CommandLine.RunWithInput("\"Hé\\n\"\n", "tokenize", "--model", _folder).Succeeds();
        Assert.StartsWith("[1,", ids);
        Assert.Equal("\"H\\u00E9\\n\"\n", CommandLine.RunWithInput(ids, "tokenize", "--model", _folder, "--decode").Succeeds());
    }

    [Fact]
    public void Inspects_the_demo_model()
    {
        string output = CommandLine.Run("inspect", Path.Combine(Repository.Root, "models", "convllava-demo")).Succeeds();
        Assert.Contains("5 stages", output);
        Assert.Contains("workspace", output);
        Assert.Contains("bfloat16", output);
    }

    [Fact]
    public void Shows_help() => Assert.Contains("--image", CommandLine.Run("run", "--help").Succeeds());
}
