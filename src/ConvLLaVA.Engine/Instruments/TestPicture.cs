using System.Buffers.Binary;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>A picture for measurements that no file is needed for.</summary>
internal static class TestPicture
{
    /// <summary>A BMP file of smooth gradients.</summary>
    public static byte[] Bmp(int width, int height)
    {
        int stride = ((width * 3) + 3) & ~3;
        byte[] file = new byte[54 + (stride * height)];
        file[0] = (byte)'B';
        file[1] = (byte)'M';
        BinaryPrimitives.WriteInt32LittleEndian(file.AsSpan(2), file.Length);
        BinaryPrimitives.WriteInt32LittleEndian(file.AsSpan(10), 54);
        BinaryPrimitives.WriteInt32LittleEndian(file.AsSpan(14), 40);
        BinaryPrimitives.WriteInt32LittleEndian(file.AsSpan(18), width);
        BinaryPrimitives.WriteInt32LittleEndian(file.AsSpan(22), height);
        BinaryPrimitives.WriteInt16LittleEndian(file.AsSpan(26), 1);
        BinaryPrimitives.WriteInt16LittleEndian(file.AsSpan(28), 24);
        BinaryPrimitives.WriteInt32LittleEndian(file.AsSpan(34), stride * height);
        for (int y = 0; y < height; y++)
        {
            for (int x = 0; x < width; x++)
            {
                int at = 54 + (y * stride) + (x * 3);
                file[at] = (byte)(x * 255 / width);
                file[at + 1] = (byte)(y * 255 / height);
                file[at + 2] = (byte)((x + y) % 256);
            }
        }
        return file;
    }
}
