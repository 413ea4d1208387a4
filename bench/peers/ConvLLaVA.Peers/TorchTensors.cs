using ConvLLaVA.Engine.Tensors;
using TorchSharp;

namespace ConvLLaVA.Peers;

/// <summary>Brings this engine's weights to libtorch.</summary>
internal static unsafe class TorchTensors
{
    /// <summary>A copy that libtorch owns, outside every dispose scope.</summary>
    public static torch.Tensor Copy(WeightTensor weight)
    {
        torch.ScalarType type = weight.DType switch
        {
            DType.Float32 => torch.ScalarType.Float32,
            DType.Float16 => torch.ScalarType.Float16,
            _ => torch.ScalarType.BFloat16,
        };
        torch.Tensor tensor = torch.empty([.. weight.Shape], type, torch.CPU);
        weight.Bytes.CopyTo(tensor.bytes);
        return tensor;
    }

    /// <summary>Its values.</summary>
    public static float[] Read(torch.Tensor tensor)
    {
        using torch.Tensor plain = tensor.to(torch.ScalarType.Float32).contiguous();
        return plain.data<float>().ToArray();
    }
}
