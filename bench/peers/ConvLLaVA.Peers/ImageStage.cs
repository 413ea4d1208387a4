using System.Security.Cryptography;
using ConvLLaVA.Engine.Images;
using ConvLLaVA.Engine.Instruments;

namespace ConvLLaVA.Peers;

/// <summary>A photo of 12 megapixels made ready for the encoder: decoded, padded to a square, resized, normalised.</summary>
internal sealed class ImageStage(PeerOptions options, PeerRecord record, Action<string> say)
{
    /// <summary>What stands for the precision of weights.</summary>
    public const string Class = "8-bit samples";

    /// <summary>What all of it is called in the record.</summary>
    public const string WholeWork = "photo to encoder input";

    private const string Ours = "this engine";
    private const string Theirs = "Pillow";
    private const int Side = 768;
    private static readonly PreprocessOptions Settings = new() { CropSize = Side, ShortestEdge = Side, Aspect = AspectMode.Pad };

    public void Run()
    {
        record.Times.RemoveAll(time => time.Class == Class);
        record.Checks.RemoveAll(check => check.Class == Class);
        string path = Path.Combine(options.WorkFolder, "photo-4000x3000.jpg");
        if (!File.Exists(path)) Photo.Write(path, 4000, 3000);
        using PillowProcess? pillow = options.Python is { } python ? new PillowProcess(python) : null;
        if (pillow is not null) record.Versions["Pillow"] = pillow.Versions;

        byte[] file = File.ReadAllBytes(path);
        RgbImage decoded = ImageDecoder.Decode(file, path);
        var preprocessor = new ImagePreprocessor(Settings, options.Threads);
        float[] values = new float[3 * Side * Side]; // [3, 768, 768]
        Hold(WholeWork, "prepare", path, () =>
        {
            RgbImage tile = preprocessor.Prepare(ImageDecoder.Decode(File.ReadAllBytes(path), path)).Tiles[0];
            preprocessor.Normalization.Fill(tile.Pixels, values);
            return tile.Pixels;
        }, pillow);
        Hold("decode photo", "decode", path, () => ImageDecoder.Decode(file, path).Pixels, pillow);
        Hold("resize photo", "resize", path, () => PillowResampler.ResizeBicubic(decoded, Side, Side, options.Threads).Pixels, pillow);
    }

    private void Hold(string work, string command, string path, Func<byte[]> run, PillowProcess? pillow)
    {
        say(work);
        byte[] pixels = [];
        string theirs = "";
        List<Contestant> contestants = [new(Ours, Class, () => [Contest.Time(() => pixels = run())])];
        if (pillow is not null)
        {
            contestants.Add(new(Theirs, Class, () =>
            {
                (double ms, theirs) = pillow.Run(command, path, Side);
                return [ms];
            }));
        }
        // These are short: more of them give a steadier median.
        IReadOnlyList<Timing[]> times = Contest.Hold(contestants, 4 * options.Rounds + 1, say);
        for (int i = 0; i < contestants.Count; i++) record.Times.Add(new PeerTime(work, Class, contestants[i].Name, times[i][0], 1));
        if (pillow is null) return;
        bool same = Convert.ToHexStringLower(SHA256.HashData(pixels)) == theirs;
        record.Checks.Add(new PeerCheck(work, Class, Theirs, "samples that differ (0: none, 1: some)", same ? 0 : 1, 0));
        if (!same) throw new InvalidOperationException($"{work}: Pillow's samples differ from this engine's.");
    }
}
