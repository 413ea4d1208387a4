using System.Numerics;
using BenchmarkDotNet.Attributes;
using ConvLLaVA.Engine.Cpu;

namespace ConvLLaVA.Bench.Micro;

/// <summary>Handing work to two threads: the engine's pool beside <c>Parallel.For</c>, with a body that does nothing and with a small product.</summary>
[MemoryDiagnoser]
public class PoolBenchmarks
{
    private const int Threads = 2, Pieces = 8;
    private readonly ParallelOptions _options = new() { MaxDegreeOfParallelism = Threads };
    private readonly Product _product = new();
    private WorkerPool _pool = null!;
    private Action<int> _body = null!;

    /// <summary>Side of the square matrices of the product; 0 does nothing.</summary>
    [Params(0, 64, 128)]
    public int Side { get; set; }

    [GlobalSetup]
    public void Setup()
    {
        _pool = new WorkerPool(Threads);
        _product.Resize(Side);
        _body = _product.Rows;
    }

    [GlobalCleanup]
    public void Cleanup() => _pool.Dispose();

    [Benchmark(Baseline = true)]
    public void Pool()
    {
        var work = new Work(_product);
        _pool.Run(Pieces, 1, ref work);
    }

    [Benchmark]
    public void ParallelFor() => Parallel.For(0, Pieces, _options, _body);

    private readonly struct Work(Product product) : IWork
    {
        public void Do(int first, int end, int worker)
        {
            for (int piece = first; piece < end; piece++) product.Rows(piece);
        }
    }

    /// <summary>A matrix product in pieces of rows, four rows at a time.</summary>
    private sealed class Product
    {
        private int _side;
        private float[] _left = []; // [side, side]
        private float[] _right = []; // [side, side]
        private float[] _result = []; // [side, side]

        public void Resize(int side)
        {
            _side = side;
            _left = new float[side * side];
            _right = new float[side * side];
            _result = new float[side * side];
            Array.Fill(_left, 0.5f);
            Array.Fill(_right, 0.25f);
        }

        public void Rows(int piece)
        {
            int rows = _side / Pieces;
            for (int row = piece * rows; row < (piece + 1) * rows; row += 4)
            {
                for (int column = 0; column < _side; column += Vector<float>.Count)
                {
                    Vector<float> sum0 = default, sum1 = default, sum2 = default, sum3 = default;
                    for (int k = 0; k < _side; k++)
                    {
                        var right = new Vector<float>(_right, (k * _side) + column);
                        sum0 = Vector.FusedMultiplyAdd(new Vector<float>(_left[(row * _side) + k]), right, sum0);
                        sum1 = Vector.FusedMultiplyAdd(new Vector<float>(_left[((row + 1) * _side) + k]), right, sum1);
                        sum2 = Vector.FusedMultiplyAdd(new Vector<float>(_left[((row + 2) * _side) + k]), right, sum2);
                        sum3 = Vector.FusedMultiplyAdd(new Vector<float>(_left[((row + 3) * _side) + k]), right, sum3);
                    }
                    sum0.CopyTo(_result, (row * _side) + column);
                    sum1.CopyTo(_result, ((row + 1) * _side) + column);
                    sum2.CopyTo(_result, ((row + 2) * _side) + column);
                    sum3.CopyTo(_result, ((row + 3) * _side) + column);
                }
            }
        }
    }
}
