using System.Text.RegularExpressions;

namespace ConvLLaVA.Cuda.Tests;

/// <summary>A C type as <c>abi/cuda-13.0.json</c> spells it: the name without qualifiers, and how many pointers deep it is.</summary>
internal readonly record struct CType(string Name, int Pointers)
{
    /// <summary>Reads a type, or a parameter with its name.</summary>
    public static CType Parse(string text, bool hasName)
    {
        int pointers = text.Count(c => c is '*' or '[');
        string[] words = [.. Regex.Replace(text, @"[*\[\]]", " ").Split(' ', StringSplitOptions.RemoveEmptyEntries).Where(word => word != "const")];
        if (hasName && words.Length > 1) words = words[..^1];
        return new CType(string.Join(' ', words), pointers);
    }
}

/// <summary>A C function's declaration.</summary>
internal sealed record CPrototype(CType Returns, string Name, IReadOnlyList<CType> Parameters)
{
    /// <summary>Reads <c>CUresult cuInit(unsigned int Flags)</c>.</summary>
    public static CPrototype Parse(string text)
    {
        Match match = Regex.Match(text, @"^(?<returns>[\w\s*]+?[\s*])(?<name>\w+)\((?<parameters>.*)\)$", RegexOptions.Singleline);
        if (!match.Success) throw new FormatException(text);
        string parameters = match.Groups["parameters"].Value.Trim();
        return new CPrototype(
            CType.Parse(match.Groups["returns"].Value, false),
            match.Groups["name"].Value,
            parameters is "" or "void" ? [] : [.. parameters.Split(',').Select(parameter => CType.Parse(parameter, true))]);
    }
}
