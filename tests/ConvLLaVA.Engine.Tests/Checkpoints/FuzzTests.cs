using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Tensors;
using FsCheck;
using FsCheck.Fluent;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Checkpoints;

/// <summary>Damaged files either open, and then every tensor can be read, or are refused with the engine's own error.</summary>
public sealed class FuzzTests : IDisposable
{
    private readonly TestFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Damaged_safetensors()
    {
        byte[] valid = SafetensorsBytes.Of([("model.a", [2, 3]), ("model.b", [4]), ("c", [])]);
        Assert.True(Survives(valid, ".safetensors"));
        Mutate(valid, ".safetensors", 3000);
    }

    [Fact]
    public void Damaged_torch_archives()
    {
        foreach (string name in (string[])["dtypes.bin", "views.bin", "state-dict.bin", "parameter.bin"])
        {
            byte[] valid = File.ReadAllBytes(Path.Combine(Repository.Fixtures, "torch-bin", name));
            Assert.True(Survives(valid, ".bin"));
            Mutate(valid, ".bin", 1500);
        }
    }

    [Fact]
    public void Every_truncation()
    {
        byte[] safetensors = SafetensorsBytes.Of([("a", [2])]);
        for (int length = 0; length < safetensors.Length; length++) Assert.False(Survives(safetensors[..length], ".safetensors"));
        byte[] archive = File.ReadAllBytes(Path.Combine(Repository.Fixtures, "torch-bin", "parameter.bin"));
        for (int length = 0; length < archive.Length; length++) Assert.False(Survives(archive[..length], ".bin"));
    }

    [Fact]
    public void Damaged_pickles()
    {
        byte[] valid = PickleBytes.One("FloatStorage", "0", 4, 0, [2, 2], [1, 2]);
        Random random = new(5);
        int refused = 0;
        for (int i = 0; i < 20_000; i++)
        {
            try
            {
                PickleReader.Read(Damage(valid, random), "file");
            }
            catch (InvalidInputException)
            {
                refused++;
            }
        }
        Assert.InRange(refused, 1000, 20_000);
    }

    [Fact]
    public void Damaged_configurations()
    {
        byte[] valid = System.Text.Encoding.UTF8.GetBytes("""
            {"model_type":"llava","hidden_size":8,"num_attention_heads":2,"eos_token_id":[2],"rope_scaling":{"type":"linear","factor":2.0},
            "image_grid_pinpoints":"[(1, 2)]","mm_projector_type":"mlp2x_gelu","tokenizer_model_max_length":2048,"torch_dtype":"bfloat16","vocab_size":32000}
            """);
        Assert.Equal(2, LlavaConfig.Load(_folder.Write("config.json", valid)).RopeScalingFactor);
        Random random = new(3);
        int refused = 0;
        for (int i = 0; i < 5000; i++)
        {
            string path = _folder.Write("config.json", Damage(valid, random));
            try
            {
                LlavaConfig.Load(path);
            }
            catch (InvalidInputException error)
            {
                Assert.StartsWith(path, error.Message, StringComparison.Ordinal);
                refused++;
            }
        }
        Assert.InRange(refused, 1000, 5000);
    }

    [Fact]
    public void Arbitrary_opcodes() => Prop.ForAll(
        ArbMap.Default.ArbFor<byte[]>(),
        bytes =>
        {
            try
            {
                PickleReader.Read([0x80, 2, .. bytes, (byte)'.'], "file");
            }
            catch (InvalidInputException error)
            {
                return error.Message.StartsWith("file ", StringComparison.Ordinal);
            }
            return true;
        }).QuickCheckThrowOnFailure();

    [Fact]
    public void Any_shape_of_floats_survives_writing_and_reading() => Prop.ForAll(
        Gen.Choose(0, 5).ListOf().Where(list => list.Count <= 4).ToArbitrary(),
        extents =>
        {
            long[] shape = [.. extents.Select(extent => (long)extent)];
            float[] data = [.. Enumerable.Range(0, (int)shape.Aggregate(1L, (product, extent) => product * extent)).Select(i => i * 0.5f)];
            string path = _folder.At("round.safetensors");
            using (SafetensorsWriter writer = new(path))
            {
                writer.Add("t", shape, data);
                writer.Complete();
            }
            using SafetensorsFile file = SafetensorsFile.Open(path);
            return file.Tensors["t"].Shape.SequenceEqual(shape) && TensorConversion.ToFloat32(file.Tensors["t"]).SequenceEqual(data);
        }).QuickCheckThrowOnFailure();

    private void Mutate(byte[] valid, string extension, int times)
    {
        Random random = new(valid.Length);
        for (int i = 0; i < times; i++) Survives(Damage(valid, random), extension);
    }

    private static byte[] Damage(byte[] valid, Random random)
    {
        byte[] bytes = [.. valid];
        for (int change = random.Next(1, 4); change > 0 && bytes.Length > 1; change--)
        {
            int at = random.Next(bytes.Length);
            switch (random.Next(6))
            {
                case 0: bytes[at] ^= (byte)(1 << random.Next(8)); break;
                case 1: bytes[at] = (byte)random.Next(256); break;
                case 2: bytes[at] = random.Next(2) == 0 ? (byte)0xff : (byte)0; break;
                case 3: bytes = [.. bytes[..at], .. bytes[Math.Min(bytes.Length, at + random.Next(1, 5))..]]; break;
                case 4: bytes = [.. bytes[..at], (byte)random.Next(256), .. bytes[at..]]; break;
                default: bytes = random.Next(4) == 0 ? bytes[..at] : bytes; break;
            }
        }
        return bytes;
    }

    /// <summary>True when the file opens; every byte of its tensors is then read. Any other exception than the engine's fails the test.</summary>
    private bool Survives(byte[] bytes, string extension)
    {
        string path = _folder.Write("fuzz" + extension, bytes);
        try
        {
            using TensorFile file = TensorFile.Open(path);
            long sum = 0;
            foreach (WeightTensor tensor in file.Tensors.Values)
            {
                foreach (byte value in tensor.Bytes) sum += value;
            }
            return sum >= 0;
        }
        catch (InvalidInputException error)
        {
            Assert.Contains(path, error.Message, StringComparison.Ordinal);
            return false;
        }
    }
}
