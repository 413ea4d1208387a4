using System.CommandLine;
using System.Text;
using ConvLLaVA.Engine;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Text;

namespace ConvLLaVA.Cli;

/// <summary><c>convllava chat</c>: a conversation in the terminal, answers streamed.</summary>
internal static class ChatCommand
{
    public static Command Create()
    {
        var command = new Command("chat", "Talk about images: /image PATH, /reset, /quit.");
        var image = new Option<string?>("--image", "-i") { Description = "A picture for the first question.", HelpName = "FILE" };
        var template = new Option<string>("--template") { Description = "Conversation template.", DefaultValueFactory = _ => "v1", HelpName = "NAME" };
        var model = new ModelOptions();
        var generation = new GenerationFlags();
        command.Add(image);
        command.Add(template);
        generation.AddTo(command);
        model.AddTo(command);
        command.SetAction(async (parsed, cancellation) =>
        {
            GenerationOptions options = generation.Options(parsed);
            string templateName = parsed.GetValue(template)!;
            ConversationTemplate.Get(templateName);
            await using ConvLlava engine = await model.LoadAsync(parsed, cancellation);
            var chat = new Chat(engine, templateName, options);
            if (parsed.GetValue(image) is { } path) chat.AddImage(path);
            await chat.RunAsync(Console.In, Console.Out, Console.Error, cancellation);
            return Program.Done;
        });
        return command;
    }

    /// <summary>The state of one conversation.</summary>
    private sealed class Chat(ConvLlava engine, string template, GenerationOptions options)
    {
        private readonly List<ChatMessage> _messages = [];
        private readonly List<ImageInput> _pending = [];

        /// <summary>Attaches a picture to the next question.</summary>
        public void AddImage(string path)
        {
            if (!File.Exists(path)) throw new InvalidInputException($"Image '{path}' cannot be read: there is no such file.");
            _pending.Add(ImageInput.FromFile(path));
        }

        public async Task RunAsync(TextReader input, TextWriter output, TextWriter notes, CancellationToken cancellation)
        {
            bool person = !Console.IsInputRedirected;
            while (true)
            {
                if (person) await notes.WriteAsync("USER: ");
                string? line = await input.ReadLineAsync(cancellation);
                if (line is null || line.Trim() == "/quit") return;
                line = line.Trim();
                if (line.Length == 0) continue;
                if (line == "/reset")
                {
                    _messages.Clear();
                    _pending.Clear();
                    await notes.WriteLineAsync("The conversation starts anew.");
                }
                else if (line.StartsWith("/image", StringComparison.Ordinal) && (line.Length == 6 || line[6] == ' '))
                {
                    try
                    {
                        AddImage(line[6..].Trim());
                        await notes.WriteLineAsync("The picture goes with your next question.");
                    }
                    catch (InvalidInputException e)
                    {
                        await notes.WriteLineAsync(e.Message);
                    }
                }
                else if (line[0] == '/' && line.Length > 1 && char.IsAsciiLetter(line[1]) && !line.Contains(' '))
                {
                    await notes.WriteLineAsync($"There is no command '{line}': /image PATH, /reset and /quit are known.");
                }
                else
                {
                    await AnswerAsync(line, output, notes, cancellation);
                }
            }
        }

        private async Task AnswerAsync(string question, TextWriter output, TextWriter notes, CancellationToken cancellation)
        {
            var asked = new ChatMessage(ChatRole.User, question) { Images = [.. _pending] };
            var answer = new StringBuilder();
            try
            {
                await foreach (GenerationUpdate update in engine.GenerateAsync(PromptRequest.Chat([.. _messages, asked]) with { Template = template }, options, cancellation))
                {
                    await output.WriteAsync(update.Text);
                    await output.FlushAsync(cancellation);
                    answer.Append(update.Text);
                }
                await output.WriteLineAsync();
            }
            catch (InvalidInputException e)
            {
                // One bad picture or an overlong history must not end the conversation.
                await notes.WriteLineAsync(e.Message);
                _pending.Clear();
                return;
            }
            _pending.Clear();
            _messages.Add(asked);
            _messages.Add(new ChatMessage(ChatRole.Assistant, answer.ToString().Trim()));
        }
    }
}
