"""The original's conversation templates, rendered to prompt strings."""
H1 = ("A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
      "and polite answers to the human's questions.")
U1 = H1.replace("human", "user")
MM = ("A chat between a curious user and an artificial intelligence assistant. The assistant is able to understand the "
      "visual content that the user provides, and assist the user with a variety of tasks using natural language.The "
      "visual content will be provided with the following format: <Image>visual content</Image>.")
LLAVA_LLAMA_2 = ("You are a helpful language and vision assistant. You are able to understand the visual content that the "
                 "user provides, and assist the user with a variety of tasks using natural language.")
MPT = ("<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. The assistant gives helpful and "
       "honest answers.")

# key: (style, system, roles, separator, second separator)
TEMPLATES = {
    "v1": ("two", U1, ("USER", "ASSISTANT"), " ", "</s>"),
    "llava_v1": ("two", H1, ("USER", "ASSISTANT"), " ", "</s>"),
    "v1_mmtag": ("two", MM, ("USER", "ASSISTANT"), " ", "</s>"),
    "llava_v0": ("single", H1, ("Human", "Assistant"), "###", None),
    "v0_mmtag": ("single", MM, ("Human", "Assistant"), "###", None),
    "plain": ("plain", "", ("", ""), "\n", None),
    "llava_llama_2": ("llama_2", LLAVA_LLAMA_2, ("USER", "ASSISTANT"), "<s>", "</s>"),
    "mpt": ("mpt", MPT, ("<|im_start|>user\n", "<|im_start|>assistant\n"), "<|im_end|>", None),
}
TEMPLATES["vicuna_v1"] = TEMPLATES["v1"]
TEMPLATES["v0_plain"] = TEMPLATES["plain"]


def render(template, messages):
    """`messages`: user, assistant, user, ... texts; None stands for the answer to come."""
    style, system, roles, sep, sep2 = TEMPLATES[template]
    if style == "llama_2":
        return render_llama_2(system, messages, sep, sep2)
    text = system if style == "plain" else system + sep
    for i, message in enumerate(messages):
        role, end = roles[i % 2], sep if style in ("single", "mpt") else (sep, sep2)[i % 2]
        if style == "plain":
            text += message + end if message else ""
        elif style == "mpt":
            text += role + message + end if message else role
        else:
            text += f"{role}: {message}{end}" if message else f"{role}:"
    return text


def render_llama_2(system, messages, sep, sep2):
    text = ""
    for i, message in enumerate(messages):
        if not message:
            continue
        if i == 0:
            message = f"<<SYS>>\n{system}\n<</SYS>>\n\n{message}"
        text += f"{sep}[INST] {message} [/INST]" if i % 2 == 0 else f" {message} {sep2}"
    return text.lstrip(sep)  # a set of characters, as in the original


def user_message(question, images, start_end=False):
    """The question with one placeholder line per picture in front, unless it already places them itself."""
    if "<image>" in question:
        return question
    placeholder = "<im_start><image><im_end>\n" if start_end else "<image>\n"
    return placeholder * images + question
