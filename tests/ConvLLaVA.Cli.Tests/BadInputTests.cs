using Xunit;

namespace ConvLLaVA.Cli.Tests;

/// <summary>Every way to give the program something unusable: one sentence, exit code 2, nothing half-written.</summary>
public sealed class BadInputTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("convllava-test-").FullName;
    private static readonly string Fixtures = Path.Combine(Repository.Root, "tests", "fixtures");
    private static readonly string Tiny = Path.Combine(Fixtures, "models", "two-shards");

    private static string Sample(string name) => Path.Combine(Repository.Root, "samples", name);

    public void Dispose() => Directory.Delete(_folder, true);

    private string Write(string name, string text)
    {
        string path = Path.Combine(_folder, name);
        File.WriteAllText(path, text);
        return path;
    }

    private void CopyModel(string name)
    {
        string source = Path.Combine(Fixtures, "models", name);
        foreach (string file in Directory.GetFiles(source, "*", SearchOption.AllDirectories))
        {
            string target = Path.Combine(_folder, Path.GetRelativePath(source, file));
            Directory.CreateDirectory(Path.GetDirectoryName(target)!);
            File.Copy(file, target);
        }
    }

    [Fact]
    public void A_model_folder_that_is_not_there() => CommandLine.Run("run", "--model", Path.Combine(_folder, "none"), "--prompt", "Hi").IsBadInput("none", "does not exist");

    [Fact]
    public void A_model_folder_without_config() => CommandLine.Run("run", "--model", _folder, "--prompt", "Hi").IsBadInput("config.json");

    [Fact]
    public void No_prompt_at_all() => CommandLine.Run("run").IsBadInput("--prompt", "--raw", "--messages");

    [Fact]
    public void Two_kinds_of_prompt() => CommandLine.Run("run", "--prompt", "a", "--raw", "b").IsBadInput("More than one");

    [Fact]
    public void An_unknown_option() => CommandLine.Run("run", "--frobnicate").IsBadInput("--frobnicate");

    [Fact]
    public void An_unknown_command() => CommandLine.Run("frobnicate").IsBadInput("frobnicate");

    [Fact]
    public void No_command() => Assert.Equal(2, CommandLine.Run().ExitCode);

    [Fact]
    public void A_number_that_is_none() => CommandLine.Run("run", "--prompt", "a", "--max-new-tokens", "many").IsBadInput("many");

    [Theory]
    [InlineData("--max-new-tokens", "0")]
    [InlineData("--max-new-tokens", "-3")]
    [InlineData("--temperature", "-1")]
    [InlineData("--top-p", "0")]
    [InlineData("--top-p", "1.5")]
    [InlineData("--top-k", "-1")]
    [InlineData("--min-p", "2")]
    [InlineData("--repetition-penalty", "0")]
    public void A_sampling_option_out_of_range(string option, string value) => CommandLine.Run("run", "--prompt", "a", option, value).IsBadInput(value);

    [Theory]
    [InlineData("--threads", "-1")]
    [InlineData("--threads", "1025")]
    [InlineData("--kv-tokens", "0")]
    [InlineData("--device", "tpu")]
    [InlineData("--dtype", "int3")]
    public void A_model_option_out_of_range(string option, string value) => CommandLine.Run("run", "--prompt", "a", option, value).IsBadInput(value);

    [Fact]
    public void An_unknown_template() => CommandLine.Run("run", "--prompt", "a", "--template", "v99").IsBadInput("v99", "vicuna_v1");

    [Fact]
    public void An_image_that_is_not_there() => CommandLine.Run("run", "--prompt", "a", "--image", "no-such.png").IsBadInput("no-such.png");

    [Fact]
    public void An_image_that_is_text() => CommandLine.Run("run", "--prompt", "a", "--image", Write("text.png", "hello")).IsBadInput("text.png");

    [Fact]
    public void An_empty_image() => CommandLine.Run("run", "--prompt", "a", "--image", Write("empty.jpg", "")).IsBadInput("empty.jpg");

    [Fact]
    public void A_truncated_photo()
    {
        byte[] photo = File.ReadAllBytes(Sample("shapes-2.jpg"));
        string path = Path.Combine(_folder, "cut.jpg");
        File.WriteAllBytes(path, photo[..(photo.Length / 2)]);
        CommandLine.Run("run", "--prompt", "a", "--image", path).IsBadInput("cut.jpg");
    }

    [Fact]
    public void A_picture_over_the_limit_of_the_option() => CommandLine.Run("run", "--prompt", "a", "--image", Sample("shapes-1.png"), "--max-image-pixels", "1000").IsBadInput("1000");

    [Fact]
    public void A_decompression_bomb()
    {
        byte[] picture = File.ReadAllBytes(Path.Combine(Fixtures, "images", "palette.gif"));
        picture[6] = picture[7] = picture[8] = picture[9] = 0xFF; // 65535x65535
        string path = Path.Combine(_folder, "bomb.gif");
        File.WriteAllBytes(path, picture);
        CommandLine.Run("run", "--model", Tiny, "--prompt", "a", "--image", path).IsBadInput("bomb.gif", "65535x65535", "178956970");
    }

    [Fact]
    public void More_placeholders_than_images() => CommandLine.Run("run", "--raw", "<image><image> hi", "--image", Sample("shapes-1.png")).IsBadInput("2", "1");

    [Fact]
    public void Fewer_placeholders_than_images() => CommandLine.Run("run", "--raw", "hi", "--image", Sample("shapes-1.png")).IsBadInput("0", "1");

    [Fact]
    public void A_prompt_that_cannot_fit() => CommandLine.Run("run", "--prompt", string.Join(' ', Enumerable.Repeat("what", 3000))).IsBadInput("max_position_embeddings");

    [Fact]
    public void Messages_that_are_not_json() => CommandLine.Run("run", "--messages", Write("m.json", "{")).IsBadInput("m.json");

    [Fact]
    public void Messages_that_are_no_list() => CommandLine.Run("run", "--messages", Write("m.json", "{}")).IsBadInput("m.json");

    [Fact]
    public void Messages_with_half_a_character() => CommandLine.Run("run", "--messages", Write("m.json", """[{"role":"user","content":"\ud800"}]""")).IsBadInput("m.json");

    [Fact]
    public void A_message_with_an_unknown_role() => CommandLine.Run("run", "--messages", Write("m.json", """[{"role":"robot","content":"x"}]""")).IsBadInput("robot");

    [Fact]
    public void A_conversation_that_ends_with_an_answer()
        => CommandLine.Run("run", "--messages", Write("m.json", """[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]""")).IsBadInput("user");

    [Fact]
    public void A_message_that_names_a_web_address()
        => CommandLine.Run("run", "--messages", Write("m.json", """[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.org/x.png"}}]}]""")).IsBadInput("network");

    [Fact]
    public void A_dump_into_a_folder_that_is_not_there()
    {
        string target = Path.Combine(_folder, "no", "out.safetensors");
        CommandLine.Run("dump", "--prompt", "a", "--out", target).IsBadInput("out.safetensors");
    }

    [Fact]
    public void A_dump_onto_a_folder() => CommandLine.Run("dump", "--model", Tiny, "--prompt", "a", "--out", _folder).IsBadInput(_folder, "folder");

    [Fact]
    public void A_dump_of_an_unknown_tensor() => CommandLine.Run("dump", "--prompt", "a", "--out", Path.Combine(_folder, "o.safetensors"), "--tensors", "nonsense").IsBadInput("nonsense", "image_features");

    [Fact]
    public void A_failed_dump_leaves_the_old_file_alone()
    {
        string target = Write("old.safetensors", "precious");
        CommandLine.Run("dump", "--prompt", "a", "--image", Write("bad.png", "x"), "--out", target).IsBadInput("bad.png");
        Assert.Equal("precious", File.ReadAllText(target));
        Assert.Equal(["bad.png", "old.safetensors"], Directory.GetFiles(_folder).Select(Path.GetFileName).Order());
    }

    [Fact]
    public void A_folder_without_tokenizer() => CommandLine.RunWithInput("\"a\"\n", "tokenize", "--model", _folder).IsBadInput("tokenizer.model");

    [Fact]
    public void A_line_to_tokenize_that_is_no_json()
    {
        CommandLine result = CommandLine.RunWithInput("hello\n", "tokenize");
        Assert.Equal(2, result.ExitCode);
        Assert.Contains("Line 1", result.Error);
    }

    [Fact]
    public void A_line_to_tokenize_with_half_a_character()
    {
        CommandLine result = CommandLine.RunWithInput("\"\\ud800\"\n", "tokenize", "--model", Tiny);
        Assert.Equal(2, result.ExitCode);
        Assert.Contains("Line 1", result.Error);
    }

    [Fact]
    public void An_id_that_is_not_in_the_vocabulary()
    {
        CommandLine result = CommandLine.RunWithInput("[1, 999999]\n", "tokenize", "--decode");
        Assert.Equal(2, result.ExitCode);
        Assert.Contains("999999", result.Error);
    }

    [Fact]
    public void A_checkpoint_that_is_cut_off()
    {
        CopyModel("embedded");
        string weights = Path.Combine(_folder, "model.safetensors");
        File.WriteAllBytes(weights, File.ReadAllBytes(weights)[..^100]);
        CommandLine.Run("run", "--model", _folder, "--prompt", "a").IsBadInput("model.safetensors", "expected a range");
    }

    [Fact]
    public void A_shard_that_is_not_there()
    {
        CopyModel("two-shards");
        File.Delete(Path.Combine(_folder, "model-00002-of-00002.safetensors"));
        CommandLine.Run("run", "--model", _folder, "--prompt", "a").IsBadInput("model-00002-of-00002.safetensors", "missing");
    }

    [Fact]
    public void A_checkpoint_that_would_run_code()
    {
        CopyModel("linear-projector");
        string weights = Path.Combine(_folder, "pytorch_model.bin");
        byte[] bytes = File.ReadAllBytes(weights);
        int at = bytes.AsSpan().IndexOf("collections\nOrderedDict\n"u8);
        "posix\nsystem_the_whole\n"u8.CopyTo(bytes.AsSpan(at));
        File.WriteAllBytes(weights, bytes);
        CommandLine.Run("run", "--model", _folder, "--prompt", "a").IsBadInput("posix.system_the_whole");
    }

    [Fact]
    public void A_checkpoint_without_tokenizer()
    {
        CopyModel("embedded");
        File.Delete(Path.Combine(_folder, "tokenizer.model"));
        CommandLine.Run("run", "--model", _folder, "--prompt", "a").IsBadInput("tokenizer.model");
    }

    [Fact]
    public void A_configuration_of_absurd_size()
    {
        CopyModel("embedded");
        string config = Path.Combine(_folder, "config.json");
        File.WriteAllText(config, File.ReadAllText(config).Replace("\"vocab_size\": ", "\"vocab_size\": 9999999"));
        CommandLine.Run("run", "--model", _folder, "--prompt", "a").IsBadInput("vocab_size", "9999999");
    }

    [Fact]
    public void Inspecting_nothing() => CommandLine.Run("inspect", _folder).IsBadInput("config.json");

    [Fact]
    public void A_vision_tower_that_is_not_there() => CommandLine.Run("run", "--prompt", "a", "--vision-tower", Path.Combine(_folder, "tower")).IsBadInput("tower");
}
