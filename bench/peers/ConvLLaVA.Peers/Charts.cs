using System.Globalization;
using ScottPlot;
using ScottPlot.TickGenerators;

namespace ConvLLaVA.Peers;

/// <summary>Draws the record's pictures.</summary>
internal static class Charts
{
    private const int Width = 1100;
    private const double LongestBar = 3;
    private static readonly Color[] Palette = [Color.FromHex("#1f6fb4"), Color.FromHex("#d9622b"), Color.FromHex("#3a9a4c"), Color.FromHex("#8a56b8"), Color.FromHex("#b23a48"), Color.FromHex("#6b6b6b"), Color.FromHex("#c29b1d")];

    /// <summary>Every operation over the flops it does for a byte, under what the machine allows.</summary>
    public static void Roofline(PeerRecord record, string path)
    {
        if (record.Rates is not { } rates) return;
        Plot plot = New("What each operation reaches", "Flops for a byte that must be moved", "Gflop/s");
        (double Left, double Right) span = (Math.Log10(0.1), Math.Log10(2000));
        double ridge = Math.Log10(rates.FmaGflops / rates.ReadGbS);
        Line(plot, span.Left, Math.Log10(rates.ReadGbS) + span.Left, ridge, Math.Log10(rates.FmaGflops));
        Line(plot, ridge, Math.Log10(rates.FmaGflops), span.Right, Math.Log10(rates.FmaGflops));
        Text(plot, $"fp32 multiply-adds: {rates.FmaGflops:F0} Gflop/s", ridge - 0.55, Math.Log10(rates.FmaGflops) + 0.04, Alignment.LowerLeft);
        Text(plot, $"reading memory: {rates.ReadGbS:F0} GB/s", 0.1, Math.Log10(rates.ReadGbS) - 0.08, Alignment.UpperLeft);
        string[] parts = [.. record.Operations.Select(operation => operation.Part).Distinct()];
        for (int i = 0; i < parts.Length; i++)
        {
            OperationTime[] operations = [.. record.Operations.Where(operation => operation.Part == parts[i] && operation.Flops > 0)];
            var points = plot.Add.ScatterPoints(operations.Select(Intensity).ToArray(), operations.Select(Rate).ToArray());
            points.Color = Palette[i % Palette.Length];
            points.MarkerShape = parts[i].StartsWith("decode", StringComparison.Ordinal) ? MarkerShape.FilledDiamond : parts[i].StartsWith("prefill", StringComparison.Ordinal) ? MarkerShape.FilledSquare : MarkerShape.FilledCircle;
            points.MarkerSize = 9;
            points.LegendText = parts[i];
        }
        plot.Axes.Bottom.TickGenerator = Decades(-1, 4);
        plot.Axes.Left.TickGenerator = Decades(-2, 4);
        plot.Axes.SetLimits(span.Left, span.Right, -0.2, Math.Log10(rates.FmaGflops) + 0.55);
        plot.ShowLegend(Alignment.LowerRight);
        plot.SavePng(path, Width, 640);

        static double Intensity(OperationTime operation) => Math.Log10((double)operation.Flops / operation.Bytes);
        static double Rate(OperationTime operation) => Math.Log10(operation.Flops / operation.Ms / 1e6);
    }

    /// <summary>For each piece of work and each other program, how many times as fast this engine is.</summary>
    public static void Peers(PeerRecord record, string path)
    {
        Comparison[] rows = [.. Comparison.Of(record).Where(row => !row.Work.StartsWith("decode at", StringComparison.Ordinal)).Reverse()];
        if (rows.Length == 0) return;
        string[] peers = [.. Comparison.Of(record).Select(row => row.Program).Distinct()];
        Plot plot = New("This engine's speed beside other programs on the same weights and threads", "times as fast", "");
        // One bar of ten would leave no room to read the others.
        double longest = Math.Min(rows.Max(row => row.Ratio), LongestBar), most = longest * 1.12;
        for (int i = 0; i < rows.Length; i++)
        {
            Comparison row = rows[i];
            var bar = plot.Add.Bar(new Bar
            {
                Position = i,
                Value = Math.Min(row.Ratio, longest),
                Orientation = Orientation.Horizontal,
                FillColor = Palette[Array.IndexOf(peers, row.Program) % Palette.Length],
                LineWidth = 0,
                Size = 0.7,
            });
            bar.Horizontal = true;
            Text(plot, string.Create(CultureInfo.InvariantCulture, $"{row.Ratio:F2}") + (row.Ratio > longest ? " …" : ""), Math.Min(row.Ratio, longest) + (most * 0.008), i, Alignment.MiddleLeft);
        }
        plot.Add.VerticalLine(1, 2, Colors.Black, LinePattern.Dashed);
        plot.Axes.Left.TickGenerator = new NumericManual([.. rows.Select((row, i) => new Tick(i, $"{row.Work}, {row.Ours} / {row.Theirs}"))]);
        plot.Axes.Left.MajorTickStyle.Length = 0;
        plot.Axes.SetLimits(0, most, -0.6, rows.Length - 0.4);
        plot.HideGrid();
        plot.HideLegend();
        plot.SavePng(path, Width, 110 + (34 * rows.Length));
    }

    /// <summary>Tokens a second over the length of the context.</summary>
    public static void Contexts(PeerRecord record, string path)
    {
        const string Prefix = "decode at ";
        var lines = record.Times.Where(time => time.Work.StartsWith(Prefix, StringComparison.Ordinal)).GroupBy(time => time.Contestant).ToArray();
        if (lines.Length == 0) return;
        Plot plot = New("Decoding over the length of the context (four layers of the 7B model)", "tokens of context", "tokens/s");
        string[] classes = [.. record.Times.Where(time => time.Work.StartsWith(Prefix, StringComparison.Ordinal)).Select(time => time.Class).Distinct()];
        foreach (IGrouping<string, PeerTime> line in lines)
        {
            PeerTime[] times = [.. line.OrderBy(Context)];
            var scatter = plot.Add.Scatter(times.Select(Context).ToArray(), times.Select(time => time.PerSecond).ToArray());
            bool ours = line.Key.StartsWith(Comparison.Us, StringComparison.Ordinal);
            scatter.Color = Palette[Array.IndexOf(classes, times[0].Class) % Palette.Length];
            scatter.LineWidth = 2.5f;
            scatter.LinePattern = ours ? LinePattern.Solid : LinePattern.Dashed;
            scatter.MarkerShape = ours ? MarkerShape.FilledCircle : MarkerShape.OpenSquare;
            scatter.MarkerSize = 8;
            scatter.LegendText = line.Key;
        }
        double most = lines.SelectMany(line => line).Max(time => time.PerSecond);
        plot.Axes.SetLimits(0, lines.SelectMany(line => line).Max(Context) * 1.03, 0, most * 1.35);
        plot.ShowLegend(Alignment.UpperRight);
        plot.SavePng(path, Width, 560);

        static double Context(PeerTime time) => double.Parse(time.Work[Prefix.Length..], CultureInfo.InvariantCulture);
    }

    private static Plot New(string title, string bottom, string left)
    {
        var plot = new Plot();
        plot.Font.Set(ChartFont.Name);
        plot.Title(title, 19);
        plot.XLabel(bottom, 15);
        if (left.Length > 0) plot.YLabel(left, 15);
        plot.Axes.Bottom.TickLabelStyle.FontSize = 13;
        plot.Axes.Left.TickLabelStyle.FontSize = 13;
        plot.Legend.FontSize = 13;
        plot.Axes.Margins(0, 0);
        return plot;
    }

    private static void Line(Plot plot, double x1, double y1, double x2, double y2)
    {
        var line = plot.Add.Line(x1, y1, x2, y2);
        line.Color = Colors.Black;
        line.LineWidth = 2;
        line.MarkerSize = 0;
    }

    private static void Text(Plot plot, string text, double x, double y, Alignment alignment)
    {
        var label = plot.Add.Text(text, x, y);
        label.LabelFontSize = 13;
        label.LabelFontName = ChartFont.Name;
        label.LabelAlignment = alignment;
        label.LabelBackgroundColor = Colors.White;
    }

    private static NumericManual Decades(int from, int to)
    {
        var ticks = new NumericManual();
        for (int decade = from; decade <= to; decade++)
        {
            ticks.AddMajor(decade, Math.Pow(10, decade).ToString("0.##", CultureInfo.InvariantCulture));
            for (int step = 2; step < 10; step++) ticks.AddMinor(decade + Math.Log10(step));
        }
        return ticks;
    }
}
