"""Products in another precision: what changes with it, what does not, and where it is refused."""

import math
import multiprocessing
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agent_factory
import pytest
import torch
import torch.nn.functional as F
from torch.backends import mkldnn
from torch.overrides import TorchFunctionMode
from toy_runs import PLUGIN

from urlbench.agents.choreographer.vq_vae import Codebook
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.knn_entropy import nearest_distances
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.ddpg.proto import neighbour_distance
from urlbench.core import precision, registry
from urlbench.core.errors import UserError
from urlbench.core.interfaces import Precision
from urlbench.core.jobs import Plan
from urlbench.core.precision import check_effect, many_rows, products_in, set_products
from urlbench.core.types import Phase
from urlbench.local.executor import default_options
from urlbench.local.run import run_plan
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunStore
from urlbench.training import evaluation_pool
from urlbench.training.assembly import precision_of, set_up_torch
from urlbench.training.job import run_job

AGENTS = sorted(registry.names("agent"))


def bfloat16_works() -> bool:
    try:
        check_effect("bfloat16", "cpu")
    except UserError:
        return False
    return True


needs_bfloat16 = pytest.mark.skipif(not bfloat16_works(), reason="this CPU has no bfloat16 products")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Runs set the precision of the whole process; other tests shall not see it."""
    with products_in("float32"):
        yield


def plan(*overrides: str, agent: str = "ddpg") -> Plan:
    request = PlanRequest(
        suite="toy-states",
        agents=(agent,),
        tasks=("ball_left",),
        seeds=(0,),
        preset="smoke",
        overrides=overrides,
        plugins=(str(PLUGIN),),
    )
    return make_plan(request)


def set_now() -> tuple[str, str]:
    """torch's names of the precision on GPUs and on CPUs."""
    names = [{backend.fp32_precision for backend in each} for each in (precision._ON_GPUS, precision._ON_CPUS)]
    (gpu,), (cpu,) = names
    return gpu, cpu


def test_the_precision_of_before_comes_back_after_an_error() -> None:
    def fail() -> None:
        assert set_now() == ("ieee", "bf16")
        raise ZeroDivisionError

    set_products("tf32")
    with pytest.raises(ZeroDivisionError), products_in("bfloat16"):
        fail()
    assert set_now() == ("tf32", "tf32")


class Rounding(TorchFunctionMode):
    """A device whose products have factors of a shorter type."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.matmul:
            args = [factor.to(self._dtype).to(factor.dtype) for factor in args]
        return func(*args, **(kwargs or {}))


def test_rounded_factors_are_seen_and_rounded_sums_are_not() -> None:
    """Two libraries' float32 products differ in their last bits, which makes neither of them another precision."""
    assert not precision.rounds_factors("float32", "cpu")
    with Rounding(torch.bfloat16):
        assert precision.rounds_factors("float32", "cpu")
    with Rounding(torch.float32):
        assert not precision.rounds_factors("float32", "cpu")
    with Rounding(torch.float16):  # whose 11 significant bits are TF32's
        assert precision.rounds_factors("float32", "cpu")


@pytest.mark.usefixtures("float64")
def test_the_products_that_show_rounding_are_float32_whatever_type_numbers_have_by_default() -> None:
    seen = []

    class Watching(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if func is torch.Tensor.matmul:
                seen.append(result.dtype)
            return result

    with Watching():
        precision.rounds_factors("float32", "cpu")
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize(("before", "keeps", "expected"), [("float32", True, "bf16"), ("float32", False, "ieee")])
def test_products_of_many_rows_take_onednn_where_it_keeps_float32(
    before: Precision, keeps: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_onednn_keeps_float32", lambda: keeps)
    set_products(before)
    with products_in("float32"), many_rows():
        assert mkldnn.matmul.fp32_precision == expected
        assert mkldnn.conv.fp32_precision == "ieee"
    assert set_now() == ("ieee", "ieee")
    for other, name in (("tf32", "tf32"), ("bfloat16", "bf16")):
        set_products(other)
        with many_rows():
            assert set_now()[1] == name
        assert set_now()[1] == name


@pytest.mark.parametrize("rows", [1, 16, 50, 1000, 2500])
def test_products_of_many_rows_are_float32(rows: int) -> None:
    """Errors against float64 are at most four times float32's own; bfloat16's are a thousand times as large."""
    generator = torch.Generator().manual_seed(rows)
    for inner, columns in ((64, 1000), (400, 400), (1224, 400), (1024, 1024), (33, 5)):
        x, weight = (torch.randn(size, generator=generator) for size in ((rows, inner), (columns, inner)))
        bias = torch.randn(columns, generator=generator)
        exact = F.linear(*(each.double() for each in (x, weight, bias)))
        plain = (F.linear(x, weight, bias) - exact).abs().max()
        with many_rows():
            fast = (F.linear(x, weight, bias) - exact).abs().max()
        assert fast <= 4 * plain, (inner, columns)


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
@pytest.mark.parametrize("name", AGENTS)
def test_every_update_is_one_of_many_rows(name: str, phase: Phase, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def step(self: Optimiser, loss: torch.Tensor) -> torch.Tensor:
        seen.add(mkldnn.matmul.fp32_precision)
        return loss.detach()

    monkeypatch.setattr(Optimiser, "step", step)
    monkeypatch.setattr(precision, "_onednn_keeps_float32", lambda: True)
    agent = agent_factory.build(name)
    if phase == "finetune":
        agent = agent_factory.settled(agent.for_finetuning(agent_factory.context()))
    if agent.schedule.update_every_frames is None:
        assert name in {"random", "ddpg"}
        return
    agent.update(agent_factory.batch_for(agent, size=8, length=6))
    assert seen == {"bf16"}


@needs_bfloat16
def test_distances_are_the_same_at_every_precision() -> None:
    torch.manual_seed(0)
    x, others = 10 + torch.randn(300, 64), torch.randn(300, 64)
    codes = Codebook(40, 64, 0.99)

    def distances() -> list[torch.Tensor]:
        codes.codes.copy_(others[:40])
        assigned = codes.quantise(x).assigned
        codes.resample(x, Draws(0))
        return [nearest_distances(x, 12), neighbour_distance(x, others, 3), assigned, codes.codes.clone()]

    exact, product = distances(), x @ others.T
    with products_in("bfloat16"):
        assert not torch.equal(x @ others.T, product)
        assert all(map(torch.equal, distances(), exact))


@needs_bfloat16
@pytest.mark.parametrize("name", ["ddpg", "cic", "dreamer-lbs", "choreographer"])
def test_updates_in_bfloat16_are_those_in_float32_roughly(name: str) -> None:
    """One update from the same start: all metrics within 2 % or 0.005, four times what was seen, and not all equal."""
    metrics: dict[Precision, dict[str, float]] = {}
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for each in precisions:
        with products_in(each):
            agent = agent_factory.build(name)
            batch = agent_factory.batch_for(agent, size=64, length=6)
            metrics[each] = {key: float(value) for key, value in agent.update(batch).items()}
            parameters = agent.state_dict()
    assert metrics["bfloat16"] != metrics["float32"]
    assert all(math.isfinite(value) for value in metrics["bfloat16"].values())
    assert metrics["bfloat16"] == pytest.approx(metrics["float32"], rel=0.02, abs=0.005)
    assert not {str(tensor.dtype) for tensor in tensors(parameters)} & {"torch.bfloat16", "torch.float16"}


def tensors(state: Any) -> Iterator[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from tensors(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from tensors(value)


@needs_bfloat16
def test_a_run_and_its_evaluations_have_the_precision_of_their_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the processes of evaluations take no signals
    store = RunStore(tmp_path)
    for overrides, expected in ((("agent.precision=bfloat16",), "bf16"), ((), "ieee")):
        (job,) = plan(*overrides).jobs
        directory = store.run_dir(job)
        directory.prepare(job)
        set_products("tf32")
        assert run_job(job, directory, runs_root=tmp_path) == "done"
        assert set_now() == ("ieee", expected)
        set_products("tf32")
        ours, theirs = multiprocessing.Pipe()
        ours.close()
        evaluation_pool._serve(theirs, job.spec, job.plugins, "cpu")
        assert set_now() == ("ieee", expected)


def test_agents_without_the_option_run_in_float32() -> None:
    (job,) = plan(agent="toy").jobs[:1]
    assert precision_of(job.spec) == "float32"
    with pytest.raises(UserError, match=r"unknown key 'precision'"):
        plan("agent.precision=bfloat16", agent="random")


@pytest.mark.parametrize("agent", ["ddpg", "aps", "dreamer", "dreamer-lbs", "choreographer", "edl-dreamer"])
def test_the_precision_makes_another_run_and_float32_the_same_one(agent: str) -> None:
    default, named, other = (
        plan(*overrides, agent=agent) for overrides in ((), ("agent.precision=float32",), ("agent.precision=bfloat16",))
    )
    assert named == default
    for one, another in zip(default.jobs, other.jobs, strict=True):
        assert (one.id, one.path) != (another.id, another.path)
        assert one.spec.agent_config | {"precision": "bfloat16"} == another.spec.agent_config
        assert (precision_of(one.spec), precision_of(another.spec)) == ("float32", "bfloat16")


@pytest.mark.parametrize("asked", ["tf32", "bfloat16"])
def test_a_precision_that_does_nothing_is_refused_before_anything_runs(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_give_torch", lambda *_: None)  # a device that knows float32 alone
    jobs = plan(f"agent.precision={asked}")
    refusal = f"precision={asked} changes no product on the device cpu of this machine"
    with pytest.raises(UserError, match=refusal):
        run_plan(jobs, tmp_path, default_options(1, device="cpu"), None)
    assert list(tmp_path.iterdir()) == []
    directory = RunStore(tmp_path).run_dir(jobs.jobs[0])
    directory.prepare(jobs.jobs[0])
    with pytest.raises(UserError, match=refusal):
        run_job(jobs.jobs[0], directory, runs_root=tmp_path)
    assert not directory.train_file.exists()
    assert set_up_torch("cpu", 1) == "cpu"
