using Microsoft.Extensions.Logging;

namespace ConvLLaVA.Cli;

/// <summary>Writes the engine's messages to stderr, one line each, from <paramref name="least"/> upwards.</summary>
internal sealed class StderrLoggerFactory(LogLevel least) : ILoggerFactory
{
    public ILogger CreateLogger(string categoryName) => new Logger(least);

    public void AddProvider(ILoggerProvider provider) => throw new NotSupportedException("This factory writes to stderr only.");

    public void Dispose() { }

    private sealed class Logger(LogLevel least) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel >= least;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            if (IsEnabled(logLevel)) Console.Error.WriteLine($"{logLevel.ToString().ToLowerInvariant()}: {formatter(state, exception)}");
        }
    }
}
