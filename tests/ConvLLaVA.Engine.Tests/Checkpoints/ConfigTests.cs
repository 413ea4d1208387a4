using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Tensors;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Checkpoints;

public sealed class ConfigTests
{
    /// <summary>The published config.json of ConvLLaVA-sft-768.</summary>
    private const string Published = """
        {"_name_or_path":"ConvLLaVA/ConvLLaVA-768","architectures":["LlavaLlamaForCausalLM"],"bos_token_id":1,"eos_token_id":2,
        "freeze_mm_mlp_adapter":false,"hidden_act":"silu","hidden_size":4096,"image_aspect_ratio":"pad","image_grid_pinpoints":null,
        "initializer_range":0.02,"intermediate_size":11008,"max_position_embeddings":4096,"mm_hidden_size":3072,"mm_projector_lr":null,
        "mm_projector_type":"mlp2x_gelu","mm_use_im_patch_token":false,"mm_use_im_start_end":false,"mm_vision_select_feature":"patch",
        "mm_vision_select_layer":-1,"mm_vision_tower":"ConvLLaVA/ConvLLaVA-ConvNeXt-768","model_type":"llava","num_attention_heads":32,
        "num_hidden_layers":32,"num_key_value_heads":32,"pad_token_id":0,"pretraining_tp":1,"rms_norm_eps":1e-05,"rope_scaling":null,
        "rope_theta":10000.0,"tie_word_embeddings":false,"tokenizer_model_max_length":2048,"tokenizer_padding_side":"right",
        "torch_dtype":"bfloat16","transformers_version":"4.33.2","use_cache":false,"use_mm_proj":true,"vocab_size":32000}
        """;

    [Fact]
    public void Published_configuration()
    {
        LlavaConfig config = LlavaConfig.Parse(Published, "config.json");
        Assert.Equal((4096, 11008, 32, 32, 32, 128), (config.HiddenSize, config.IntermediateSize, config.NumHiddenLayers, config.NumAttentionHeads, config.NumKeyValueHeads, config.HeadDim));
        Assert.Equal((1e-5, 10000.0, 1.0, 4096), (config.RmsNormEps, config.RopeTheta, config.RopeScalingFactor, config.MaxPositionEmbeddings));
        Assert.Equal(("mlp2x_gelu", 2, 3072, "ConvLLaVA/ConvLLaVA-ConvNeXt-768"), (config.MmProjectorType, config.MmProjectorLayers, config.MmHiddenSize, config.MmVisionTower));
        Assert.Equal(("pad", "flat", 2048, DType.BFloat16), (config.ImageAspectRatio, config.MmPatchMergeType, config.TokenizerModelMaxLength, config.TorchDType));
        Assert.Equal([2], config.EosTokenIds);
        Assert.Equal(0, config.PadTokenId);
        Assert.False(config.MmUseImPatchToken);
    }

    [Fact]
    public void Published_sizes()
    {
        LlavaConfig config = LlavaConfig.Parse(Published, "config.json");
        VisionConfig vision = VisionConfig.Parse("""{"depths":[3,3,27,3,6],"hidden_sizes":[192,384,768,1536,3072],"num_stages":5,"image_size":768}""", "v");
        Assert.Equal((291, 6_738_415_616), Sum(ExpectedTensors.LanguageModel(config)));
        Assert.Equal((4, 29_368_320), Sum(ExpectedTensors.Projector(config, vision.OutputSize)));
        Assert.Equal((398, 669_161_664), Sum(ExpectedTensors.Vision(vision)));
        Assert.Equal(64, vision.TotalStride);
        // Dropping the last block takes its nine tensors.
        Assert.Equal(398 - 9, Sum(ExpectedTensors.Vision(vision.WithoutLastBlock())).Count);
        Assert.Equal([3, 3, 27, 3, 5], vision.WithoutLastBlock().Depths);
        Assert.Equal([3, 3, 27, 3, 6], vision.WithoutLastBlock().ConfiguredDepths);
    }

    [Fact]
    public void Defaults_of_missing_fields()
    {
        LlavaConfig config = Llava("");
        Assert.Equal(new LlavaConfig { EosTokenIds = config.EosTokenIds, ImageGridPinpoints = config.ImageGridPinpoints }, config);
        Assert.Equal((2048, 1e-6, "linear", true, false), (config.MaxPositionEmbeddings, config.RmsNormEps, config.MmProjectorType, config.MmUseImPatchToken, config.MmUseImStartEnd));
        Assert.Equal([2], config.EosTokenIds);
        Assert.Null(config.ImageAspectRatio);
        Assert.Null(config.TokenizerModelMaxLength);
        Assert.Null(config.PadTokenId);
        Assert.Null(config.MmHiddenSize);
        Assert.Equal(4, Llava("\"num_attention_heads\":4").NumKeyValueHeads);
    }

    [Fact]
    public void Optional_forms()
    {
        Assert.Equal([5, 6], Llava("\"eos_token_id\":[5,6]").EosTokenIds);
        Assert.Equal(80, Llava("\"head_dim\":80").HeadDim);
        Assert.Equal(2.5, Llava("\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}").RopeScalingFactor);
        Assert.Null(Llava("\"tokenizer_model_max_length\":1000000000000000019884624838656").TokenizerModelMaxLength);
        Assert.True(Llava("\"mm_vision_select_layer\":-2").DropsLastVisionBlock);
        Assert.False(Llava("\"mm_vision_select_layer\":-3").DropsLastVisionBlock);
        Assert.Null(Llava("\"pad_token_id\":-1").PadTokenId);
        Assert.Equal([new PixelSize(336, 672), new PixelSize(672, 336)], Llava("\"image_grid_pinpoints\":[[336,672],[672,336]]").ImageGridPinpoints);
        Assert.Equal([new PixelSize(336, 672), new PixelSize(672, 336)], Llava("\"image_grid_pinpoints\":\"[(336, 672), (672, 336),]\"").ImageGridPinpoints);
        Assert.Equal(0, Llava("\"mm_projector_type\":\"identity\"").MmProjectorLayers);
        Assert.Equal(DType.Float16, Llava("\"dtype\":\"float16\"").TorchDType);
    }

    [Theory]
    [InlineData("\"hidden_size\":-1", "\"hidden_size\" is -1, expected an integer from 1 to 1000000")]
    [InlineData("\"hidden_size\":0", "\"hidden_size\" is 0")]
    [InlineData("\"hidden_size\":1000001", "\"hidden_size\" is 1000001")]
    [InlineData("\"hidden_size\":1e300", "\"hidden_size\" is 1e300")]
    [InlineData("\"hidden_size\":4096.5", "\"hidden_size\" is 4096.5")]
    [InlineData("\"hidden_size\":\"4096\"", "\"hidden_size\" is \"4096\"")]
    [InlineData("\"hidden_size\":[1]", "\"hidden_size\" is [1]")]
    [InlineData("\"num_hidden_layers\":1001", "\"num_hidden_layers\" is 1001, expected an integer from 1 to 1000")]
    [InlineData("\"intermediate_size\":99999999999999999999", "\"intermediate_size\" is 99999999999999999999")]
    [InlineData("\"vocab_size\":0", "\"vocab_size\" is 0")]
    [InlineData("\"num_attention_heads\":7", "\"num_attention_heads\" is 7, expected a divisor of hidden_size, which is 4096")]
    [InlineData("\"num_key_value_heads\":5", "\"num_key_value_heads\" is 5, expected a divisor of num_attention_heads, which is 32")]
    [InlineData("\"num_attention_heads\":4096", "\"head_dim\" is 1, expected an even number")]
    [InlineData("\"head_dim\":33", "\"head_dim\" is 33, expected an even number")]
    [InlineData("\"rms_norm_eps\":-1", "\"rms_norm_eps\" is -1")]
    [InlineData("\"rope_theta\":0", "\"rope_theta\" is 0")]
    [InlineData("\"rope_theta\":1e999", "\"rope_theta\" is 1e999")]
    [InlineData("\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}", "\"rope_scaling\" is of type \"dynamic\"")]
    [InlineData("\"rope_scaling\":{\"type\":\"linear\"}", "\"rope_scaling\" is without a factor")]
    [InlineData("\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}", "\"factor\" is 0")]
    [InlineData("\"rope_scaling\":7", "\"rope_scaling\" is 7, expected an object")]
    [InlineData("\"hidden_act\":\"gelu\"", "\"hidden_act\" is \"gelu\", expected \"silu\"")]
    [InlineData("\"attention_bias\":true", "\"attention_bias\" is true, expected false")]
    [InlineData("\"attention_bias\":1", "\"attention_bias\" is 1, expected true or false")]
    [InlineData("\"mm_projector_type\":\"qformer\"", "\"mm_projector_type\" is \"qformer\", expected \"linear\"")]
    [InlineData("\"mm_projector_type\":\"mlpx_gelu\"", "\"mm_projector_type\" is \"mlpx_gelu\"")]
    [InlineData("\"mm_projector_type\":\"mlp999x_gelu\"", "\"mm_projector_type\" is \"mlp999x_gelu\"")]
    [InlineData("\"mm_projector_type\":\"identity\",\"mm_hidden_size\":3072", "\"mm_hidden_size\" is 3072, expected hidden_size")]
    [InlineData("\"bos_token_id\":32000", "\"bos_token_id\" is 32000, expected an integer from 0 to 31999")]
    [InlineData("\"eos_token_id\":[]", "\"eos_token_id\" is [], expected a list of 1 to 64 integers")]
    [InlineData("\"torch_dtype\":\"float64\"", "\"torch_dtype\" is \"float64\"")]
    [InlineData("\"tokenizer_padding_side\":\"up\"", "\"tokenizer_padding_side\" is \"up\"")]
    [InlineData("\"image_grid_pinpoints\":\"__import__('os')\"", "\"image_grid_pinpoints\" is")]
    [InlineData("\"image_grid_pinpoints\":[[1]]", "\"image_grid_pinpoints\" is [1]")]
    [InlineData("\"text_config\":{}", "the layout of the llava-hf conversions")]
    public void Unusable_values(string field, string expected) => Refuses(() => Llava(field), expected);

    [Theory]
    [InlineData("{}", "\"model_type\" is missing, expected \"llava\" or \"llava_llama\"")]
    [InlineData("{\"model_type\":\"mistral\"}", "\"model_type\" is \"mistral\"")]
    [InlineData("[]", "holds a JSON array, expected an object")]
    [InlineData("{\"model_type\":", "not valid JSON")]
    [InlineData("", "not valid JSON")]
    public void Unusable_files(string json, string expected) => Refuses(() => LlavaConfig.Parse(json, "file.json"), expected);

    [Fact]
    public void Huge_file()
    {
        using TestFolder folder = new();
        string path = folder.Write("config.json", new byte[(1 << 20) + 1]);
        InvalidInputException error = Assert.Throws<InvalidInputException>(() => LlavaConfig.Load(path));
        Assert.Contains("is 1048577 bytes long, expected a JSON file of at most 1048576 bytes", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("\"depths\":[3,3],\"hidden_sizes\":[1,2,3]", "\"depths\" is a list of 2, expected one entry for each of the 3 hidden_sizes")]
    [InlineData("\"depths\":[1],\"hidden_sizes\":[8],\"num_stages\":2", "\"num_stages\" is 2, expected 1")]
    [InlineData("\"depths\":[1,1,1,1,1,1,1,1,1]", "\"depths\" is [1,1,1,1,1,1,1,1,1], expected a list of 1 to 8 integers")]
    [InlineData("\"depths\":[0,1,1,1]", "\"depths\" is 0")]
    [InlineData("\"hidden_sizes\":[-8,1,1,1]", "\"hidden_sizes\" is -8")]
    [InlineData("\"hidden_act\":\"gelu_new\"", "\"hidden_act\" is \"gelu_new\"")]
    [InlineData("\"num_channels\":4", "\"num_channels\" is 4")]
    [InlineData("\"patch_size\":0", "\"patch_size\" is 0")]
    [InlineData("\"layer_scale_init_value\":0", "\"layer_scale_init_value\" is 0")]
    [InlineData("\"model_type\":\"clip_vision_model\"", "\"model_type\" is \"clip_vision_model\"")]
    public void Unusable_towers(string field, string expected) => Refuses(() => VisionConfig.Parse("{" + field + "}", "file.json"), expected);

    [Fact]
    public void Preprocessor_forms()
    {
        PreprocessorConfig config = PreprocessorConfig.Parse("""
            {"crop_size":{"height":768,"width":768},"size":{"shortest_edge":768},"resample":3,"rescale_factor":0.00392156862745098,
            "do_center_crop":true,"image_processor_type":"CLIPImageProcessor"}
            """, "p");
        Assert.Equal((768, null, new PixelSize(768, 768), 1 / 255.0), (config.ShortestEdge, config.ResizeTo, config.CropSize, config.RescaleFactor));
        config = PreprocessorConfig.Parse("""{"size":512,"crop_size":512,"do_resize":false}""", "p");
        Assert.Equal((512, new PixelSize(512, 512), false, true, true), (config.ShortestEdge, config.CropSize, config.DoResize, config.DoRescale, config.DoConvertRgb));
        config = PreprocessorConfig.Parse("""{"size":{"height":64,"width":128},"image_mean":[0.1,0.2,0.3]}""", "p");
        Assert.Equal((null, new PixelSize(128, 64), new PixelSize(224, 224)), (config.ShortestEdge, config.ResizeTo, config.CropSize));
        Assert.Equal([0.1, 0.2, 0.3], config.ImageMean);
        Assert.Equal([0.26862954, 0.26130258, 0.27577711], config.ImageStd);
    }

    [Theory]
    [InlineData("\"resample\":2", "\"resample\" is 2, expected 3 (bicubic)")]
    [InlineData("\"size\":0", "\"size\" is 0")]
    [InlineData("\"size\":{\"longest_edge\":5}", "\"size\" is {\"longest_edge\":5}")]
    [InlineData("\"crop_size\":{\"height\":100000,\"width\":1}", "\"height\" is 100000")]
    [InlineData("\"crop_size\":true", "\"crop_size\" is true")]
    [InlineData("\"image_std\":[0,1,1]", "\"image_std\" is 0")]
    [InlineData("\"image_mean\":[0.5]", "\"image_mean\" is [0.5], expected a list of 3 numbers")]
    [InlineData("\"image_processor_type\":\"SiglipImageProcessor\"", "\"image_processor_type\" is \"SiglipImageProcessor\"")]
    public void Unusable_preprocessors(string field, string expected) => Refuses(() => PreprocessorConfig.Parse("{" + field + "}", "file.json"), expected);

    [Fact]
    public void Generation_fields()
    {
        GenerationConfig config = GenerationConfig.Parse("""{"_from_model_config":true,"bos_token_id":1,"eos_token_id":2,"max_length":4096,"pad_token_id":0}""", "g");
        Assert.Equal((false, 1.0, 50, 1.0, 1.0, 4096), (config.DoSample, config.Temperature, config.TopK, config.TopP, config.RepetitionPenalty, config.MaxLength));
        config = GenerationConfig.Parse("""{"temperature":0.9,"top_p":0.6,"do_sample":true,"eos_token_id":[2,3],"repetition_penalty":1.1,"top_k":0}""", "g");
        Assert.Equal((true, 0.9, 0, 0.6, 1.1), (config.DoSample, config.Temperature, config.TopK, config.TopP, config.RepetitionPenalty));
        Assert.Equal([2, 3], config.EosTokenIds);
        Refuses(() => GenerationConfig.Parse("""{"top_p":1.5}""", "file.json"), "\"top_p\" is 1.5, expected a number from 0 to 1");
    }

    private static (int Count, long Parameters) Sum(IEnumerable<ExpectedTensor> tensors)
    {
        List<ExpectedTensor> list = [.. tensors];
        Assert.Equal(list.Count, list.DistinctBy(tensor => tensor.Name).Count());
        return (list.Count, list.Sum(tensor => tensor.Shape.Aggregate(1L, (product, extent) => product * extent)));
    }

    private static LlavaConfig Llava(string field) => LlavaConfig.Parse("{\"model_type\":\"llava_llama\"" + (field.Length > 0 ? "," : "") + field + "}", "file.json");

    private static void Refuses(Func<object> read, string expected)
    {
        InvalidInputException error = Assert.Throws<InvalidInputException>(read);
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.StartsWith("file.json", error.Message, StringComparison.Ordinal);
    }
}
