namespace ConvLLaVA.Engine.Text;

/// <summary>A token that is matched literally anywhere in a text, before the merges.</summary>
/// <param name="Content">The text it is written as.</param>
/// <param name="Special">Whether decoding can leave it out.</param>
/// <param name="LeftStrip">Whether it swallows white space on its left.</param>
/// <param name="RightStrip">Whether it swallows white space on its right.</param>
internal sealed record AddedToken(string Content, bool Special, bool LeftStrip = false, bool RightStrip = false);
