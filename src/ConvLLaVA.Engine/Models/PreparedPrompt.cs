namespace ConvLLaVA.Engine.Models;

/// <summary>A request ready to run.</summary>
/// <param name="Text">The prompt after the template, <c>&lt;image&gt;</c> unexpanded.</param>
/// <param name="Ids">Its token ids, -200 for each picture. [T]</param>
/// <param name="Expanded">Ids with every picture replaced by its rows of image features, written -1 - row. [T']</param>
/// <param name="Images">The pictures, or null when there are none.</param>
internal sealed record PreparedPrompt(string Text, int[] Ids, int[] Expanded, PreparedImages? Images)
{
    /// <summary>Visual tokens among <see cref="Expanded"/>.</summary>
    public int ImageTokens => Expanded.Count(id => id < 0);
}
