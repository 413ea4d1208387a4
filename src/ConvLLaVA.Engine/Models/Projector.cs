using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Models;

/// <summary>Maps visual features to the language model's width: <c>linear</c>, <c>mlpNx_gelu</c> (linear, then N - 1 times exact
/// GELU and linear) or <c>identity</c> (no layers). Source: the original's <c>build_vision_projector</c>.</summary>
internal sealed class Projector
{
    private readonly LinearWeight[] _layers;

    /// <summary>Binds the weights.</summary>
    /// <param name="backend">Where they will be used.</param>
    /// <param name="projectorType"><c>mm_projector_type</c>, already checked.</param>
    /// <param name="layerCount">N of <c>mlpNx_gelu</c>; 1 for <c>linear</c>; 0 for <c>identity</c>.</param>
    /// <param name="weights">Looks a tensor up by its full name.</param>
    public Projector(IBackend backend, string projectorType, int layerCount, Func<string, WeightTensor> weights)
    {
        _layers = new LinearWeight[layerCount];
        for (int i = 0; i < layerCount; i++)
        {
            // nn.Sequential counts the GELUs too, so its linears are 0, 2, 4, …; a single linear has no index at all.
            string name = projectorType == "linear" ? "model.mm_projector" : $"model.mm_projector.{2 * i}";
            _layers[i] = backend.LoadLinear([weights($"{name}.weight")], weights($"{name}.bias"));
        }
    }

    /// <summary>Projects <paramref name="features"/> <c>[tokens, C]</c> into <paramref name="output"/> <c>[tokens, hidden_size]</c>.</summary>
    public void Forward(IBackend backend, Tensor features, Tensor output, Workspace workspace)
    {
        if (_layers.Length == 0)
        {
            backend.Copy(features, output);
            return;
        }
        using var scope = workspace.Open();
        Tensor x = features;
        for (int i = 0; i < _layers.Length; i++)
        {
            bool last = i == _layers.Length - 1;
            Tensor y = last ? output : workspace.Take(x.Rows, _layers[i].OutFeatures); // [tokens, hidden_size]
            backend.Linear(x, _layers[i], last ? Activation.None : Activation.Gelu, y);
            x = y;
        }
    }
}
