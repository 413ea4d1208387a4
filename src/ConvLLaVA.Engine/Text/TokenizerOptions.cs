namespace ConvLLaVA.Engine.Text;

/// <summary>What a checkpoint's <c>config.json</c>, or the caller, decides about the tokenizer.</summary>
public sealed record TokenizerOptions
{
    /// <summary>Overrides the <c>legacy</c> field of <c>tokenizer_config.json</c>; null takes the field, and true where
    /// that is missing, as transformers does.</summary>
    public bool? Legacy { get; init; }

    /// <summary><c>mm_use_im_patch_token</c>: adds the special token <c>&lt;im_patch&gt;</c>.</summary>
    public bool AddImPatchToken { get; init; }

    /// <summary><c>mm_use_im_start_end</c>: adds the special tokens <c>&lt;im_start&gt;</c> and <c>&lt;im_end&gt;</c>.</summary>
    public bool AddImStartEnd { get; init; }
}
