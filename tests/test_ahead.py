"""Programs compiled for TPUs that are not here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxvff.cli.main import main
from jaxvff.training import hlo
from jaxvff.training.ahead import CHIPS, Compiled, Work, matmul_flops

ROOT = Path(__file__).resolve().parent.parent


def test_figures_follow_from_what_the_compiler_says() -> None:
    program = Compiled(
        name="x", devices=4, lanes=16, lower_s=1.0, compile_s=2.0, arguments=12_000_000,
        temporaries=4_000_000, code=50_000_000, flops=1.97e9, steps=32,
        work=Work(traffic=8.19e8, cycles=7.5e5, operations=100, picked=0, slowest=()),
    )  # fmt: skip
    chip = CHIPS["v5e"]
    assert program.lane == 1e6
    assert program.lanes_that_fit(chip) == int((0.9 * 16 * 2**30 - 5e7) / 1e6)
    bounds = {"products": 1e-5, "traffic": 1e-3, "estimate": 5e-4}
    assert program.least_s(chip) == pytest.approx(bounds)
    assert program.most_steps_per_s(chip) == pytest.approx(32_000)
    assert program._replace(work=None).least_s(chip) == pytest.approx({"products": 1e-5})


def test_products_in_a_scan_count_as_often_as_it_turns() -> None:
    x = jnp.ones((8, 16))

    def once(y):
        return jnp.tanh(y @ jnp.ones((16, 16)))

    def many(x, n):
        y = jax.lax.scan(lambda y, _: (once(y), None), x, None, length=7)[0]
        y = jax.lax.cond(y[0, 0] > 0, once, lambda y: y, y)
        return jax.lax.fori_loop(0, n, lambda i, y: jax.vmap(once)(y[None])[0], y)

    product = 2 * 8 * 16 * 16
    assert matmul_flops(jax.make_jaxpr(many)(x, 3).jaxpr) == (7 + 1 + 1) * product
    assert matmul_flops(jax.make_jaxpr(jax.jit(once))(x).jaxpr) == product


# As XLA writes it, shortened: a loop over iterations with one of five turns in it.
HLO = """HloModule jit_f

%f (a.6: f32[4,8], b.6: f32[8,8]) -> f32[4,8] {
  %a.6 = f32[4,8]{1,0:T(8,128)} parameter(0)
  %b.6 = f32[8,8]{1,0:T(8,128)} parameter(1)
  ROOT %dot.6 = f32[4,8]{1,0:T(8,128)} convolution(%a.6, %b.6), dim_labels=bf_io->bf
}

%g (a.7: u8[64,3], b.7: u8[2,3]) -> u8[64,3] {
  %a.7 = u8[64,3]{1,0:T(8,128)(4,1)} parameter(0)
  %b.7 = u8[2,3]{1,0:T(8,128)(4,1)} parameter(1)
  %i.7 = s32[]{:T(128)} constant(3)
  ROOT %put.7 = u8[64,3]{1,0:T(8,128)(4,1)} dynamic-update-slice(%a.7, %b.7, %i.7, %i.7)
}

%h (a.8: u8[64,3], i.8: u8[2,3]) -> u8[2,3] {
  %a.8 = u8[64,3]{1,0:T(8,128)(4,1)} parameter(0)
  %bitcast.8 = u8[64,3]{1,0:T(8,128)(4,1)} bitcast(%a.8)
  %i.8 = u8[2,3]{1,0:T(8,128)(4,1)} parameter(1)
  ROOT %gather.8 = u8[2,3]{1,0:T(8,128)(4,1)} gather(%bitcast.8, %bitcast.8), slice_sizes={1,3}
}

%turn (p.1: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p.1 = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)S(1)}) parameter(0)
  %x.1 = f32[4,8]{1,0:T(8,128)S(1)} get-tuple-element(%p.1), index=1
  %w.1 = f32[8,8]{1,0:T(8,128)} custom-call(), custom_call_target="x"
  %fusion.1 = f32[4,8]{1,0:T(8,128)S(1)} fusion(%x.1, %w.1), kind=kOutput, calls=%f, metadata={op_name="jit(f)/inner/dot"}, backend_config={"window_config":{"estimated_cycles":"30"}}
  ROOT %t.1 = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)S(1)}) tuple(%x.1, %fusion.1)
}

%fewer_than_5 (p.2: (s32[], f32[4,8])) -> pred[] {
  %c.2 = s32[]{:T(128)} constant(5)
  %p.2 = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)S(1)}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  ROOT %lt.2 = pred[]{:T(512)} compare(%i.2, %c.2), direction=LT
}

%iteration (p.3: (s32[], u8[64,3], f32[4,8])) -> (s32[], u8[64,3], f32[4,8]) {
  %p.3 = (s32[]{:T(128)}, u8[64,3]{1,0:T(8,128)(4,1)}, f32[4,8]{1,0:T(8,128)}) parameter(0)
  %ring.3 = u8[64,3]{1,0:T(8,128)(4,1)} get-tuple-element(%p.3), index=1
  %row.3 = u8[2,3]{1,0:T(8,128)(4,1)} broadcast()
  %scatter_fusion.3 = u8[64,3]{1,0:T(8,128)(4,1)} fusion(%ring.3, %row.3), kind=kCustom, calls=%g
  %gather_fusion.3 = u8[2,3]{1,0:T(8,128)(4,1)} fusion(%ring.3, %row.3), kind=kCustom, calls=%h
  %start.3 = ((), (), (s32[128]{0:T(1024)}, s32[25]{0:T(1)S(11)})) async-start(), calls=%h
  %update.3 = ((u8[64,3]{1,0:T(8,128)(4,1)}, s32[2]{0:T(1024)}), u8[2,3]{1,0:T(8,128)(4,1)}, (s32[128]{0:T(1024)}, /*index=5*/s32[0]{0})) async-update(%start.3, %ring.3, %row.3), output_to_operand_aliasing={{2,0}: (0, {2,0})}
  %done.3 = u8[2,3]{1,0:T(8,128)(4,1)} async-done(%update.3)
  %while.3 = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)S(1)}) while(%p.3), condition=%fewer_than_5, body=%turn
  ROOT %t.3 = (s32[]{:T(128)}, u8[64,3]{1,0:T(8,128)(4,1)}, f32[4,8]{1,0:T(8,128)}) tuple(%p.3)
}

%below_stop (p.4: (s32[], u8[64,3], f32[4,8])) -> pred[] {
  %p.4 = (s32[]{:T(128)}, u8[64,3]{1,0:T(8,128)(4,1)}, f32[4,8]{1,0:T(8,128)}) parameter(0)
  %i.4 = s32[]{:T(128)} get-tuple-element(%p.4), index=0
  ROOT %lt.4 = pred[]{:T(512)} compare(%i.4, %i.4), direction=LT
}

ENTRY %main (x.5: u8[64,3]) -> u8[64,3] {
  %x.5 = u8[64,3]{1,0:T(8,128)(4,1)} parameter(0)
  %copy.5 = u8[64,3]{0,1:T(8,128)(4,1)} copy(%x.5), backend_config={"window_config":{"estimated_cycles":"1000000"}}
  %while.5 = (s32[]{:T(128)}, u8[64,3]{1,0:T(8,128)(4,1)}, f32[4,8]{1,0:T(8,128)}) while(%copy.5), condition=%below_stop, body=%iteration
  ROOT %r.5 = u8[64,3]{1,0:T(8,128)(4,1)} get-tuple-element(%while.5), index=1
}
"""


def test_an_iteration_is_what_a_turn_of_the_outermost_loop_does() -> None:
    steps = {step.instruction.name: step for step in hlo.read(HLO).iteration()}
    assert [*steps] == [
        "row.3",
        "scatter_fusion.3",
        "gather_fusion.3",
        "start.3",
        "update.3",
        "w.1",
        "fusion.1",
    ]  # not what comes before it
    product = steps["fusion.1"]
    assert (product.times, product.cycles, product.traffic) == (5, 150, 4 * 8 * 8)
    assert product.instruction.source == "jit(f)/inner/dot"
    scatter = steps["scatter_fusion.3"]  # in place: it reads and writes two rows, not the ring
    assert (scatter.times, scatter.instruction.cycles, scatter.traffic) == (1, None, 2 * 6)
    gather = steps["gather_fusion.3"]
    assert (gather.picked, gather.traffic) == (2, 2 * 6)  # of the ring two rows alone
    offloaded = steps["update.3"]  # a gather of the SparseCores of a v5p
    assert (steps["start.3"].traffic, offloaded.traffic, offloaded.picked) == (0, 2 * 6, 0)
    assert product.picked == 0
    with pytest.raises(ValueError, match="no computation is marked as ENTRY"):
        hlo.read(HLO.replace("ENTRY ", ""))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("for=tpu-v9:2x2", "the chip in for='v9' is unknown; choose one of v4, v5e, v5p, v6e"),
        ("for=gpu", "for=gpu names no TPU; write for instance for=tpu-v5e:2x2"),
        ("method=qmix", "for= names no TPU"),
    ],
)
def test_what_is_no_tpu_is_refused(
    asked: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", asked]) == 2
    assert message in capsys.readouterr().err


def test_without_the_compiler_of_tpus_its_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "libtpu", None)
    assert main(["compile", "for=tpu-v5e:2x2"]) == 2
    assert "for=tpu-v5e:2x2 needs the compiler of TPUs, libtpu" in capsys.readouterr().err


@pytest.mark.slow
def test_a_layout_of_chips_that_does_not_exist_is_refused() -> None:
    pytest.importorskip("libtpu", reason="needs `uv sync --extra tpu`")
    done = subprocess.run(
        [sys.executable, "-m", "jaxvff", "compile", "for=tpu-v5e:7x9"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "for=tpu-v5e:7x9 is no layout of chips" in done.stderr
    assert "write for instance for=tpu-v5e:2x2" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "program", [["method=nmqmix"], ["env=predator_prey", "method=qmix", "learner=parallel"]]
)
def test_training_programs_compile_for_a_v5e(program: list[str]) -> None:
    """In a process of its own: JAX has to be told before it is imported."""
    pytest.importorskip("libtpu", reason="needs `uv sync --extra tpu`")
    done = subprocess.run(
        [sys.executable, "-m", "jaxvff", "compile", "for=tpu-v5e:2x2", "seeds=4", *program],
        capture_output=True, text=True, timeout=1200, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 x 4" in done.stdout
    assert "XLA's estimate" in done.stdout
