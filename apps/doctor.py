"""Say what this machine has, which way every operator goes here, and why. python apps/doctor.py --help"""

import argparse
import os
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from anywhere, uninstalled

from dnnlib.options import Options, run
from dnnlib.startup import prepare_process

EXAMPLES = """examples:
  python apps/doctor.py
  python apps/doctor.py --arch=sm_80,sm_90    (compile for these GPUs, which need not be here)
Times are of one call, forward and backward, after two others, in milliseconds: of ours if it is compiled, then of the
twin in torch; "error" is the difference of their results and gradients. Exit code 1: ours is wrong."""
SIDE = 64  # of images and planes, pixels
BOUND = 1e-4  # relative, of results and gradients
ROW = "{:<16}{:<8}{:>10}{:>11}{:>8}  {}"


def architectures(text):
    """The list of --arch."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not (name.startswith("sm_") and name[3:].isdecimal()):
            raise argparse.ArgumentTypeError(f"{name!r} is no GPU architecture; write sm_90 and the like")
    return names


def read_options():
    parser = Options(description=__doc__, epilog=EXAMPLES, usage="python apps/doctor.py [--arch=LIST]")
    parser.add_argument("--arch", type=architectures, metavar="LIST", help="only compile all CUDA texts for these GPUs")
    return parser.parse_args()


def or_why_not(ask):
    """What it says, or why there is nothing to say."""
    from torch_utils.ops.builds import Unavailable

    try:
        return ask()
    except Unavailable as reason:
        return f"none ({reason})"


def versions():
    """Lines on programs and libraries."""
    import numpy
    import torch

    from torch_utils.ops import builds, cubins, gpu, native

    def c_compiler():
        path = native.compiler()
        return f"{path}, {builds.run([path, '--version']).splitlines()[0]}"

    def nvrtc():
        known = cubins.architectures()
        return f"{cubins.compiler('nvrtc')}, for {known[0]} to {known[-1]}"

    yield "Python", f"{platform.python_version()}, NumPy {numpy.__version__}, {platform.platform()}"
    yield "torch", f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}"
    yield "driver", or_why_not(gpu.driver_version)
    yield "C compiler", or_why_not(c_compiler)
    yield "NVRTC", or_why_not(nvrtc)
    yield "nvcc", or_why_not(lambda: f"{cubins.nvcc()}, {cubins.compiler('ninja')}")
    yield "ninja", or_why_not(lambda: " ".join(cubins.ninja()))
    yield "devices", f"cpu ({torch.get_num_threads()} of {os.cpu_count()} threads, {platform.machine()})"
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        memory = found.total_memory / 2**30
        yield "", f"cuda:{index} ({found.name}, {gpu.architecture(index)}, {memory:.0f} GiB)"


def cache_in_words():
    """Where compiled operators are kept, and how much."""
    from torch_utils.ops import builds

    try:
        folder = builds.cache_folder()
        sizes = [file.stat().st_size for file in folder.iterdir() if file.is_file()] if folder.is_dir() else []
    except (OSError, RuntimeError) as error:
        return f"none ({error})"
    return f"{folder}, {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB; all may be deleted"


def cases(device):
    """Operators by name, each with what it is given; all may have gradients."""
    import torch
    from torch import randn

    from torch_utils.ops.bias_act import bias_act
    from torch_utils.ops.conv2d_resample import conv2d_resample
    from torch_utils.ops.ray_march import ray_march
    from torch_utils.ops.triplane_field import triplane_field
    from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d
    from torch_utils.ops.weighted_sum import weighted_sum

    torch.manual_seed(0)
    binomial = setup_filter([1, 3, 3, 1]).to(device)
    image, planes, rays = randn(4, 64, SIDE, SIDE), randn(2, SIDE, SIDE, 3, 32), (2, 4 * SIDE)
    layers = [randn(64, 32) / 6, randn(64), randn(33, 64) / 8, randn(33)]
    origins, directions = torch.tensor([0.0, 0, -1]).expand(*rays, 3), randn(*rays, 3) * 0.2 + torch.tensor([0, 0, 1])
    march = (planes, origins, directions, torch.linspace(0.5, 1.5, 48).expand(*rays, 48), *layers)
    found = {
        "bias_act": (lambda x, b: bias_act(x, b, act="lrelu", clamp=256.0), (image, randn(64))),
        "upfirdn2d": (lambda x: upfirdn2d(x, binomial, up=2, padding=(2, 1), gain=4), (image,)),
        "conv3x3": (lambda x, w: conv2d_resample(x, w, padding=1), (image, randn(64, 64, 3, 3) / 24)),
        "triplane_field": (triplane_field, (planes, randn(2, SIDE**2, 3) / 4, *layers)),
        "weighted_sum": (weighted_sum, (torch.rand(*rays, 48) / 48, randn(*rays, 48, 32))),
        "ray_march": (lambda p, o, d, z, *layers: ray_march(p, o, d, z, layers), march),
    }
    return {name: (op, [t.to(device) for t in inputs]) for name, (op, inputs) in found.items()}


def why_not_ours(name, device):
    """Why an operator is torch's own on that device; None if it is ours."""
    from torch_utils.ops import cubins, gpu, native

    compiled = {"cpu": ("conv3x3", "triplane_field", "weighted_sum"), "cuda": cubins.USUAL}[device.type]
    if name not in compiled:
        return f"none of ours is for {device.type}"
    return native.why_not() if device.type == "cpu" else gpu.why_not(cubins.USUAL[name], device.index, "nvrtc")


def call(op, inputs):
    """Milliseconds of the third call, forward and backward, and all that it finds."""
    import torch

    from training.timing import Stopwatch

    watch = Stopwatch(inputs[0].device)
    moving = [t.detach().clone().requires_grad_() for t in inputs]

    def once():
        found = op(*moving)
        found = list(found) if isinstance(found, tuple) else [found]
        torch.manual_seed(1)
        probes = [torch.randn(t.shape).to(t) for t in found]
        slopes = torch.autograd.grad(found, moving, probes, allow_unused=True)
        return [*found, *(slope for slope in slopes if slope is not None)]

    once()
    once()
    found, seconds = watch.time(once)
    return seconds * 1000, [t.detach() for t in found]


def examined(device):
    """A line for each operator on that device, and whether all that is ours is right."""
    from torch_utils.ops import native

    fine = True
    for name, (op, inputs) in cases(device).items():
        reason = why_not_ours(name, device)
        native.choose("torch")
        slow, expected = call(op, inputs)
        if reason:
            print(ROW.format(name, str(device), "", f"{slow:.2f}", "", f"torch's own: {reason}"))
            continue
        native.choose("auto")
        quick, found = call(op, inputs)
        pairs = zip(found, expected, strict=True)
        error = max(((a - b).norm() / b.norm().clamp_min(1e-30)).item() for a, b in pairs)
        right = error <= BOUND  # no number is not
        fine = fine and right
        words = "compiled" if right else "compiled, and WRONG: use ops=torch"
        print(ROW.format(name, str(device), f"{quick:.2f}", f"{slow:.2f}", f"{error:.0e}", words))
    return fine


def compile_for(archs):
    """Compile all CUDA texts for these GPUs by all compilers that are here."""
    import time

    from torch_utils.ops import cubins
    from torch_utils.ops.builds import Unavailable

    for arch in archs:
        for maker in ("nvrtc", "ninja"):
            started = time.monotonic()
            try:
                paths = cubins.cubins(list(cubins.USUAL.values()), arch, maker)
            except Unavailable as reason:
                print(f"{arch}, ops={'auto' if maker == 'nvrtc' else 'ninja'}: {reason}")
                continue
            size, took = sum(path.stat().st_size for path in paths) / 1000, time.monotonic() - started
            print(f"{arch}, {cubins.compiler(maker)}: {' '.join(cubins.USUAL)}, {size:.0f} kB in {took:.1f} s")


def main():
    args = read_options()
    prepare_process()
    if args.arch:
        compile_for(args.arch)
        return
    import torch

    torch.backends.cudnn.allow_tf32 = False  # twins are to be exact
    for name, words in versions():
        print(f"{name:<12}{words}")
    print(f"\n{ROW.format('operator', 'device', 'ours, ms', 'torch, ms', 'error', '')}")
    devices = [torch.device("cpu"), *(torch.device("cuda", k) for k in range(torch.cuda.device_count()))]
    fine = [examined(device) for device in devices]
    print(f"\n{'cache':<12}{cache_in_words()}")
    if not all(fine):
        raise SystemExit(1)


if __name__ == "__main__":
    run(main)
