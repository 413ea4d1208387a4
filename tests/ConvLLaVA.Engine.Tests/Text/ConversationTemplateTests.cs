using ConvLLaVA.Engine.Text;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Text;

public class ConversationTemplateTests
{
    private const string Human = "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions.";
    private const string User = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions.";
    private const string Tagged = "A chat between a curious user and an artificial intelligence assistant. The assistant is able to understand the visual content that the user provides, and assist the user with a variety of tasks using natural language.The visual content will be provided with the following format: <Image>visual content</Image>.";
    private const string Llava2 = "You are a helpful language and vision assistant. You are able to understand the visual content that the user provides, and assist the user with a variety of tasks using natural language.";
    private const string Mpt = "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers.";

    private static readonly ChatTurn[] Talk = [new(ChatRole.User, "Q?"), new(ChatRole.Assistant, "A."), new(ChatRole.User, "Sure?"), new(ChatRole.Assistant, null)];

    [Theory]
    [InlineData("v1", User + " USER: Q? ASSISTANT: A.</s>USER: Sure? ASSISTANT:")]
    [InlineData("vicuna_v1", User + " USER: Q? ASSISTANT: A.</s>USER: Sure? ASSISTANT:")]
    [InlineData("llava_v1", Human + " USER: Q? ASSISTANT: A.</s>USER: Sure? ASSISTANT:")]
    [InlineData("v1_mmtag", Tagged + " USER: Q? ASSISTANT: A.</s>USER: Sure? ASSISTANT:")]
    [InlineData("llava_v0", Human + "###Human: Q?###Assistant: A.###Human: Sure?###Assistant:")]
    [InlineData("v0_mmtag", Tagged + "###Human: Q?###Assistant: A.###Human: Sure?###Assistant:")]
    [InlineData("llava_llama_2", "[INST] <<SYS>>\n" + Llava2 + "\n<</SYS>>\n\nQ? [/INST] A. </s><s>[INST] Sure? [/INST]")]
    [InlineData("mpt", Mpt + "<|im_end|><|im_start|>user\nQ?<|im_end|><|im_start|>assistant\nA.<|im_end|><|im_start|>user\nSure?<|im_end|><|im_start|>assistant\n")]
    public void Writes_a_conversation(string name, string expected)
    {
        ConversationTemplate template = ConversationTemplate.Get(name);
        Assert.Equal(expected, template.Render(Talk));
        Assert.Equal(expected, template.RenderForAnswer(Talk));
        Assert.Equal(expected, template.RenderForAnswer(Talk[..^1]));
    }

    [Fact]
    public void Default_template_begins_with_its_canned_turns()
    {
        ConversationTemplate template = ConversationTemplate.Get("default");
        string prompt = template.Render([new(ChatRole.User, "Q?"), new(ChatRole.Assistant, null)]);
        Assert.StartsWith(Human + "###Human: What are the key differences between renewable and non-renewable energy sources?###Assistant: Renewable energy sources are those", prompt, StringComparison.Ordinal);
        Assert.EndsWith("energy sources:\n1. Availability: Renewable energy sources are virtually inexhaustible, while non-renewable energy sources are finite and will eventually run out.\n2. ", prompt[..(prompt.IndexOf("2. ", StringComparison.Ordinal) + 3)], StringComparison.Ordinal);
        Assert.EndsWith("and their depletion can lead to economic and social instability.\n###Human: Q?###Assistant:", prompt, StringComparison.Ordinal);
        Assert.Equal(2, template.Offset);
        Assert.Equal(0, ConversationTemplate.Default.Offset);
    }

    [Fact]
    public void Llama2_safety_text_is_exact()
    {
        string system = ConversationTemplate.Get("llama_2").System;
        Assert.Contains("while being safe.  Your answers", system, StringComparison.Ordinal);
        Assert.Contains("positive in nature.\n\nIf a question", system, StringComparison.Ordinal);
        Assert.EndsWith("please don't share false information.", system, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("", "<s>hi", "[INST] <s>hi [/INST]")]
    [InlineData("S", "hi", "[INST] <<SYS>>\nS\n<</SYS>>\n\nhi [/INST]")]
    public void Llama2_takes_only_leading_separators_off(string system, string text, string expected)
        => Assert.Equal(expected, ConversationTemplate.Get("llava_llama_2").Render([new(ChatRole.System, system), new(ChatRole.User, text)]));

    [Fact]
    public void Plain_holds_one_text()
    {
        ConversationTemplate plain = ConversationTemplate.Get("plain");
        Assert.Equal("<image>\n", plain.RenderForAnswer([new(ChatRole.User, "<image>")]));
        Assert.Contains("plain", Assert.Throws<InvalidInputException>(() => plain.Render(Talk)).Message, StringComparison.Ordinal);
        Assert.Same(plain, ConversationTemplate.Get("v0_plain"));
    }

    [Theory]
    [InlineData("v1", "S USER: Q? ASSISTANT:")]
    [InlineData("llava_v0", "S###Human: Q?###Assistant:")]
    [InlineData("mpt", "<|im_start|>system\nS<|im_end|><|im_start|>user\nQ?<|im_end|><|im_start|>assistant\n")]
    public void A_system_turn_replaces_the_instructions(string name, string expected)
        => Assert.Equal(expected, ConversationTemplate.Get(name).RenderForAnswer([new(ChatRole.System, "S"), new(ChatRole.User, "Q?")]));

    [Fact]
    public void An_empty_text_gives_the_role_alone()
        => Assert.Equal(User + " USER:ASSISTANT:", ConversationTemplate.Default.RenderForAnswer([new(ChatRole.User, "")]));

    [Theory]
    [InlineData("v1", "</s>")]
    [InlineData("llava_v1", "</s>")]
    [InlineData("llava_v0", "###")]
    [InlineData("default", "###")]
    [InlineData("llama_2", "</s>")]
    [InlineData("mpt", "<|im_end|>")]
    [InlineData("plain", "\n")]
    public void Stop_string_is_what_ends_answers(string name, string expected) => Assert.Equal(expected, ConversationTemplate.Get(name).StopString);

    [Fact]
    public void Names_are_all_there()
    {
        Assert.Equal(["default", "v1", "vicuna_v1", "llama_2", "plain", "v0_plain", "llava_v0", "v0_mmtag", "llava_v1", "v1_mmtag", "llava_llama_2", "mpt"], ConversationTemplate.Names);
        Assert.Equal(["Unknown", "v1", "v1", "llama_v2", "Unknown", "Unknown", "Unknown", "v0_mmtag", "v1", "v1_mmtag", "llama_v2", "mpt"], ConversationTemplate.Names.Select(name => ConversationTemplate.Get(name).Version));
        Assert.Same(ConversationTemplate.Get("vicuna_v1"), ConversationTemplate.Default);
        Assert.Equal("There is no conversation template 'mpt_text'; the known ones are default, v1, vicuna_v1, llama_2, plain, v0_plain, llava_v0, v0_mmtag, llava_v1, v1_mmtag, llava_llama_2, mpt.",
            Assert.Throws<InvalidInputException>(() => ConversationTemplate.Get("mpt_text")).Message);
    }

    [Theory]
    [InlineData("v1", User + " USER: <image>\nWhat is it? ASSISTANT:")]
    [InlineData("v1_mmtag", Tagged + " USER: <Image><image></Image> ASSISTANT: Received.</s>USER: What is it? ASSISTANT:")]
    [InlineData("v0_mmtag", Tagged + "###Human: <Image><image></Image>###Assistant: Received.###Human: What is it?###Assistant:")]
    public void An_image_leads_the_conversation_as_on_the_web_page(string name, string expected)
    {
        ConversationTemplate template = ConversationTemplate.Get(name);
        Assert.Equal(expected, template.RenderForAnswer(template.WithLeadingImage([new(ChatRole.User, "What is it?\n<image>")])));
        Assert.Equal(ChatRole.System, template.WithLeadingImage([new(ChatRole.System, "S"), new(ChatRole.User, "x")])[0].Role);
        Assert.Throws<InvalidInputException>(() => template.WithLeadingImage([new(ChatRole.System, "S")]));
    }

    public static TheoryData<string, string> BadTurns => new()
    {
        { "UU", "turn 2 is by the user" },
        { "A", "turn 1 is by the assistant" },
        { "US", "system turn" },
        { "Un", "" },
        { "UnU", "Turn 2" },
        { "u", "Turn 1" },
    };

    [Theory]
    [MemberData(nameof(BadTurns))]
    public void Turns_out_of_order_are_refused(string turns, string word)
    {
        ChatTurn[] talk = [.. turns.Select(kind => kind switch
        {
            'U' => new ChatTurn(ChatRole.User, "x"),
            'u' => new ChatTurn(ChatRole.User, null),
            'A' => new ChatTurn(ChatRole.Assistant, "x"),
            'n' => new ChatTurn(ChatRole.Assistant, null),
            _ => new ChatTurn(ChatRole.System, "x"),
        })];
        if (word == "") Assert.EndsWith("USER: x ASSISTANT:", ConversationTemplate.Default.Render(talk), StringComparison.Ordinal);
        else Assert.Contains(word, Assert.Throws<InvalidInputException>(() => ConversationTemplate.Default.Render(talk)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("llama_2", "")]
    [InlineData("plain", "")]
    [InlineData("v1", User + " ")]
    [InlineData("mpt", Mpt + "<|im_end|>")]
    public void A_conversation_can_be_empty(string name, string expected) => Assert.Equal(expected, ConversationTemplate.Get(name).RenderForAnswer([]));

    [Fact]
    public void Llama2_needs_a_first_text()
        => Assert.Contains("first user turn", Assert.Throws<InvalidInputException>(() => ConversationTemplate.Get("llama_2").Render([new(ChatRole.User, "")])).Message, StringComparison.Ordinal);

    [Fact]
    public void Answers_enter_the_history_without_special_tokens_and_stripped()
    {
        ChatTurn answer = ChatTurn.Answer(Vocabularies.Small, [.. Vocabularies.Small.Encode("  the picture \n")[1..], Vocabularies.Small.EosId]);
        Assert.Equal(new ChatTurn(ChatRole.Assistant, "the picture"), answer);
        Assert.EndsWith("ASSISTANT: the picture</s>USER: and? ASSISTANT:", ConversationTemplate.Default.RenderForAnswer([new(ChatRole.User, "Q?"), answer, new(ChatRole.User, "and?")]), StringComparison.Ordinal);
    }
}
