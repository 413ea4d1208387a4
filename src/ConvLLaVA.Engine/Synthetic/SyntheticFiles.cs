using System.Globalization;
using System.Text;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Synthetic;

/// <summary>The small files of a random checkpoint: configurations as the published ones have them, and the tokenizer.</summary>
internal static class SyntheticFiles
{
    /// <summary>Name of the tower's folder within the checkpoint.</summary>
    public const string TowerFolder = "vision_tower";

    /// <summary>The decoder's configuration as the engine reads it.</summary>
    public static LlavaConfig Config(SyntheticPreset preset, DType dtype) => LlavaConfig.Parse(ConfigJson(preset, dtype), $"synth:{preset.Name}");

    /// <summary>The tower's.</summary>
    public static VisionConfig Vision(SyntheticPreset preset, DType dtype) => VisionConfig.Parse(VisionJson(preset, dtype), $"synth:{preset.Name}");

    /// <summary>Writes them all into <paramref name="folder"/> and the tower's folder inside it.</summary>
    public static void Write(string folder, SyntheticPreset preset, DType dtype)
    {
        string tower = Path.Combine(folder, TowerFolder);
        Directory.CreateDirectory(tower);
        Save(folder, "config.json", ConfigJson(preset, dtype));
        Save(folder, "configuration.json", """{"framework":"Pytorch","task":"multimodal-dialogue"}""");
        Save(folder, "generation_config.json", GenerationJson(preset));
        Save(folder, "special_tokens_map.json", SpecialTokensJson());
        Save(folder, "tokenizer_config.json", TokenizerJson(preset));
        File.WriteAllBytes(Path.Combine(folder, "tokenizer.model"), SyntheticVocabulary.Build(preset.VocabularySize));
        Save(tower, "config.json", VisionJson(preset, dtype));
        Save(tower, "preprocessor_config.json", PreprocessorJson(preset));
    }

    private static void Save(string folder, string name, string json) => File.WriteAllText(Path.Combine(folder, name), json + "\n", new UTF8Encoding(false));

    private static string ConfigJson(SyntheticPreset p, DType dtype) => Invariant($$"""
        {
          "architectures": ["LlavaLlamaForCausalLM"],
          "attention_bias": false,
          "bos_token_id": 1,
          "eos_token_id": 2,
          "freeze_mm_mlp_adapter": false,
          "hidden_act": "silu",
          "hidden_size": {{p.HiddenSize}},
          "image_aspect_ratio": "pad",
          "image_grid_pinpoints": null,
          "initializer_range": 0.02,
          "intermediate_size": {{p.IntermediateSize}},
          "max_position_embeddings": {{p.MaxPositions}},
          "mm_hidden_size": {{p.Widths[^1]}},
          "mm_projector_lr": null,
          "mm_projector_type": "mlp2x_gelu",
          "mm_use_im_patch_token": false,
          "mm_use_im_start_end": false,
          "mm_vision_select_feature": "patch",
          "mm_vision_select_layer": -1,
          "mm_vision_tower": "{{TowerFolder}}",
          "model_type": "llava",
          "num_attention_heads": {{p.Heads}},
          "num_hidden_layers": {{p.Layers}},
          "num_key_value_heads": {{p.KeyValueHeads}},
          "pad_token_id": 0,
          "pretraining_tp": 1,
          "rms_norm_eps": 1e-05,
          "rope_scaling": null,
          "rope_theta": 10000.0,
          "tie_word_embeddings": false,
          "tokenizer_model_max_length": {{p.PromptLength}},
          "tokenizer_padding_side": "right",
          "torch_dtype": "{{dtype.Name()}}",
          "transformers_version": "4.33.2",
          "tune_entire_model": false,
          "tune_mm_mlp_adapter": false,
          "tune_vision_tower": true,
          "use_cache": false,
          "use_mm_proj": true,
          "vision_tower_lr": null,
          "vocab_size": {{p.VocabularySize}}
        }
        """);

    private static string VisionJson(SyntheticPreset p, DType dtype) => Invariant($$"""
        {
          "architectures": ["ConvNextModel"],
          "depths": [{{string.Join(", ", p.Depths)}}],
          "drop_path_rate": 0.0,
          "hidden_act": "gelu",
          "hidden_sizes": [{{string.Join(", ", p.Widths)}}],
          "image_size": {{p.ImageSize}},
          "initializer_range": 0.02,
          "layer_norm_eps": 1e-12,
          "layer_scale_init_value": 1e-06,
          "model_type": "convnext",
          "num_channels": 3,
          "num_stages": {{p.Depths.Length}},
          "out_features": ["stage{{p.Depths.Length}}"],
          "out_indices": [{{p.Depths.Length}}],
          "patch_size": 4,
          "stage_names": ["stem", {{string.Join(", ", Enumerable.Range(1, p.Depths.Length).Select(i => $"\"stage{i}\""))}}],
          "torch_dtype": "{{dtype.Name()}}",
          "transformers_version": "4.33.2"
        }
        """);

    private static string PreprocessorJson(SyntheticPreset p) => Invariant($$"""
        {
          "crop_size": { "height": {{p.ImageSize}}, "width": {{p.ImageSize}} },
          "do_center_crop": true,
          "do_convert_rgb": true,
          "do_normalize": true,
          "do_rescale": true,
          "do_resize": true,
          "image_mean": [0.48145466, 0.4578275, 0.40821073],
          "image_processor_type": "CLIPImageProcessor",
          "image_std": [0.26862954, 0.26130258, 0.27577711],
          "resample": 3,
          "rescale_factor": 0.00392156862745098,
          "size": { "shortest_edge": {{p.ImageSize}} }
        }
        """);

    private static string GenerationJson(SyntheticPreset p) => Invariant($$"""
        {
          "_from_model_config": true,
          "bos_token_id": 1,
          "eos_token_id": 2,
          "max_length": {{p.MaxPositions}},
          "pad_token_id": 0,
          "transformers_version": "4.33.2"
        }
        """);

    private static string SpecialTokensJson() => $$"""
        {
          "bos_token": {{Special("<s>", "")}},
          "eos_token": {{Special("</s>", "")}},
          "pad_token": "<unk>",
          "unk_token": {{Special("<unk>", "")}}
        }
        """;

    private static string TokenizerJson(SyntheticPreset p) => Invariant($$"""
        {
          "add_bos_token": true,
          "add_eos_token": false,
          "bos_token": {{Special("<s>", "\"__type\": \"AddedToken\", ")}},
          "clean_up_tokenization_spaces": false,
          "eos_token": {{Special("</s>", "\"__type\": \"AddedToken\", ")}},
          "legacy": false,
          "model_max_length": {{p.PromptLength}},
          "pad_token": null,
          "padding_side": "right",
          "sp_model_kwargs": {},
          "spaces_between_special_tokens": false,
          "tokenizer_class": "LlamaTokenizer",
          "unk_token": {{Special("<unk>", "\"__type\": \"AddedToken\", ")}},
          "use_default_system_prompt": true
        }
        """);

    private static string Special(string content, string type)
        => $$"""{ {{type}}"content": "{{content}}", "lstrip": false, "normalized": false, "rstrip": false, "single_word": false }""";

    private static string Invariant(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
