namespace ConvLLaVA.Engine.Tensors;

/// <summary>How the tokens of one step lie in the KV pages. A step mixes sequences freely: some process a piece of their
/// prompt (several tokens), others decode (one token). All tokens of a step form one matrix, sequence after sequence.
/// Arrays may be longer than what is in use; the counts decide.</summary>
public sealed class PagedBatch
{
    /// <summary>Tokens in the step.</summary>
    public int TokenCount { get; set; }

    /// <summary>Sequences in the step.</summary>
    public int SequenceCount { get; set; }

    /// <summary>Tokens a KV page holds.</summary>
    public int BlockSize { get; set; } = 16;

    /// <summary>Row length of <see cref="BlockTables"/>.</summary>
    public int MaxBlocks { get; set; }

    /// <summary>Position of each token in its sequence, for RoPE and the causal mask. [tokens]</summary>
    public int[] Positions { get; set; } = [];

    /// <summary>Where each token's key and value go: block * BlockSize + offset. [tokens]</summary>
    public int[] Slots { get; set; } = [];

    /// <summary>First row of each sequence, and at the end the token count. [sequences + 1]</summary>
    public int[] QueryStarts { get; set; } = [];

    /// <summary>Tokens of each sequence in the cache once this step has written its own. [sequences]</summary>
    public int[] ContextLengths { get; set; } = [];

    /// <summary>Block numbers of each sequence in order. [sequences, MaxBlocks]</summary>
    public int[] BlockTables { get; set; } = [];

    /// <summary>Rows whose logits are wanted. [outputs]</summary>
    public int[] LogitRows { get; set; } = [];

    /// <summary>Number of <see cref="LogitRows"/> in use.</summary>
    public int LogitCount { get; set; }
}
