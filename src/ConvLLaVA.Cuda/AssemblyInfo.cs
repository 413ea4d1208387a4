using System.Runtime.CompilerServices;

// Every signature is blittable: what C# passes is what the C function receives, under the JIT and under NativeAOT alike.
[assembly: DisableRuntimeMarshalling]
