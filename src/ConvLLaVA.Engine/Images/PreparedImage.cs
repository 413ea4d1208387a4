namespace ConvLLaVA.Engine.Images;

/// <summary>A picture made ready for the vision tower.</summary>
/// <param name="Tiles">Square pictures of the crop size: one for <see cref="AspectMode.Pad"/> and <see cref="AspectMode.Default"/>; for
/// <see cref="AspectMode.AnyRes"/> the whole picture, then the grid's tiles row by row.</param>
/// <param name="Width">Columns of the original.</param>
/// <param name="Height">Rows of the original.</param>
/// <param name="GridColumns">Tiles per grid row; 0 without a grid.</param>
/// <param name="GridRows">Grid rows; 0 without a grid.</param>
public sealed record PreparedImage(IReadOnlyList<RgbImage> Tiles, int Width, int Height, int GridColumns, int GridRows);
