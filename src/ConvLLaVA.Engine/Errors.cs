namespace ConvLLaVA.Engine;

/// <summary>Base of every error the engine raises on purpose. The message is one sentence for a person: it names the
/// file, tensor or option, what was found and what was expected.</summary>
public class ConvLlavaException : Exception
{
    /// <summary>Creates the error with its one-sentence message.</summary>
    public ConvLlavaException(string message) : base(message) { }

    /// <summary>Creates the error with its one-sentence message and the error that caused it.</summary>
    public ConvLlavaException(string message, Exception innerException) : base(message, innerException) { }
}

/// <summary>The caller gave something unusable: a broken file, an unknown option, a prompt that cannot fit.
/// The command line ends with exit code 2 on it, and with 1 on any other <see cref="ConvLlavaException"/>.</summary>
public sealed class InvalidInputException : ConvLlavaException
{
    /// <summary>Creates the error with its one-sentence message.</summary>
    public InvalidInputException(string message) : base(message) { }

    /// <summary>Creates the error with its one-sentence message and the error that caused it.</summary>
    public InvalidInputException(string message, Exception innerException) : base(message, innerException) { }
}
