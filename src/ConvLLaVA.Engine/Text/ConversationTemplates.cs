namespace ConvLLaVA.Engine.Text;

/// <summary>The templates of the original, with their exact texts: models were trained on these very characters.</summary>
internal static class ConversationTemplates
{
    private const string Human = "A chat between a curious human and an artificial intelligence assistant. "
        + "The assistant gives helpful, detailed, and polite answers to the human's questions.";

    private const string User = "A chat between a curious user and an artificial intelligence assistant. "
        + "The assistant gives helpful, detailed, and polite answers to the user's questions.";

    // No space after "language." in the original.
    private const string MultimodalTag = "A chat between a curious user and an artificial intelligence assistant. "
        + "The assistant is able to understand the visual content that the user provides, and assist the user with a variety of tasks using natural language."
        + "The visual content will be provided with the following format: <Image>visual content</Image>.";

    // Two spaces after "safe." in the original.
    private const string Llama2Safety = "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe.  "
        + "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
        + "Please ensure that your responses are socially unbiased and positive in nature.\n\n"
        + "If a question does not make any sense, or is not factually coherent, explain why instead of answering something not correct. "
        + "If you don't know the answer to a question, please don't share false information.";

    private const string LlavaLlama2 = "You are a helpful language and vision assistant. "
        + "You are able to understand the visual content that the user provides, "
        + "and assist the user with a variety of tasks using natural language.";

    private const string RenewableQuestion = "What are the key differences between renewable and non-renewable energy sources?";

    private const string RenewableAnswer = "Renewable energy sources are those that can be replenished naturally in a relatively "
        + "short amount of time, such as solar, wind, hydro, geothermal, and biomass. "
        + "Non-renewable energy sources, on the other hand, are finite and will eventually be "
        + "depleted, such as coal, oil, and natural gas. Here are some key differences between "
        + "renewable and non-renewable energy sources:\n"
        + "1. Availability: Renewable energy sources are virtually inexhaustible, while non-renewable "
        + "energy sources are finite and will eventually run out.\n"
        + "2. Environmental impact: Renewable energy sources have a much lower environmental impact "
        + "than non-renewable sources, which can lead to air and water pollution, greenhouse gas emissions, "
        + "and other negative effects.\n"
        + "3. Cost: Renewable energy sources can be more expensive to initially set up, but they typically "
        + "have lower operational costs than non-renewable sources.\n"
        + "4. Reliability: Renewable energy sources are often more reliable and can be used in more remote "
        + "locations than non-renewable sources.\n"
        + "5. Flexibility: Renewable energy sources are often more flexible and can be adapted to different "
        + "situations and needs, while non-renewable sources are more rigid and inflexible.\n"
        + "6. Sustainability: Renewable energy sources are more sustainable over the long term, while "
        + "non-renewable sources are not, and their depletion can lead to economic and social instability.\n";

    /// <summary>All templates, in the order of the original's table.</summary>
    public static IReadOnlyList<ConversationTemplate> All { get; } =
    [
        Single(["default"], Human) with
        {
            CannedTurns = [new ChatTurn(ChatRole.User, RenewableQuestion), new ChatTurn(ChatRole.Assistant, RenewableAnswer)],
        },
        Two(["v1", "vicuna_v1"], User, "v1"),
        Llama2(["llama_2"], Llama2Safety),
        new()
        {
            TemplateNames = ["plain", "v0_plain"],
            System = "",
            UserRole = "",
            AssistantRole = "",
            Style = SeparatorStyle.Plain,
            Sep = "\n",
        },
        Single(["llava_v0"], Human),
        Single(["v0_mmtag"], MultimodalTag) with { Version = "v0_mmtag" },
        Two(["llava_v1"], Human, "v1"),
        Two(["v1_mmtag"], MultimodalTag, "v1_mmtag"),
        Llama2(["llava_llama_2"], LlavaLlama2),
        new()
        {
            TemplateNames = ["mpt"],
            System = "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers.",
            UserRole = "<|im_start|>user\n",
            AssistantRole = "<|im_start|>assistant\n",
            Style = SeparatorStyle.Mpt,
            Sep = "<|im_end|>",
            Version = "mpt",
        },
    ];

    private static ConversationTemplate Single(string[] names, string system) => new()
    {
        TemplateNames = names,
        System = system,
        UserRole = "Human",
        AssistantRole = "Assistant",
        Style = SeparatorStyle.Single,
        Sep = "###",
    };

    private static ConversationTemplate Two(string[] names, string system, string version) => new()
    {
        TemplateNames = names,
        System = system,
        UserRole = "USER",
        AssistantRole = "ASSISTANT",
        Style = SeparatorStyle.Two,
        Sep = " ",
        Sep2 = "</s>",
        Version = version,
    };

    private static ConversationTemplate Llama2(string[] names, string system) => new()
    {
        TemplateNames = names,
        System = system,
        UserRole = "USER",
        AssistantRole = "ASSISTANT",
        Style = SeparatorStyle.Llama2,
        Sep = "<s>",
        Sep2 = "</s>",
        Version = "llama_v2",
    };
}
