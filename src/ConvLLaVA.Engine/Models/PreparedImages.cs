using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Models;

/// <summary>The pictures of one request after preprocessing: square 8-bit tiles, all of one size. A picture is one tile, or
/// several with <c>anyres</c>; the tokens of all tiles stand one after the other.</summary>
/// <param name="Tiles">RGB bytes of each tile. [tiles][height, width, 3]</param>
/// <param name="TilesPerImage">Number of tiles of each picture.</param>
/// <param name="Height">Rows of a tile.</param>
/// <param name="Width">Columns of a tile.</param>
/// <param name="Lut">Normalised value of each byte by channel. [3, 256]</param>
/// <param name="TokensPerTile">Visual tokens one tile gives.</param>
internal sealed record PreparedImages(IReadOnlyList<byte[]> Tiles, IReadOnlyList<int> TilesPerImage, int Height, int Width, float[] Lut, int TokensPerTile)
{
    /// <summary>Stands for the pixels and the values they have: other pictures, or the same ones prepared otherwise, have another
    /// number.</summary>
    public UInt128 Key { get; } = PageKeys.OfImages(Tiles, Height, Width, Lut);

    /// <summary>Visual tokens of all pictures.</summary>
    public int Tokens => Tiles.Count * TokensPerTile;

    /// <summary>Visual tokens of picture <paramref name="image"/>.</summary>
    public int TokensOf(int image) => TilesPerImage[image] * TokensPerTile;

    /// <summary>Tile <paramref name="tile"/> as the encoder takes it: one picture at a time, so that the workspace stays small.</summary>
    public ImageBatch Batch(int tile) => new([Tiles[tile]], Height, Width, Lut);
}
