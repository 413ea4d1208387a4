using ConvLLaVA.Engine.Text;
using Xunit;

namespace ConvLLaVA.Engine.Tests.Text;

public class ImagePromptTests
{
    [Theory]
    [InlineData("What?", 0, false, "What?")]
    [InlineData("What?", 1, false, "<image>\nWhat?")]
    [InlineData("What?", 2, false, "<image>\n<image>\nWhat?")]
    [InlineData("Is <image> like <image>?", 2, false, "Is <image> like <image>?")]
    [InlineData("What?", 2, true, "<im_start><image><im_end>\n<im_start><image><im_end>\nWhat?")]
    [InlineData("Is <image> like <im_start><image><im_end>?", 2, true, "Is <im_start><image><im_end> like <im_start><image><im_end>?")]
    [InlineData("", 1, false, "<image>\n")]
    public void Places_the_images(string text, int images, bool useImStartEnd, string expected)
        => Assert.Equal(expected, ImagePrompt.Place(text, images, useImStartEnd));

    [Theory]
    [InlineData("<image>", 0, "The text has 1 <image> placeholder, but 0 images were given.")]
    [InlineData("<image><image>", 1, "The text has 2 <image> placeholders, but 1 image was given.")]
    [InlineData("<image> a", 3, "The text has 1 <image> placeholder, but 3 images were given.")]
    public void Refuses_another_number_of_images(string text, int images, string message)
        => Assert.Equal(message, Assert.Throws<InvalidInputException>(() => ImagePrompt.Place(text, images)).Message);

    [Fact]
    public void Checks_a_whole_prompt()
    {
        ImagePrompt.Check("no images", 0);
        Assert.Throws<InvalidInputException>(() => ImagePrompt.Check("no images", 1));
        Assert.Equal(3, ImagePrompt.Count("<image><image> <image><Image><image"));
    }

    [Theory]
    [InlineData(" a b \n", "a b")]
    [InlineData("\u001c\u001f\u0085\u00a0\u2028\u3000x\u200b\u000b", "x\u200b")]
    [InlineData(" \t ", "")]
    [InlineData("\u180ex\ufeff", "\u180ex\ufeff")]
    public void Strips_like_python(string text, string expected) => Assert.Equal(expected, PythonText.Strip(text));
}
