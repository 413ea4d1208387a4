"""What the stages share: where things are, how long is left, how the engine is run, how PyTorch is timed."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import site
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "pytorch"))
sys.path.insert(0, str(ROOT / "tools"))
DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


class Skip(Exception):
    """A stage, or part of one, that cannot run here; the message says why."""


class Context:
    """The options of one run of the check, and its clock."""

    def __init__(self, options):
        self.convllava = pathlib.Path(options.convllava).resolve()
        self.out = pathlib.Path(options.out).resolve()
        self.device = options.device
        self.preset = options.preset
        self.parity_presets = options.parity_presets
        self.deadline = time.monotonic() + options.seconds
        self.out.mkdir(parents=True, exist_ok=True)

    def left(self):
        """Seconds until this stage's time is up."""
        return self.deadline - time.monotonic()

    def require(self, seconds, what):
        """Skips `what` when it would not be finished in time."""
        if self.left() < seconds:
            raise Skip(f"{what}: {self.left():.0f} s left of the stage's time, {seconds} s needed")

    def run(self, *arguments, timeout=None, wrapper=(), check=True):
        """Runs the engine's program -> (exit code, stdout, stderr). A failure raises with the last lines it wrote."""
        if not self.convllava.is_file():
            raise Skip(f"there is no program at {self.convllava}; tools/gpu/pack.sh makes it")
        command = [*wrapper, str(self.convllava), *map(str, arguments)]
        timeout = max(1, min(timeout or 1e9, self.left()))
        try:
            done = subprocess.run(command, env=engine_environment(), capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{' '.join(map(str, arguments))}: stopped after {timeout:.0f} s") from None
        if check and done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-12:]
            raise RuntimeError(f"{' '.join(map(str, arguments))}: exit code {done.returncode}: " + "\n".join(said))
        return done.returncode, done.stdout, done.stderr

    def bench(self, *arguments, timeout=None):
        """Runs `convllava bench` -> the object it writes."""
        path = self.out / f"bench-{slug(' '.join(arguments))[:80]}.json"
        self.run("bench", *arguments, "--device", self.device, "--json", path, timeout=timeout)
        return json.loads(path.read_text())


def engine_environment():
    """The engine finds NVIDIA's libraries in the wheels that PyTorch brought, unless the caller points elsewhere."""
    environment = dict(os.environ)
    if "CONVLLAVA_CUDA_PATH" not in environment:
        folders = [*site.getsitepackages(), site.getusersitepackages(), *sys.path]
        found = next((folder for folder in folders if os.path.isdir(os.path.join(folder, "nvidia"))), None)
        if found:
            environment["CONVLLAVA_CUDA_PATH"] = found
    return environment


def versions():
    """Names and versions of everything that takes part."""
    found = {"python": sys.version.split()[0]}
    for name in ("torch", "transformers", "timm", "triton", "numpy"):
        try:
            found[name] = __import__(name).__version__
        except ImportError:
            found[name] = None
    with contextlib.suppress(Exception):
        import torch
        found["cuda of torch"] = torch.version.cuda
        found["cudnn"] = torch.backends.cudnn.version()
    return found


def gpu():
    """Name, driver, clocks and memory as nvidia-smi says them; None without it."""
    fields = ["name", "driver_version", "memory.total", "clocks.max.sm", "clocks.max.mem", "power.limit", "compute_cap", "mig.mode.current"]
    program = shutil.which("nvidia-smi")
    if not program:
        return None
    said = subprocess.run([program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"], capture_output=True, text=True, timeout=30)
    first = said.stdout.strip().splitlines()[:1]
    return dict(zip(fields, [value.strip() for value in first[0].split(",")])) if first else None


def commit():
    """The commit of the working tree, when git and its folder are here."""
    with contextlib.suppress(Exception):
        return subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    return None


def slug(text):
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


# ------------------------------------------------------------------------------------------------ PyTorch
def torch_device(context):
    import torch
    if context.device == "cuda" and not torch.cuda.is_available():
        raise Skip("PyTorch sees no CUDA device")
    return torch.device(context.device)


class Timer:
    """Times calls on the device, with the last-level cache overwritten before each: {median, low, high, runs} in ms."""

    def __init__(self, device):
        import torch
        self.torch, self.device = torch, device
        self.flush = torch.empty(256 << 20, dtype=torch.uint8, device=device) if device.type == "cuda" else None

    def __call__(self, call, runs=20, warmup=3, seconds=10.0):
        for _ in range(warmup):
            call()
        self.synchronize()
        times, started = [], time.monotonic()
        while len(times) < runs and (len(times) < 3 or time.monotonic() - started < seconds):
            times.append(self.once(call))
        times.sort()
        return {"median": statistics.median(times), "low": times[len(times) // 10], "high": times[-1 - len(times) // 10], "runs": len(times)}

    def once(self, call):
        if self.flush is None:
            started = time.perf_counter()
            call()
            return 1e3 * (time.perf_counter() - started)
        self.flush.zero_()
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def synchronize(self):
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()


def attempt(rows, name, call):
    """Adds a row with what `call` returns; a failure becomes a row that says so and the others go on."""
    try:
        rows.append({"name": name, **call()})
    except Skip as reason:
        rows.append({"name": name, "skipped": str(reason)})
    except Exception as error:  # the report must come out whatever happens
        rows.append({"name": name, "failed": f"{type(error).__name__}: {error}"[:600]})
    return rows
