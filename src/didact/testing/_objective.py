"""The laws of an objective."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from .._types import EnumerableEnvironment, Objective, ObjectiveOutput, Scored
from ..environments import Hypergrid
from ._forms import form_of, show_form
from ._graph import Paths, graph
from ._laws import Checked, Ledger, fault_at, show
from ._problem import Problem, problem
from ._process import unchanged
from ._statistics import generator

WEIGHT = "log_weight is log R + log P_B - log P_F"
SIGN = "residual is log R + log P_B - log Z - log P_F: positive where a trajectory is too rare"
STEPS = "step residuals are 0 on padding, and sum to the residual"
NO_RESIDUAL = "at the exact optimum no trajectory has a residual"
NO_LOSS = "at the exact optimum there is no loss, and no gradient of it"
STATIONARY = "at the exact optimum the mean gradient of the policy vanishes"
LEARNS = "away from the optimum the loss has a gradient, of log Z if it learns it, of log F too"
PADDING = "padding does not count"
LEFT_OUT = "a trajectory of weight 0 does not count"
PERMUTED = "the order of trajectories does not matter"
DETACHED = "no gradient flows through residuals and log_weight"
SLOPE = "the gradient is the slope of the loss"
FINITE = "losses and gradients are finite, also where residuals are 1e4"
BATCHED = "batched by vmap, it gives what it gives alone"
_STEP = 1e-2


def check_objective(
    objective: Objective,
    *,
    environment: EnumerableEnvironment | None = None,
    key: PRNGKeyArray | None = None,
    semi_gradient: bool = False,
) -> Checked:
    r"""Check the laws of a `didact.objectives.Objective`, on all trajectories of a small
    environment with random rewards and a random P_B, whose exact flows are known.

    - `log_weight` is $w = \log R + \log P_B - \log P_F$. `residual` is $\delta = w - \log Z$ with
      one log Z for the batch: the learned one where it `learns_log_z`, log F(s_0) where it
      `needs_flow`, else an estimate. δ > 0: the sampler draws the trajectory too rarely.
    - At the exact optimum all residuals are 0, and so are a loss that is never negative, and its
      gradient. A loss that can be negative is one of likelihood: there the mean gradient of the
      policy over its own trajectories vanishes.
    - Padding counts for nothing, wherever it is and whatever it holds; nor does a trajectory of
      weight 0. The order of trajectories does not matter.
    - Residuals and weights are detached. The gradient of the loss is its slope, where the loss of
      a trajectory does not depend on the others.
    - Everything is finite, also where residuals are 1e4; what `vmap` makes of it is the same.

    **Arguments:** `environment`: small, and its trajectories not all of one length (None: a grid
    of 4 × 4); `key` of rewards and policies (None: always the same ones); `semi_gradient`: True for
    an objective that holds a part of its loss constant on purpose, whose gradient then is not the
    slope.

    **Errors:** `ConformanceError` for the first law that is broken.
    """
    key = jax.random.key(0) if key is None else key
    ledger = Ledger(objective)
    if not isinstance(objective, Objective):
        ledger.breaks("it is an Objective", "Subclass didact.objectives.Objective.")
    random = generator(key)
    law = graph(Hypergrid(2, 4) if environment is None else environment)
    setting = problem(law, random)
    with unchanged(ledger, objective):
        _check_flags(ledger, objective)
        cases = _Cases(setting, objective, random)
        _check_forms(ledger, objective, cases["away"])
        found = cases.evaluate(objective)
        _check_finite(ledger, found)
        _check_away(ledger, objective, cases, found)
        _check_padding(ledger, cases, found)
        _check_optimum(ledger, cases, found)
        _check_weights(ledger, cases, found)
        _check_gradients(ledger, objective, cases, found, semi_gradient)
        _check_alone(ledger, objective, cases, found)
    return ledger.close(f"{len(cases.end.mask)} trajectories")


def _check_flags(ledger: Ledger, objective: Objective) -> None:
    names = ["needs_flow", "learns_log_z", "pathwise", "needs_novelty"]
    if objective.pathwise is True:
        names.append("path_only")
    for name in names:
        value = getattr(objective, name, None)
        fault = f"{name} is {show(value)}: it must be True or False."
        ledger.holds("what it needs is said by booleans", None if value in (True, False) else fault)


def _check_forms(ledger: Ledger, objective: Objective, scored: Scored) -> None:
    form = form_of(ledger, "the objective", lambda o, s: o(s), objective, scored)
    fault = f"It returns {show_form(form)}."
    is_output = isinstance(form, ObjectiveOutput)
    ledger.holds("it returns an ObjectiveOutput", None if is_output else fault)
    batch, steps = scored.mask.shape
    for name, shape in (
        ("loss", (batch,)),
        ("residual", (batch,)),
        ("log_weight", (batch,)),
        ("step_residual", (batch, steps)),
    ):
        value = getattr(form, name)
        if value is None and name == "step_residual":
            continue
        dtype = getattr(value, "dtype", None)
        right = getattr(value, "shape", None) == shape and dtype == scored.log_pf.dtype
        fault = f"{name} is {show_form(value)}, not {scored.log_pf.dtype}{list(shape)}."
        law = "losses and residuals are one float a trajectory, step residuals one an edge"
        ledger.holds(law, None if right else fault)


class _Found(NamedTuple):
    """What an objective says of a batch."""

    output: ObjectiveOutput
    mean: Array  # the loss as training takes it
    slope: Scored  # gradient of that
    leak: Scored  # gradient of residuals and weights


def _learned(scored: Scored) -> tuple[Any, ...]:
    return scored.log_pf, scored.log_pb, scored.log_flow, scored.log_z


def _with_learned(scored: Scored, part: tuple[Any, ...]) -> Scored:
    log_pf, log_pb, log_flow, log_z = part
    return dataclasses.replace(scored, log_pf=log_pf, log_pb=log_pb, log_flow=log_flow, log_z=log_z)


def _evaluate(objective: Objective, scored: Scored) -> _Found:
    def mean(part: tuple[Any, ...]) -> tuple[Array, ObjectiveOutput]:
        output = objective(_with_learned(scored, part))
        total = jnp.sum(scored.weight * output.loss) / jnp.sum(scored.weight)
        return total, output

    def reported(part: tuple[Any, ...]) -> Array:
        output = objective(_with_learned(scored, part))
        rest = (output.residual, output.step_residual, output.log_weight)
        return sum((jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(rest)), jnp.zeros(()))

    part = _learned(scored)
    (value, output), slope = jax.value_and_grad(mean, has_aux=True)(part)
    leak = jax.grad(reported)(part)
    return _Found(output, value, _with_learned(scored, slope), _with_learned(scored, leak))


@eqx.filter_jit
def _evaluate_all(objective: Objective, scored: Scored) -> _Found:
    return jax.vmap(lambda one: _evaluate(objective, one))(scored)


@eqx.filter_jit
def _evaluate_one(objective: Objective, scored: Scored) -> ObjectiveOutput:
    return objective(scored)


class _Cases:
    """Batches of all trajectories of a problem, each changed in one way.

    All are evaluated in one program, batched by `vmap`.
    """

    def __init__(self, setting: Problem, objective: Objective, random: np.random.Generator):
        self.setting, self._random = setting, random
        self._flow, self._novelty = objective.needs_flow, objective.needs_novelty
        self.end = setting.law.numbered_paths()
        self.front = setting.law.numbered_paths(pad_front=True)
        self.optimum = setting.optimum
        batch = len(self.end.mask)
        self.order = random.permutation(batch)
        self.left_out = np.arange(batch) % 3 == 0
        self.direction = random.normal(size=self.end.mask.shape)
        self._cases = {name: getattr(self, f"_{name}")() for name in self.names}

    names = (
        *("optimum_end", "optimum_front", "own_law", "away", "away_front", "garbage"),
        *("garbage_front", "permuted", "without", "without_other", "other_batch", "higher"),
        *("lower", "far", "forward", "backward"),
    )

    def __getitem__(self, name: str) -> Scored:
        return self._cases[name]

    def evaluate(self, objective: Objective) -> dict[str, _Found]:
        """What the objective says of each."""
        stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *self._cases.values())
        every = jax.tree.map(np.asarray, _evaluate_all(objective, stack))
        return {
            name: jax.tree.map(lambda leaf, i=i: leaf[i], every)
            for i, name in enumerate(self._cases)
        }

    def _make(self, point: Any, paths: Paths) -> Scored:
        scored = self.setting.scored(point, paths, flow=self._flow)
        if self._novelty:  # as it vanishes, so must what it adds
            scored = dataclasses.replace(scored, novelty=jnp.full_like(scored.log_pf, 1e-30))
        return scored

    def _optimum_end(self) -> Scored:
        return self._make(self.optimum, self.end)

    def _optimum_front(self) -> Scored:
        return self._make(self.optimum, self.front)

    def _own_law(self) -> Scored:
        scored = self._optimum_end()
        law = jnp.exp(jnp.sum(scored.log_pf, axis=1))
        return dataclasses.replace(scored, weight=law * len(law))

    def _away(self) -> Scored:
        self.point = self.setting.elsewhere(self._random)
        return self._make(self.point, self.end)

    def _away_front(self) -> Scored:
        return self._make(self.point, self.front)

    def _garbage(self) -> Scored:
        return self._filled(self.end)

    def _garbage_front(self) -> Scored:
        return self._filled(self.front)

    def _filled(self, paths: Paths) -> Scored:
        """Other numbers on padding. The first and the last state are real, wherever it is."""
        scored = self._make(self.point, paths)
        mask = paths.mask

        def fill(leaf: Array, real: np.ndarray) -> Array:
            other = jnp.asarray(self._random.uniform(-9, -2, real.shape), leaf.dtype)
            return jnp.where(real, leaf, other)

        flow = scored.log_flow
        if flow is not None:
            real = np.pad(mask, ((0, 0), (0, 1))) | np.pad(mask, ((0, 0), (1, 0)))
            real[:, [0, -1]] = True
            flow = fill(flow, real)
        return dataclasses.replace(
            scored,
            log_pf=fill(scored.log_pf, mask),
            log_pb=fill(scored.log_pb, mask),
            log_flow=flow,
        )

    def _permuted(self) -> Scored:
        return jax.tree.map(
            lambda leaf: leaf[self.order] if leaf.ndim else leaf, self._make(self.point, self.end)
        )

    def _without(self) -> Scored:
        scored = self._make(self.point, self.end)
        return dataclasses.replace(scored, weight=jnp.where(self.left_out, 0, scored.weight))

    def _without_other(self) -> Scored:
        return self._other_content(self._without())

    def _other_batch(self) -> Scored:
        return self._other_content(self._make(self.point, self.end))

    def _other_content(self, scored: Scored) -> Scored:
        """Other numbers in every third trajectory."""
        row = jnp.asarray(self.left_out)
        here = row[:, None] & scored.mask
        return dataclasses.replace(
            scored,
            log_pf=jnp.where(here, scored.log_pf - 1.5, scored.log_pf),
            log_pb=jnp.where(here, -0.25, scored.log_pb),
        )

    def _shifted(self, amount: Any) -> Scored:
        """Other rewards, which are the log F of terminal states too."""
        scored = self._make(self.point, self.end)
        log_reward = scored.log_reward + amount
        flow = scored.log_flow
        if flow is not None:
            terminal = self.end.states >= self.setting.law.num_internal
            flow = jnp.where(terminal, log_reward[:, None], flow)
        return dataclasses.replace(scored, log_reward=log_reward, log_flow=flow)

    def _higher(self) -> Scored:
        return self._shifted(50.0)

    def _lower(self) -> Scored:
        return self._shifted(-50.0)

    def _far(self) -> Scored:
        sign = np.where(np.arange(len(self.end.mask)) % 2 == 0, 1.0, -1.0)
        return self._shifted(jnp.asarray(1e4 * sign, jnp.result_type(float)))

    def _forward(self) -> Scored:
        return self._moved(_STEP)

    def _backward(self) -> Scored:
        return self._moved(-_STEP)

    def _moved(self, step: float) -> Scored:
        """A step in a random direction, of what is learned."""
        scored = self._make(self.point, self.end)
        along = jnp.asarray(step * self.direction * self.end.mask, scored.log_pf.dtype)
        flow = scored.log_flow
        if flow is not None:
            internal = self.end.states < self.setting.law.num_internal
            towards = jnp.asarray(step * np.pad(self.direction, ((0, 0), (1, 0))), flow.dtype)
            flow = jnp.where(internal, flow + towards, flow)
        return dataclasses.replace(
            scored,
            log_pf=scored.log_pf + along,
            log_pb=scored.log_pb - 0.5 * along,
            log_flow=flow,
            log_z=scored.log_z + step,
        )


def _off(found: Any, wanted: Any) -> np.ndarray:
    """How far numbers are apart, relative to those above 1; NaN counts as far."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    off = np.abs(found - wanted) / np.maximum(np.maximum(np.abs(found), np.abs(wanted)), 1)
    return np.where(np.isnan(off), np.inf, off)


def _same(ledger: Ledger, law: str, what: str, found: Any, wanted: Any, tolerance: float) -> None:
    """Numbers of trajectories that must be equal."""
    off = _off(found, wanted)
    off = off.reshape(len(off), -1).max(axis=1)
    found, wanted = (np.asarray(a).reshape(len(off), -1) for a in (found, wanted))

    def describe(b: int) -> str:
        t = int(np.argmax(_off(found[b], wanted[b])))
        at = f" at its place {t}" if found.shape[1] > 1 else ""
        return f"{what} of trajectory {b}{at} is {found[b, t]:.6g}, and not {wanted[b, t]:.6g}"

    ledger.holds(law, fault_at(off > tolerance, describe, "trajectories"))


def _check_finite(ledger: Ledger, found: dict[str, _Found]) -> None:
    for name, case in found.items():
        values = (case.output, case.mean, _learned(case.slope))
        bad = [not np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(values)]
        size = np.abs(case.output.residual).max()
        fault = f"They are not in the case '{name}', where residuals are up to {size:.3g}."
        ledger.holds(FINITE, fault if any(bad) else None)


def _check_away(
    ledger: Ledger, objective: Objective, cases: _Cases, found: dict[str, _Found]
) -> None:
    """At a point that is not the optimum: what residuals are."""
    scored, output = cases["away"], found["away"].output
    ratio = np.where(scored.mask, np.asarray(scored.log_pb) - np.asarray(scored.log_pf), 0)
    weight = np.asarray(scored.log_reward) + ratio.astype(np.float64).sum(axis=1)
    _same(ledger, WEIGHT, "log_weight", output.log_weight, weight, 1e-4)
    log_z = weight - np.asarray(output.residual)
    if np.ptp(log_z) > 1e-3 and np.ptp(weight + np.asarray(output.residual)) <= 1e-3:
        b = int(np.argmax(np.abs(output.residual)))
        fault = f"It has the opposite sign: {output.residual[b]:.5g} at trajectory {b}."
        ledger.breaks(SIGN, fault)
    allowed = []
    if objective.learns_log_z:
        allowed.append(float(scored.log_z))
    if scored.log_flow is not None:
        allowed.append(float(scored.log_flow[0, 0]))
    best = min(allowed, key=lambda value: abs(value - log_z[0])) if allowed else log_z[0]
    _same(ledger, SIGN, "residual", output.residual, weight - best, 1e-4)
    if output.step_residual is not None:
        steps = np.asarray(output.step_residual)
        on_padding = np.where(scored.mask, 0, steps)
        _same(ledger, STEPS, "a step residual", on_padding, np.zeros_like(steps), 1e-6)
        _same(ledger, STEPS, "residual", output.residual, steps.sum(axis=1), 1e-4)


def _check_optimum(ledger: Ledger, cases: _Cases, found: dict[str, _Found]) -> None:
    for name in ("optimum_end", "optimum_front"):
        output = found[name].output
        zero = np.zeros_like(output.residual)
        _same(ledger, NO_RESIDUAL, "residual", output.residual, zero, 1e-4)
        if output.step_residual is not None:
            steps = output.step_residual
            _same(ledger, NO_RESIDUAL, "a step residual", steps, np.zeros_like(steps), 1e-4)
    losses = [found[name].output.loss for name in ("away", "higher", "lower", "optimum_end")]
    if min(loss.min() for loss in losses) < 0:
        _check_stationary(ledger, cases, found["own_law"])
        return
    scale = max(float(np.abs(found["away"].slope.log_pf).max()), 1e-6)
    for name in ("optimum_end", "optimum_front"):
        output, slope = found[name].output, found[name].slope
        _same(ledger, NO_LOSS, "loss", output.loss, np.zeros_like(output.loss), 1e-6)
        for what in ("log_pf", "log_pb", "log_flow"):
            value = getattr(slope, what)
            if value is not None:
                value = value / scale
                zero = np.zeros_like(value)
                _same(ledger, NO_LOSS, f"the gradient by {what}", value, zero, 1e-3)


def _check_stationary(ledger: Ledger, cases: _Cases, own: _Found) -> None:
    """The gradient by the logits of the policy, summed over its own trajectories."""
    law, paths = cases.setting.law, cases.end
    by_edge = np.zeros(law.child.shape)
    source = np.where(paths.mask, paths.states[:, :-1], 0)
    slope = np.where(paths.mask, own.slope.log_pf, 0)
    np.add.at(by_edge, (source, paths.actions), slope)
    policy = np.where(law.child >= 0, np.exp(cases.optimum.log_pf), 0)
    by_logit = by_edge - policy * by_edge.sum(axis=1, keepdims=True)
    i, a = np.unravel_index(int(np.argmax(np.abs(by_logit))), by_logit.shape)
    fault = f"By the logit of action {a} at state {i} it is {by_logit[i, a]:.4g}."
    limit = 1e-3 * max(float(np.abs(by_edge).max()), 1e-6)
    ledger.holds(STATIONARY, fault if not abs(by_logit[i, a]) <= limit else None)


def _check_padding(ledger: Ledger, cases: _Cases, found: dict[str, _Found]) -> None:
    for name in ("away_front", "garbage", "garbage_front"):
        where = "with padding in front" if name == "away_front" else "with other numbers on padding"
        for what in ("loss", "residual", "log_weight"):
            value, wanted = (getattr(found[n].output, what) for n in (name, "away"))
            _same(ledger, PADDING, f"{where} the {what}", value, wanted, 1e-4)
        for what in ("log_pf", "log_pb"):
            slope, wanted = (getattr(found[n].slope, what).sum(axis=1) for n in (name, "away"))
            _same(ledger, PADDING, f"{where} the gradient by {what}", slope, wanted, 1e-4)
            real = np.asarray(cases[name].mask)
            on_padding = np.where(real, 0, getattr(found[name].slope, what))
            zero = np.zeros_like(on_padding)
            _same(ledger, PADDING, f"on padding the gradient by {what}", on_padding, zero, 0.0)


def _check_weights(ledger: Ledger, cases: _Cases, found: dict[str, _Found]) -> None:
    kept = ~cases.left_out
    one, other = found["without"], found["without_other"]
    for what in ("loss", "residual"):
        value, wanted = (getattr(f.output, what)[kept] for f in (other, one))
        law = f"once those of weight 0 hold other numbers, the {what}"
        _same(ledger, LEFT_OUT, law, value, wanted, 1e-5)
    for what in ("log_pf", "log_pb", "log_flow"):
        value = getattr(other.slope, what)
        if value is not None:
            value = value[~kept]
            law = f"the gradient by {what} of one of weight 0,"
            _same(ledger, LEFT_OUT, law, value, np.zeros_like(value), 0.0)
    for what in ("loss", "residual", "log_weight"):
        value = getattr(found["permuted"].output, what)
        wanted = getattr(found["away"].output, what)[cases.order]
        _same(ledger, PERMUTED, f"in another order the {what}", value, wanted, 1e-4)


def _check_gradients(
    ledger: Ledger,
    objective: Objective,
    cases: _Cases,
    found: dict[str, _Found],
    semi_gradient: bool,
) -> None:
    away = found["away"]
    for what in ("log_pf", "log_pb", "log_flow", "log_z"):
        value = getattr(away.leak, what)
        if value is not None:
            fault = f"There is one by {what}: put them through jax.lax.stop_gradient."
            ledger.holds(DETACHED, fault if np.any(value != 0) else None)
    for what, learns in (
        ("log_pf", True),
        ("log_z", objective.learns_log_z),
        ("log_flow", objective.needs_flow and not objective.learns_log_z),
    ):
        value = getattr(away.slope, what)
        moves = value is not None and bool(np.any(value != 0))
        fault = f"It has {'a' if moves else 'no'} gradient by {what}."
        is_flow = what == "log_flow" and not learns
        ledger.holds(LEARNS, None if moves == learns or is_flow else fault)
    if semi_gradient:
        ledger.leave_out(f"{SLOPE}: semi_gradient")
        return
    _check_slope(ledger, cases, found)


def _check_slope(ledger: Ledger, cases: _Cases, found: dict[str, _Found]) -> None:
    """Against a central difference, where the loss of a trajectory is its own."""
    kept = ~cases.left_out
    alone, beside = (found[name].output.loss[kept] for name in ("away", "other_batch"))
    if np.any(_off(alone, beside) > 1e-5):
        ledger.leave_out(f"{SLOPE}: losses depend on the batch")
        return
    ahead, behind = (_learned(cases[name]) for name in ("forward", "backward"))
    slope = 0.0
    for gradient, a, b in zip(
        jax.tree.leaves(_learned(found["away"].slope)),
        jax.tree.leaves(ahead),
        jax.tree.leaves(behind),
        strict=True,
    ):
        slope += float(np.sum(gradient * (np.asarray(a, np.float64) - np.asarray(b)) / 2 / _STEP))
    difference = float(found["forward"].mean - found["backward"].mean) / 2 / _STEP
    limit = 0.02 * (abs(slope) + abs(difference)) + 0.02
    fault = f"In a random direction it is {slope:.5g}, and the loss changes by {difference:.5g}."
    ledger.holds(SLOPE, fault if not abs(slope - difference) <= limit else None)


def _check_alone(
    ledger: Ledger, objective: Objective, cases: _Cases, found: dict[str, _Found]
) -> None:
    output = jax.tree.map(np.asarray, _evaluate_one(objective, cases["away"]))
    for what in ("loss", "residual", "log_weight"):
        value, wanted = (getattr(o, what) for o in (found["away"].output, output))
        _same(ledger, BATCHED, f"under vmap the {what}", value, wanted, 1e-4)
