using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Images;
using ConvLLaVA.Engine.Models;
using ConvLLaVA.Engine.Text;
using Microsoft.Extensions.Logging;

namespace ConvLLaVA.Engine;

/// <summary>Turns a request into what the engine runs: pictures placed in the turns, the template rendered, the prompt
/// tokenized and expanded, the pictures decoded and preprocessed. Safe to use from several threads.</summary>
internal sealed partial class PromptBuilder
{
    private readonly LlavaConfig _config;
    private readonly VisionConfig _vision;
    private readonly LlamaTokenizer _tokenizer;
    private readonly ImagePreprocessor _preprocessor;
    private readonly ImageLimits _limits;
    private readonly ILogger _logger;
    private readonly float[] _lut; // [3, 256]

    public PromptBuilder(LlavaConfig config, VisionConfig vision, PreprocessorConfig preprocessor, LlamaTokenizer tokenizer, LoadOptions options, ILogger logger)
    {
        _config = config;
        _vision = vision;
        _tokenizer = tokenizer;
        _logger = logger;
        _limits = new ImageLimits { MaxPixels = options.MaxImagePixels };
        (TileHeight, TileWidth) = TileSize(preprocessor);
        _preprocessor = new ImagePreprocessor(ToOptions(config, preprocessor), options.Threads);
        _lut = _preprocessor.Normalization.Values.ToArray();
    }

    /// <summary>Rows of a tile as the vision tower sees it.</summary>
    public int TileHeight { get; }

    /// <summary>Columns of it.</summary>
    public int TileWidth { get; }

    /// <summary>The tile size a preprocessor configuration leads to.</summary>
    public static (int Height, int Width) TileSize(PreprocessorConfig preprocessor) => (preprocessor.CropSize.Height, preprocessor.CropSize.Width);

    /// <summary>The prompt after the template, <c>&lt;image&gt;</c> unexpanded.</summary>
    /// <exception cref="InvalidInputException">The template is unknown, the turns do not fit it, or the numbers of pictures and
    /// placeholders differ.</exception>
    public string Render(PromptRequest request)
    {
        if (request.RawPrompt is { } raw)
        {
            ImagePrompt.Check(raw, request.RawImages.Count);
            return raw;
        }
        ConversationTemplate template = ConversationTemplate.Get(request.Template);
        if (request.Messages is not [.., { Role: ChatRole.User }])
            throw new InvalidInputException("The last message of a conversation must be the user's: there is nothing to answer.");
        return template.RenderForAnswer([.. request.Messages.Select(Turn)]);
    }

    /// <summary>The caller's stop strings and the template's own, unless that is a token the model ends with anyway.</summary>
    public IReadOnlyList<string> StopStrings(PromptRequest request, IReadOnlyList<string> stops)
    {
        if (request.RawPrompt is not null) return stops;
        string own = ConversationTemplate.Get(request.Template).StopString;
        return _tokenizer.TryGetId(own, out int id) && _tokenizer.IsSpecial(id) ? stops : [.. stops, own];
    }

    /// <summary>Prepares a request: everything that can be done before the model runs.</summary>
    /// <exception cref="InvalidInputException">An image or the prompt cannot be used, or the prompt does not fit the model.</exception>
    public PreparedPrompt Prepare(PromptRequest request)
    {
        string text = Render(request);
        int[] ids = _tokenizer.EncodeWithImages(text);
        IReadOnlyList<ImageInput> inputs = request.RawPrompt is not null ? request.RawImages : [.. request.Messages!.SelectMany(message => message.Images)];
        PreparedImages? images = inputs.Count == 0 ? null : PrepareImages(inputs);
        // The original cuts where it splices pictures in; a prompt without any never gets there.
        int[] expanded = CheckLength(Expand(ids, images), request.Truncate && images is not null);
        return new PreparedPrompt(text, ids, expanded, images);
    }

    private ChatTurn Turn(ChatMessage message)
    {
        if (message.Role != ChatRole.User && message.Images.Count > 0)
            throw new InvalidInputException($"A message of the {message.Role.ToString().ToLowerInvariant()} holds {message.Images.Count} image(s), but only user messages can.");
        return message.Role switch
        {
            ChatRole.User => new ChatTurn(ChatRole.User, ImagePrompt.Place(message.Text, message.Images.Count, _config.MmUseImStartEnd)),
            ChatRole.Assistant => new ChatTurn(ChatRole.Assistant, PythonText.Strip(message.Text)),
            _ => new ChatTurn(message.Role, message.Text),
        };
    }

    private PreparedImages PrepareImages(IReadOnlyList<ImageInput> inputs)
    {
        var tiles = new List<byte[]>();
        var tilesPerImage = new List<int>();
        foreach (ImageInput input in inputs)
        {
            PreparedImage prepared = _preprocessor.Prepare(ImageDecoder.Decode(input.Read(), input.Name, _limits), input.Name);
            tiles.AddRange(prepared.Tiles.Select(tile => tile.Pixels));
            tilesPerImage.Add(prepared.Tiles.Count);
        }
        return new PreparedImages(tiles, tilesPerImage, TileHeight, TileWidth, _lut,
            LlavaModel.TokensPerTile(_vision, TileHeight, TileWidth));
    }

    /// <summary>Replaces each -200 by the rows of its picture, in order.</summary>
    private static int[] Expand(int[] ids, PreparedImages? images)
    {
        int placeholders = ids.Count(id => id == LlamaTokenizer.ImageTokenIndex);
        int pictures = images?.TilesPerImage.Count ?? 0;
        if (placeholders != pictures)
            throw new InvalidInputException($"The prompt has {placeholders} <image> placeholder(s) but {pictures} image(s) were given.");
        if (images is null) return ids;
        var expanded = new List<int>(ids.Length + images.Tokens);
        int image = 0, row = 0;
        foreach (int id in ids)
        {
            if (id != LlamaTokenizer.ImageTokenIndex)
            {
                expanded.Add(id);
                continue;
            }
            for (int end = row + images.TokensOf(image++); row < end; row++) expanded.Add(-1 - row);
        }
        return [.. expanded];
    }

    private int[] CheckLength(int[] expanded, bool truncate)
    {
        if (_config.TokenizerModelMaxLength is { } trained && expanded.Length > trained)
        {
            if (truncate) return expanded[..trained];
            if (expanded.Length <= _config.MaxPositionEmbeddings) LogLong(_logger, expanded.Length, trained);
        }
        if (expanded.Length > _config.MaxPositionEmbeddings)
            throw new InvalidInputException($"The prompt has {expanded.Length} tokens after image expansion, but max_position_embeddings of the model is {_config.MaxPositionEmbeddings}.");
        return expanded;
    }

    private static PreprocessOptions ToOptions(LlavaConfig config, PreprocessorConfig preprocessor)
    {
        (int width, int height) = (preprocessor.CropSize.Width, preprocessor.CropSize.Height);
        if (width != height) throw new InvalidInputException($"preprocessor_config.json asks for a crop of {width}x{height} pixels, but only square ones are defined.");
        if (preprocessor.ResizeTo is { } size && (size.Width != width || size.Height != height))
            throw new InvalidInputException($"preprocessor_config.json resizes to {size.Width}x{size.Height} pixels but crops to {width}x{height}; only equal sizes are defined.");
        // The other ways of merging tiles count on a grid that a ConvNeXt tower does not have: they always fail in the original.
        if (config.ImageAspectRatio == "anyres" && config.MmPatchMergeType != "flat")
            throw new InvalidInputException($"config.json asks for mm_patch_merge_type \"{config.MmPatchMergeType}\" with anyres tiles, but only \"flat\" works with a ConvNeXt tower.");
        return new PreprocessOptions
        {
            CropSize = width,
            ShortestEdge = preprocessor.ShortestEdge,
            Mean = preprocessor.ImageMean,
            Std = preprocessor.ImageStd,
            RescaleFactor = preprocessor.RescaleFactor,
            Aspect = config.ImageAspectRatio switch
            {
                "pad" => AspectMode.Pad,
                "anyres" => AspectMode.AnyRes,
                _ => AspectMode.Default,
            },
            GridPinpoints = [.. config.ImageGridPinpoints.Select(grid => (grid.Width, grid.Height))],
            DoResize = preprocessor.DoResize,
            DoCenterCrop = preprocessor.DoCenterCrop,
            DoRescale = preprocessor.DoRescale,
            DoNormalize = preprocessor.DoNormalize,
        };
    }

    [LoggerMessage(EventId = 100, Level = LogLevel.Warning, Message = "The prompt has {Tokens} tokens after image expansion, more than the {Trained} of tokenizer_model_max_length: it runs whole, but the model was trained on shorter ones (--truncate cuts it as the original does).")]
    private static partial void LogLong(ILogger logger, int tokens, int trained);
}
