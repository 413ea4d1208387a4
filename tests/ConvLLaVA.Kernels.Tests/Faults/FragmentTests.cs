using System.Text.Json;
using Xunit;

namespace ConvLLaVA.Kernels.Tests.Faults;

/// <summary>The emulated mma and ldmatrix, element by element, against NVIDIA's own table of who holds what.</summary>
public sealed class FragmentTests
{
    private static string Source => Path.Combine(Repository.Root, "kernels", "emulator", "selftest", "fragments.cu");

    [Theory]
    [InlineData("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", false)]
    [InlineData("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", true)]
    public void A_product_lies_where_the_table_says(string operation, bool bfloat)
    {
        JsonElement table = Table().GetProperty("mma").GetProperty(operation);
        int[][][] a = Places(table, "a_row_k"), b = Places(table, "b_col_k"), c = Places(table, "c_row_col");
        Kernel kernel = Kernel.CompilePath(Source, Storage.F32);
        var random = new Random(3);
        // Small integers: every product and every sum is exact, so each element has one right answer.
        float[,] left = Integers(16, 16, 8), right = Integers(16, 8, 8), start = Integers(16, 8, 500);
        uint[] aRegisters = new uint[128], bRegisters = new uint[64];
        float[] cRegisters = new float[128];
        for (int lane = 0; lane < 32; lane++)
        {
            for (int v = 0; v < 8; v++) aRegisters[(lane * 4) + (v / 2)] |= Bits(left[a[lane][v][0], a[lane][v][1]]) << (16 * (v % 2));
            for (int v = 0; v < 4; v++) bRegisters[(lane * 2) + (v / 2)] |= Bits(right[b[lane][v][1], b[lane][v][0]]) << (16 * (v % 2));
            for (int v = 0; v < 4; v++) cRegisters[(lane * 4) + v] = start[c[lane][v][0], c[lane][v][1]];
        }
        float[] product = EmulatedDevice.InEveryOrder(run =>
        {
            DeviceArray accumulators = run.Upload(cRegisters, Storage.F32);
            run.Launch(kernel, "fragment_mma", new(1), 32, 0, run.Upload<uint>(aRegisters), run.Upload<uint>(bRegisters), accumulators, bfloat ? 1 : 0);
            return run.Read(accumulators);
        });
        for (int lane = 0; lane < 32; lane++)
        {
            for (int v = 0; v < 4; v++)
            {
                int row = c[lane][v][0], column = c[lane][v][1];
                float expected = start[row, column];
                for (int k = 0; k < 16; k++) expected += left[row, k] * right[k, column];
                Assert.Equal(expected, product[(lane * 4) + v]);
            }
        }

        float[,] Integers(int rows, int columns, int largest)
        {
            var values = new float[rows, columns];
            for (int i = 0; i < rows; i++)
            {
                for (int j = 0; j < columns; j++) values[i, j] = random.Next(-largest, largest + 1);
            }
            return values;
        }

        uint Bits(float value) => bfloat ? BitConverter.SingleToUInt32Bits(value) >> 16 : BitConverter.HalfToUInt16Bits((Half)value);
    }

    [Theory]
    [InlineData(2, false)]
    [InlineData(4, false)]
    [InlineData(2, true)]
    [InlineData(4, true)]
    public void A_matrix_arrives_where_the_table_says(int count, bool transposed)
    {
        string operation = $"ldmatrix.sync.aligned.m8n8.x{count}{(transposed ? ".trans" : "")}.shared.b16";
        int[][][][] table = Table().GetProperty("ldmatrix").GetProperty(operation).Deserialize<int[][][][]>()!;
        Kernel kernel = Kernel.CompilePath(Source, Storage.F32);
        // Element (row, column) of matrix m is a number of its own; the rows lie in shared memory in no order.
        uint[] matrices = new uint[128];
        for (int row = 0; row < 32; row++)
        {
            for (int word = 0; word < 4; word++) matrices[(row * 4) + word] = Number(row / 8, row % 8, 2 * word) | (Number(row / 8, row % 8, (2 * word) + 1) << 16);
        }
        int[] places = [.. Enumerable.Range(0, 32).Select(i => i * 13 % 64)];
        foreach (string order in (string[])["forward", "reverse", "random:5"])
        {
            uint[] registers = EmulatedDevice.Run(run =>
            {
                DeviceArray received = run.Allocate(128, Storage.F32);
                run.Launch(kernel, "fragment_ldmatrix", new(1), 32, 0, run.Upload<uint>(matrices), run.Upload<int>(places), received, count, transposed ? 1 : 0);
                return run.Read<uint>(received);
            }, order);
            for (int lane = 0; lane < 32; lane++)
            {
                for (int register = 0; register < count; register++)
                {
                    for (int half = 0; half < 2; half++)
                    {
                        int[] element = table[lane][register][half];
                        Assert.Equal(Number(element[0], element[1], element[2]), (registers[(lane * 4) + register] >> (16 * half)) & 0xffff);
                    }
                }
            }
        }

        static uint Number(int matrix, int row, int column) => (uint)((matrix << 8) | (row << 4) | column);
    }

    private static int[][][] Places(JsonElement table, string name) => table.GetProperty(name).Deserialize<int[][][]>()!;

    private static JsonElement Table()
    {
        string? path = Repository.Shared is { } shared ? Path.Combine(shared, "cuda", "abi", "fragments.json") : null;
        Assert.SkipUnless(File.Exists(path), "The table of fragments (../shared/cuda/abi/fragments.json) is not there.");
        return JsonDocument.Parse(File.ReadAllText(path!)).RootElement;
    }
}
