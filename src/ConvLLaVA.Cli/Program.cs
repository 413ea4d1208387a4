using System.CommandLine;
using ConvLLaVA.Cuda;
using ConvLLaVA.Engine;

namespace ConvLLaVA.Cli;

/// <summary>Entry point: commands, and what every failure looks like to the caller.</summary>
internal static class Program
{
    /// <summary>The command did what was asked.</summary>
    public const int Done = 0;

    /// <summary>Something failed while running.</summary>
    public const int Failed = 1;

    /// <summary>The command line or an input file cannot be used.</summary>
    public const int BadInput = 2;

    public static async Task<int> Main(string[] args)
    {
        var root = new RootCommand("ConvLLaVA: ask questions about images, on any machine.")
        {
            RunCommand.Create(),
            ChatCommand.Create(),
            DumpCommand.Create(),
            TokenizeCommand.Create(),
            InspectCommand.Create(),
            QuantizeCommand.Create(),
            DoctorCommand.Create(),
            SynthCommand.Create(),
            SelftestCommand.Create(),
            BenchCommand.Create(),
            ProfileCommand.Create(),
            KernelsCommand.Create(),
        };
        // A prompt may begin with '@': it never names a file of further arguments.
        ParseResult parsed = root.Parse(args, new ParserConfiguration { ResponseFileTokenReplacer = null });
        if (parsed.Errors.Count > 0)
        {
            // An unknown word is the cause; that a command or option then seems to be missing only follows from it.
            Complain(parsed.UnmatchedTokens is [var unknown, ..]
                ? $"'{unknown}' is not understood here; 'convllava --help' and 'convllava COMMAND --help' say what is."
                : parsed.Errors[0].Message);
            return BadInput;
        }
        try
        {
            return await parsed.InvokeAsync(new InvocationConfiguration { EnableDefaultExceptionHandler = false });
        }
        catch (InvalidInputException e)
        {
            Complain(e.Message);
            return BadInput;
        }
        catch (OperationCanceledException)
        {
            Complain("Cancelled.");
            return Failed;
        }
        catch (IOException) when (StandardOutputIsClosed())
        {
            return Failed; // the reader of a pipe went away: there is nobody to tell
        }
        catch (Exception e) when (e is ConvLlavaException or CudaException or IOException or UnauthorizedAccessException or OutOfMemoryException)
        {
            Complain(e.Message);
            return Failed;
        }
        catch (Exception e) when (Environment.GetEnvironmentVariable("CONVLLAVA_DEBUG") is null or "")
        {
            Complain($"Unexpected failure: {e.GetType().Name}: {e.Message} (set CONVLLAVA_DEBUG=1 for the stack trace).");
            return Failed;
        }
    }

    private static void Complain(string sentence) => Console.Error.WriteLine($"convllava: {sentence}");

    private static bool StandardOutputIsClosed()
    {
        try
        {
            Console.Out.Flush();
            return false;
        }
        catch (IOException)
        {
            return true;
        }
    }
}
