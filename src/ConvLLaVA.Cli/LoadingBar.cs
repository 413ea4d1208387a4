using ConvLLaVA.Engine;
using Spectre.Console;

namespace ConvLLaVA.Cli;

/// <summary>Shows how far loading has come, on stderr, only when a person is looking.</summary>
internal static class LoadingBar
{
    /// <summary>Runs <paramref name="load"/> under a progress bar.</summary>
    public static Task<ConvLlava> RunAsync(Func<IProgress<LoadProgress>?, Task<ConvLlava>> load) => RunAsync("loading", load);

    /// <summary>Runs <paramref name="load"/> under a progress bar that starts with the name <paramref name="title"/>.</summary>
    public static async Task<T> RunAsync<T>(string title, Func<IProgress<LoadProgress>?, Task<T>> load)
    {
        if (Console.IsErrorRedirected || Console.IsOutputRedirected) return await load(null);
        IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(Console.Error) });
        return await console.Progress()
            .AutoClear(true)
            .HideCompleted(true)
            .Columns(new TaskDescriptionColumn(), new ProgressBarColumn(), new PercentageColumn())
            .StartAsync(context =>
            {
                ProgressTask task = context.AddTask(title, maxValue: 1);
                return load(new Immediate(step =>
                {
                    task.Description = step.Stage;
                    task.Value = step.Fraction;
                }));
            });
    }

    /// <summary>Unlike <see cref="Progress{T}"/> reports on the caller's thread, so that none comes after loading ended.</summary>
    private sealed class Immediate(Action<LoadProgress> report) : IProgress<LoadProgress>
    {
        public void Report(LoadProgress value) => report(value);
    }
}
