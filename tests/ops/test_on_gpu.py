"""Kernels on a GPU that is there: the first thing to run when there is one (pytest -m gpu tests/ops/test_on_gpu.py)."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ops import test_ray_march as march_tests
from tests.ops import test_triplane_field as field_tests
from tests.ops import test_upfirdn2d as upfirdn2d_tests
from tests.ops.compiled import within
from torch_utils.ops import cubins, gpu, native
from torch_utils.ops.bias_act import ACTIVATIONS, bias_act
from torch_utils.ops.builds import Unavailable
from torch_utils.ops.cubins import USUAL
from torch_utils.ops.ray_march import march_twin, ray_march
from torch_utils.ops.triplane_field import triplane_field
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")]
DEVICE = torch.device("cuda", 0)
ROUNDING = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@pytest.fixture(autouse=True)
def launched(monkeypatch):
    """Which kernels were started; a missing one is an error, and twins are exact."""
    names, real = [], native.launch

    def launch(text, kernel, *rest) -> None:
        names.append(kernel)
        real(text, kernel, *rest)

    monkeypatch.setattr(native, "launch", launch)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    native.choose("strict", DEVICE)
    yield names
    native.choose("auto")


def there(inputs: Any) -> list[Tensor]:
    return [t.detach().to(DEVICE) for t in inputs]


def doubled(inputs: Any) -> list[Tensor]:
    return [t.detach().double() for t in inputs]


def with_gradients(op: Any, inputs: list[Tensor], twice: bool = False) -> list[Tensor]:
    """Results, gradients of a random projection, and, if wanted, those of a penalty on the first input's gradient."""
    inputs = [t.detach().clone().requires_grad_() for t in inputs]
    found = op(*inputs)
    found = list(found) if isinstance(found, tuple) else [found]
    draws = torch.Generator().manual_seed(1)
    probes = [torch.randn(t.shape, generator=draws).to(t) for t in found]
    slopes = torch.autograd.grad(found, inputs, probes, allow_unused=True, retain_graph=twice)
    if twice:
        loss = sum((t.square() * probe).sum() for t, probe in zip(found, probes, strict=True))
        (first,) = torch.autograd.grad(loss, inputs[0], create_graph=True)
        slopes += torch.autograd.grad(first.square().sum(), inputs, allow_unused=True)
    return [t.detach() for t in (*found, *slopes) if t is not None]


def compare(op: Any, inputs: list[Tensor], bound: float, twice: bool = False) -> None:
    """The kernel's numbers are those of the twin in double precision."""
    found, expected = with_gradients(op, inputs, twice), with_gradients(op, doubled(inputs), twice)
    for one, exact in zip(found, expected, strict=True):
        within(one, exact, bound)


def test_every_kernel_is_there_and_the_run_is_told():
    said = native.in_words("cuda")
    assert all(name in said for name in USUAL)
    assert "torch's own" not in said
    assert native.version("cuda").startswith("kernels-")


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("last", [False, True])
def test_bias_act(act, last, launched):
    x = torch.randn(3, 5, 67, 41, device=DEVICE)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    b = torch.randn(5, device=DEVICE)
    compare(lambda x, b: bias_act(x, b, act=act, gain=0.7, clamp=0.45), [x, b], 1e-5, twice=True)
    assert set(launched) == {"bias_act_forward", "bias_act_backward"}


@pytest.mark.parametrize("case", upfirdn2d_tests.CASES)
@pytest.mark.parametrize("last", [False, True])
def test_upfirdn2d(case, last, launched):
    up, down, padding, flip = case
    x, f = torch.randn(3, 5, 33, 41, device=DEVICE), torch.randn(3, 2, device=DEVICE)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    compare(lambda x: upfirdn2d(x, f, up=up, down=down, padding=padding, flip_filter=flip), [x], 3e-6, twice=True)
    assert set(launched) == {"upfirdn2d"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, launched):
    x, f = torch.randn(2, 3, 9, 8, device=DEVICE).to(dtype), setup_filter([1, 3, 3, 1]).to(DEVICE)
    found = upfirdn2d(bias_act(x, act="lrelu"), f, up=2, padding=(2, 1), gain=4)
    assert found.dtype == dtype
    assert launched == ["bias_act_forward", "upfirdn2d"]
    exact = upfirdn2d(bias_act(x.double(), act="lrelu"), f.double(), up=2, padding=(2, 1), gain=4)
    within(found, exact, ROUNDING[dtype])


@pytest.mark.parametrize("sizes", [s for s in field_tests.SIZES if s.hidden <= 64], ids=str)
def test_the_field(sizes, launched):
    settings = {"axes": sizes.axes, "box_side": sizes.box_side}
    compare(lambda *t: triplane_field(*t, **settings), there(field_tests.draw(sizes)), 5e-6)
    assert launched == ["field_forward", "field_backward"]


@pytest.mark.parametrize("settings", march_tests.SETTINGS, ids=["softplus", "relu"])
@pytest.mark.parametrize("sizes", [*march_tests.SIZES, march_tests.Sizes(2, 2, 999, 96, 64, 64)], ids=str)
def test_rays(sizes, settings, launched):
    inputs = there(march_tests.draw(sizes))
    compare(lambda *t: ray_march(*t[:4], t[4:], **settings), inputs, 1e-5)
    assert launched == ["march_forward", "march_backward"]


def test_rendering_by_the_kernels_is_rendering(launched):
    from training.layers.fields import TriplaneField
    from training.rendering.hierarchical import RaySettings, ray_draws, render_rays
    from training.rendering.rays import Rays

    planes, origins, directions, *_ = there(march_tests.draw(march_tests.Sizes(2, 2, 300, 1, 32, 32)))
    rays, settings = Rays(origins, directions), RaySettings(near=0.2, far=1.9, samples=(24, 24))
    field = TriplaneField().to(DEVICE)

    def render() -> Tensor:
        return render_rays(field, planes, rays, settings.range(rays, 1.0), settings, ray_draws(rays, (24, 24))).features

    with torch.no_grad():
        found = render()
        assert launched == ["field_forward", "march_forward"]
        native.choose("torch")
        within(found, render().double(), 1e-5)


def test_the_memory_of_a_ray_does_not_depend_on_its_samples():
    peaks = []
    for samples in (16, 256):
        inputs = there(march_tests.draw(march_tests.Sizes(1, 1, 4096, samples, 32, 32)))
        inputs = [t.requires_grad_(k != 3) for k, t in enumerate(inputs)]
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        torch.stack([t.sum() for t in ray_march(*inputs[:4], inputs[4:])]).sum().backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[0] == peaks[1]


def test_kernels_work_on_other_streams_threads_and_devices(launched):
    x = torch.randn(2**20, device=DEVICE)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10**7)
        later = x * 2  # a kernel on another stream would not wait for this
        y = bias_act(later[None], act="relu", gain=1.0)
    stream.synchronize()
    assert torch.equal(y[0], later.relu())
    for index in range(torch.cuda.device_count()):
        moving = x.to(f"cuda:{index}").requires_grad_()
        bias_act(moving[None], act="relu", gain=1.0).sum().backward()  # autograd has threads of its own
        assert torch.equal(moving.grad, (moving > 0).float())
    assert torch.cuda.current_device() == 0


def test_where_every_run_must_give_the_same_bits_it_does(launched):
    inputs = there(march_tests.draw(march_tests.Sizes()))
    try:
        torch.use_deterministic_algorithms(True)
        found = [with_gradients(lambda *t: bias_act(t[0], act="lrelu"), inputs[:1]) for _ in range(2)]
        assert not launched or set(launched) == {"bias_act_forward", "bias_act_backward"}
        ray_march(*inputs[:4], inputs[4:])
        assert "march_forward" not in launched
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_operators_keep_to_the_rules_of_torch():
    ops, x, b = torch.ops.parallax, torch.randn(2, 3, 4, 5, device=DEVICE), torch.randn(3, device=DEVICE)
    moving = x.clone().requires_grad_(), b.clone().requires_grad_()
    torch.library.opcheck(ops.bias_act, (*moving, 1, "lrelu", 0.2, 1.5, 0.8))
    f = setup_filter([1, 3, 3, 1]).to(DEVICE)
    torch.library.opcheck(ops.upfirdn2d, (moving[0], f, [2, 1, 2, 1, 4], [1, 2, 1, 1, 4]))
    exact = ("test_aot_dispatch_static", "test_aot_dispatch_dynamic")  # these add in another order each time
    rest = tuple(f"test_{name}" for name in ("schema", "autograd_registration", "faketensor"))
    inputs = there(march_tests.draw(march_tests.Sizes(1, 1, 2, 3, 2, 2, 2, 3, 2)))
    moving = [t.requires_grad_(k != 3) for k, t in enumerate(inputs)]
    torch.library.opcheck(ops.ray_march, (*moving, "fixed", 1.0, False, -1.0), test_utils=rest)
    torch.library.opcheck(ops.ray_march, (*moving, "fixed", 1.0, False, -1.0), test_utils=exact, rtol=1e-4, atol=1e-5)


def test_nvcc_and_ninja_make_kernels_that_find_the_same(launched):
    try:
        cubins.cubins(list(USUAL.values()), gpu.architecture(0), "ninja")
    except Unavailable as reason:
        pytest.skip(str(reason))
    inputs = there(march_tests.draw(march_tests.Sizes()))
    native.choose("ninja", DEVICE)
    found = ray_march(*inputs[:4], inputs[4:])
    assert launched == ["march_forward"]
    for one, exact in zip(found, march_twin(*doubled(inputs), "fixed", 1.0, False, -1.0), strict=True):
        within(one, exact, 3e-6)


def test_the_doctor_finds_nothing_wrong():
    app = Path(__file__).parents[2] / "apps" / "doctor.py"
    found = subprocess.run([sys.executable, app], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    assert sum(" cuda:0 " in line and line.rstrip().endswith("compiled") for line in found.stdout.splitlines()) == 4
