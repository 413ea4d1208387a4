using System.Runtime.InteropServices;
using ConvLLaVA.Engine;
using ConvLLaVA.Peers;
using Microsoft.ML.OnnxRuntime;
using TorchSharp;

PeerOptions options;
try
{
    options = PeerOptions.Parse(args);
    PeerRecord record = PeerRecord.Load(options.Record);
    Directory.CreateDirectory(options.WorkFolder);
    torch.set_num_threads(options.Threads);
    int failed = 0;
    foreach (string stage in options.Stages)
    {
        try
        {
            Run(stage, options, record);
        }
        catch (Exception error) when (error is InvalidOperationException or IOException or ExternalException or OnnxRuntimeException)
        {
            // What the other stages find is worth having all the same.
            Console.Error.WriteLine($"The stage {stage} fails: {error.Message}");
            failed = 1;
        }
        record.Date = DateTimeOffset.UtcNow;
        record.Save(options.Record);
    }
    return failed;
}
catch (Exception error) when (error is ConvLlavaException or IOException)
{
    Console.Error.WriteLine(error.Message);
    return error is InvalidInputException ? 2 : 1;
}

static void Say(string line) => Console.Error.WriteLine(line);

static void Run(string stage, PeerOptions options, PeerRecord record)
{
    switch (stage)
    {
        case "rates": RateStage.Run(options, record, Say); break;
        case "images": new ImageStage(options, record, Say).Run(); break;
        case "encoder": new EncoderStage(options, record, Say).Run(); break;
        case "llama": new LlamaStage(options, record, Say).Run(); break;
        case "context": new ContextStage(options, record, Say).Run(); break;
        case "operations": new OperationStage(options, record, Say).Run(); break;
        case "memory": new MemoryStage(options, record, Say).Run(); break;
        case "report": ReportStage.Run(options, record, Say); break;
    }
}
