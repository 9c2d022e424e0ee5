"""The laws of an objective."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from .._types import EnumerableEnvironment, Objective, ObjectiveOutput, Scored
from ._cases import COLUMNS, STEP, Cases, make_cases
from ._forms import form_of, show_form
from ._graph import graph, stairs
from ._laws import Checked, Ledger, all_finite, fault_at, show
from ._problem import Batch, problem
from ._process import unchanged
from ._statistics import generator

WEIGHT = "log_weight is log R + log P_B - log P_F"
SIGN = "residual is log R + log P_B - log Z - log P_F: positive where a trajectory is too rare"
STEPS = "step residuals are 0 on padding, and sum to the residual"
NO_RESIDUAL = "at the exact optimum no trajectory has a residual"
NO_LOSS = "at the exact optimum there is no loss, and no gradient of it"
STATIONARY = "at the exact optimum the mean gradient of the policy vanishes"
TOWARDS = (
    "over the target's trajectories the gradient of a likelihood goes the way of that of "
    "KL(target || policy)"
)
ON_PATHS = "a loss through the paths is -c (log R + log P_B - log P_F) and a constant, c > 0"
NO_LOG_Z = "a likelihood has no gradient of log Z"
BESIDE = "where one edge or the reward is not that of the optimum, a trajectory has a loss"
LEARNS = (
    "away from the optimum the loss has a gradient, of log Z if it learns it, of log F too, and of "
    "log P_B if it depends on it"
)
PADDING = "padding does not count"
LEFT_OUT = "a trajectory of weight 0 does not count"
PERMUTED = "the order of trajectories does not matter"
DETACHED = "no gradient flows through residuals and log_weight"
SLOPE = "the gradient is the slope of the loss"
FINITE = "losses and gradients are finite, also where residuals are 1e4"
BATCHED = "batched by vmap, it gives what it gives alone"


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
    - At the exact optimum all residuals are 0, and so are the loss and its gradient; a loss may
      have a kink there, as |δ| has. Once one edge's log P_F or log P_B is another, or the reward,
      every trajectory has a loss.
    - A loss that can be negative, or does not see the reward, is one of likelihood. At the optimum
      the mean gradient of the policy over its own trajectories vanishes, and elsewhere that over
      the target's trajectories has, at each state, about the direction of the gradient of
      KL(target ‖ policy). One through the paths is −c w and a constant, c > 0.
    - Padding counts for nothing, wherever it is, whatever it holds and however much there is; nor
      does a trajectory of weight 0. The order of trajectories does not matter.
    - Residuals and weights are detached. The loss has a gradient by all that it depends on. It is
      the slope of the loss, where the loss of a trajectory does not depend on the others.
    - Everything is finite, also where residuals are 1e4; what `vmap` makes of it is the same.

    **Arguments:** `environment`: small, its trajectories not all of one length, and its ends with
    several parents (None: walks on a grid of 3 × 4 that are like this); `key` of rewards and
    policies (None: always the same ones); `semi_gradient`: True for an objective that holds a part
    of its loss constant on purpose, whose gradient then is not the slope.

    **Errors:** `ConformanceError` for the first law that is broken.
    """
    key = jax.random.key(0) if key is None else key
    ledger = Ledger(objective)
    ledger.must_be(Objective, "objectives")
    random = generator(key)
    law = stairs(3, 4) if environment is None else graph(environment)
    setting = problem(law, random)
    with unchanged(ledger, objective):
        _check_flags(ledger, objective)
        cases = make_cases(setting, random)
        _check_forms(ledger, objective, cases["away"])
        found = _find(objective, cases)
        _check_finite(ledger, found)
        _check_away(ledger, objective, cases, found)
        _check_padding(ledger, cases, found)
        _check_optimum(ledger, objective, cases, found)
        _check_weights(ledger, cases, found)
        _check_gradients(ledger, objective, cases, found, semi_gradient)
        _check_alone(ledger, objective, cases, found)
    return ledger.close(f"{len(cases.paths.mask)} trajectories")


def _check_flags(ledger: Ledger, objective: Objective) -> None:
    names = ["needs_flow", "learns_log_z", "pathwise", "needs_novelty"]
    if objective.pathwise is True:
        names.append("path_only")
    for name in names:
        value = getattr(objective, name, None)
        fault = f"{name} is {show(value)}: it must be True or False."
        ledger.holds("what it needs is said by booleans", None if value in (True, False) else fault)


def _check_forms(ledger: Ledger, objective: Objective, batch: Batch) -> None:
    parts = jax.tree.map(lambda leaf: leaf[0], _parts(objective, [batch]))
    form = form_of(ledger, "the objective", _apply, objective, parts)
    fault = f"It returns {show_form(form)}."
    is_output = isinstance(form, ObjectiveOutput)
    ledger.holds("it returns an ObjectiveOutput", None if is_output else fault)
    number, steps = batch.mask.shape
    wanted = parts[0].log_pf.dtype
    for name, shape in (
        ("loss", (number,)),
        ("residual", (number,)),
        ("log_weight", (number,)),
        ("step_residual", (number, steps)),
    ):
        value = getattr(form, name)
        if value is None and name == "step_residual":
            continue
        dtype = getattr(value, "dtype", None)
        right = getattr(value, "shape", None) == shape and dtype == wanted
        fault = f"{name} is {show_form(value)}, not {wanted}{list(shape)}."
        law = "losses and residuals are one float a trajectory, step residuals one an edge"
        ledger.holds(law, None if right else fault)


class _Learned(NamedTuple):
    """What is learned among the parts of `Scored`, or a gradient by it."""

    log_pf: Any
    log_pb: Any
    log_flow: Any
    log_z: Any


class _Found(NamedTuple):
    """What an objective says of a batch."""

    output: ObjectiveOutput
    mean: Any  # the loss as training takes it
    slope: _Learned  # gradient of that
    leak: _Learned  # gradient of residuals and weights


_Parts = tuple[_Learned, Any, Any, Any]
"""The learned parts, log R, mask and weight."""


def _parts(objective: Objective, batches: list[Batch]) -> _Parts:
    """Batches [K], one behind the other."""

    def stack(name: str) -> Array:
        return jnp.asarray(np.stack([getattr(batch, name) for batch in batches]), _dtype(name))

    flow = stack("log_flow") if objective.needs_flow else None
    learned = _Learned(stack("log_pf"), stack("log_pb"), flow, stack("log_z"))
    return learned, stack("log_reward"), stack("mask"), stack("weight")


def _dtype(name: str) -> Any:
    return jnp.bool_ if name == "mask" else jnp.result_type(float)


def _scored(objective: Objective, learned: _Learned, parts: _Parts) -> Scored:
    _, log_reward, mask, weight = parts
    novelty = None
    if objective.needs_novelty:  # as it vanishes, so must what it adds
        novelty = jnp.full_like(learned.log_pf, 1e-30)
    return Scored(
        learned.log_pf,
        learned.log_pb,
        learned.log_flow,
        learned.log_z,
        log_reward,
        mask,
        weight,
        novelty,
    )


def _apply(objective: Objective, parts: _Parts) -> ObjectiveOutput:
    return objective(_scored(objective, parts[0], parts))


def _evaluate(objective: Objective, parts: _Parts) -> _Found:
    weight = parts[-1]

    def mean(learned: _Learned) -> tuple[Array, ObjectiveOutput]:
        output = objective(_scored(objective, learned, parts))
        return jnp.sum(weight * output.loss) / jnp.sum(weight), output

    def reported(learned: _Learned) -> Array:
        output = objective(_scored(objective, learned, parts))
        rest = (output.residual, output.step_residual, output.log_weight)
        return sum((jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(rest)), jnp.zeros(()))

    (value, output), slope = jax.value_and_grad(mean, has_aux=True)(parts[0])
    return _Found(output, value, slope, jax.grad(reported)(parts[0]))


@eqx.filter_jit
def _evaluate_all(objective: Objective, parts: _Parts) -> _Found:
    """Of batches [K], in one program: batched by `vmap`."""
    return jax.vmap(lambda one: _evaluate(objective, one))(parts)


@eqx.filter_jit
def _evaluate_one(objective: Objective, parts: _Parts) -> ObjectiveOutput:
    return _apply(objective, parts)


def _find(objective: Objective, cases: Cases) -> dict[str, _Found]:
    """What an objective says of each batch."""
    parts = _parts(objective, list(cases.batches.values()))
    every = jax.tree.map(np.asarray, _evaluate_all(objective, parts))
    return {
        name: jax.tree.map(lambda leaf, i=i: leaf[i], every) for i, name in enumerate(cases.batches)
    }


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
        output = case.output
        parts = {
            "The loss": output.loss,
            "A residual": output.residual,
            "Log_weight": output.log_weight,
            "A step residual": output.step_residual,
            "The gradient": case.slope,
            "The mean loss": (case.mean, output),
        }
        broken = next((what for what, part in parts.items() if not all_finite(part)), None)
        size = np.abs(output.residual).max()
        where = {"far": "far away", "optimum_end": "at the exact optimum"}.get(name, "elsewhere")
        fault = f"{broken} is not, {where}, where residuals are up to {size:.3g}."
        ledger.holds(FINITE, None if broken is None else fault)


def _check_away(
    ledger: Ledger, objective: Objective, cases: Cases, found: dict[str, _Found]
) -> None:
    """At a point that is not the optimum: what residuals are."""
    batch, output = cases["away"], found["away"].output
    weight = batch.log_reward + np.where(batch.mask, batch.log_pb - batch.log_pf, 0).sum(axis=1)
    _same(ledger, WEIGHT, "log_weight", output.log_weight, weight, 1e-4)
    log_z = weight - np.asarray(output.residual)
    if np.ptp(log_z) > 1e-3 and np.ptp(weight + np.asarray(output.residual)) <= 1e-3:
        b = int(np.argmax(np.abs(output.residual)))
        fault = f"It has the opposite sign: {output.residual[b]:.5g} at trajectory {b}."
        ledger.breaks(SIGN, fault)
    allowed = []
    if objective.learns_log_z:
        allowed.append(batch.log_z)
    if objective.needs_flow:
        allowed.append(batch.log_flow[0, 0])
    best = min(allowed, key=lambda value: abs(value - log_z[0])) if allowed else log_z[0]
    _same(ledger, SIGN, "residual", output.residual, weight - best, 1e-4)
    if output.step_residual is not None:
        steps = np.asarray(output.step_residual)
        on_padding = np.where(batch.mask, 0, steps)
        _same(ledger, STEPS, "a step residual", on_padding, np.zeros_like(steps), 1e-6)
        _same(ledger, STEPS, "residual", output.residual, steps.sum(axis=1), 1e-4)


def _check_optimum(
    ledger: Ledger, objective: Objective, cases: Cases, found: dict[str, _Found]
) -> None:
    for name in ("optimum_end", "optimum_front"):
        output = found[name].output
        zero = np.zeros_like(output.residual)
        _same(ledger, NO_RESIDUAL, "residual", output.residual, zero, 1e-4)
        if output.step_residual is not None:
            steps = output.step_residual
            _same(ledger, NO_RESIDUAL, "a step residual", steps, np.zeros_like(steps), 1e-4)
    scale = max(float(np.abs(found["away"].slope.log_pf).max()), 1e-6)
    if _is_likelihood(found):
        _check_stationary(ledger, cases, found["own_law"], scale)
        _check_likelihood(ledger, objective, cases, found)
        return
    kinks = {what for what in cases.directions if _has_kink(cases, found, what)}
    # What rounding makes of a residual, times the slope of a kink; a square of it is less.
    away = found["away"].output
    steep = float(np.abs(away.loss).max()) / max(float(np.abs(away.residual).max()), 1e-6)
    rounding = 1e-4 * max(steep, 1.0) if kinks else 1e-6
    for name in ("optimum_end", "optimum_front"):
        output, slope = found[name].output, found[name].slope
        _same(ledger, NO_LOSS, "loss", output.loss, np.zeros_like(output.loss), rounding)
        for what in ("log_pf", "log_pb", "log_flow"):
            value = getattr(slope, what)
            if value is not None and what not in kinks:
                value = value / scale
                zero = np.zeros_like(value)
                _same(ledger, NO_LOSS, f"the gradient by {what}", value, zero, 1e-3)
    for name in ("log_pf off", "log_pb off", "log_reward off"):
        _check_beside(ledger, name, found[name].output)


def _has_kink(cases: Cases, found: dict[str, _Found], what: str) -> bool:
    """Whether the loss rises from the optimum at once to either side, as that of |residual| does,
    and its gradient lies between these slopes: what rounding makes of the residual chooses it.
    """
    gradient = getattr(found["optimum_end"].slope, what)
    if gradient is None:
        return False

    def slopes(where: str, middle: str) -> np.ndarray:
        names = (f"{where}{what} behind", middle, f"{where}{what} ahead")
        return np.diff([found[name].output.loss.mean() for name in names]) / STEP

    before, after = slopes("optimum ", "optimum_end")
    usual = np.abs(slopes("", "away")).max()
    slope = float(np.sum(gradient * cases.directions[what]))
    rises = before < -0.2 * usual and after > 0.2 * usual
    return bool(rises and 1.02 * before <= slope <= 1.02 * after)


def _check_beside(ledger: Ledger, name: str, output: ObjectiveOutput) -> None:
    """Against the largest loss of the batch, where all are off by one or two."""
    loss = np.asarray(output.loss)
    what = name.removesuffix(" off")
    where = "its reward" if what == "log_reward" else f"{what} of one edge"
    fault = fault_at(
        ~(loss > 1e-4 * loss.max()),
        lambda b: (
            f"That of trajectory {b} is {loss[b]:.3g} where {where} is off and its residual "
            f"{output.residual[b]:.3g}"
        ),
        "trajectories",
    )
    ledger.holds(BESIDE, fault)


def _is_likelihood(found: dict[str, _Found]) -> bool:
    """Whether a loss is of another kind than a distance of flows, which is 0 at the optimum and
    above it elsewhere.
    """
    names = ("away", "higher", "lower", "optimum_end")
    losses = {name: np.asarray(found[name].output.loss) for name in names}
    least = -1e-4 * max(float(np.abs(losses["away"]).max()), 1e-6)  # below it is no rounding
    negative = any(bool(np.any(loss < least)) for loss in losses.values())
    other_rewards = found["log_reward off"].output.loss
    blind = not np.any(_off(other_rewards, losses["optimum_end"]) > 1e-6)
    return negative or (blind and bool(np.any(losses["optimum_end"] > 1e-3)))


def _by_logit(cases: Cases, slope: np.ndarray, log_policy: np.ndarray) -> np.ndarray:
    """The gradient by the logits of a policy, from that by log P_F of each edge of trajectories."""
    law, paths = cases.setting.law, cases.paths
    by_edge = np.zeros(law.child.shape)
    source = np.where(paths.mask, paths.states[:, :-1], 0)
    np.add.at(by_edge, (source, paths.actions), np.where(paths.mask, slope, 0))
    policy = np.where(law.child >= 0, np.exp(log_policy), 0)
    return by_edge - policy * by_edge.sum(axis=1, keepdims=True)


def _check_stationary(ledger: Ledger, cases: Cases, own: _Found, scale: float) -> None:
    """The gradient by the logits of the policy, summed over its own trajectories."""
    by_logit = _by_logit(cases, own.slope.log_pf, cases.optimum.log_pf)
    i, a = np.unravel_index(int(np.argmax(np.abs(by_logit))), by_logit.shape)
    fault = f"By the logit of action {a} at state {i} it is {by_logit[i, a]:.4g}."
    limit = 1e-3 * max(scale, float(np.abs(own.slope.log_pf).max()))
    ledger.holds(STATIONARY, fault if not abs(by_logit[i, a]) <= limit else None)


def _check_likelihood(
    ledger: Ledger, objective: Objective, cases: Cases, found: dict[str, _Found]
) -> None:
    """What its sign is, and that it does not move log Z."""
    log_z = found["optimum_end"].slope.log_z
    fault = f"At the exact optimum it has one of {float(log_z):.4g}."
    ledger.holds(NO_LOG_Z, fault if abs(log_z) > 1e-3 else None)
    if objective.pathwise:
        _check_on_paths(ledger, found["away"].output)
    else:
        _check_towards(ledger, cases, found["target_law"].slope)


def _check_on_paths(ledger: Ledger, output: ObjectiveOutput) -> None:
    """Over trajectories the loss is a falling line in the log-weight."""
    loss, weight = (np.asarray(a, np.float64) for a in (output.loss, output.log_weight))
    slope, middle = np.polyfit(weight, loss, 1)
    off = np.abs(loss - middle - slope * weight)
    fault = fault_at(
        off > 1e-3 * np.ptp(loss),
        lambda b: f"That of trajectory {b} is off by {off[b]:.4g} from the line through all",
        "trajectories",
    )
    ledger.holds(ON_PATHS, f"c is {-slope:.4g}." if not slope < 0 else fault)


def _check_towards(ledger: Ledger, cases: Cases, found: _Learned) -> None:
    """At each state a step against the gradient makes the target's trajectories likelier."""
    weight = cases["target_law"].weight
    likelihood = np.broadcast_to(-weight[:, None], cases.paths.mask.shape)
    wanted = _by_logit(cases, likelihood, cases.away.log_pf)
    slope = _by_logit(cases, found.log_pf, cases.away.log_pf)
    size, own = np.linalg.norm(wanted, axis=1), np.linalg.norm(slope, axis=1)
    cosine = np.sum(slope * wanted, axis=1) / np.maximum(size * own, 1e-30)
    fault = fault_at(
        (size > 0.05 * size.max()) & ~(cosine > 0.1),
        lambda i: f"The cosine between both, by the logits of state {i}, is {cosine[i]:.3g}",
        "states",
    )
    ledger.holds(TOWARDS, fault)


def _check_padding(ledger: Ledger, cases: Cases, found: dict[str, _Found]) -> None:
    for name in ("away_front", "garbage", "garbage_front"):
        where = "with padding in front" if name == "away_front" else "with other numbers on padding"
        for what in ("loss", "residual", "log_weight"):
            value, wanted = (getattr(found[n].output, what) for n in (name, "away"))
            _same(ledger, PADDING, f"{where} the {what}", value, wanted, 1e-4)
        for what in ("log_pf", "log_pb"):
            slope, wanted = (getattr(found[n].slope, what).sum(axis=1) for n in (name, "away"))
            _same(ledger, PADDING, f"{where} the gradient by {what}", slope, wanted, 1e-4)
            on_padding = np.where(cases[name].mask, 0, getattr(found[name].slope, what))
            zero = np.zeros_like(on_padding)
            _same(ledger, PADDING, f"on padding the gradient by {what}", on_padding, zero, 0.0)


def _check_weights(ledger: Ledger, cases: Cases, found: dict[str, _Found]) -> None:
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
    cases: Cases,
    found: dict[str, _Found],
    semi_gradient: bool,
) -> None:
    away = found["away"]
    for what in ("log_pf", "log_pb", "log_flow", "log_z"):
        value = getattr(away.leak, what)
        if value is not None:
            fault = f"There is one by {what}: put them through jax.lax.stop_gradient."
            ledger.holds(DETACHED, fault if np.any(value != 0) else None)
    ahead, behind = (found[f"log_pb {which}"].output.loss for which in ("ahead", "behind"))
    for what, learns in (
        ("log_pf", True),
        ("log_z", objective.learns_log_z),
        ("log_flow", objective.needs_flow and not objective.learns_log_z),
        ("log_pb", bool(np.any(_off(ahead, behind) > 1e-4)) and not semi_gradient),
    ):
        value = getattr(away.slope, what)
        moves = value is not None and bool(np.any(value != 0))
        fault = f"It has {'a' if moves else 'no'} gradient by {what}."
        may_have_one = what in ("log_flow", "log_pb") and not learns
        ledger.holds(LEARNS, None if moves == learns or may_have_one else fault)
    if semi_gradient:
        ledger.leave_out(f"{SLOPE}: semi_gradient")
        return
    _check_slope(ledger, cases, found)


def _check_slope(ledger: Ledger, cases: Cases, found: dict[str, _Found]) -> None:
    """Against quotients of differences ahead and behind, between which the gradient lies, where the
    loss of a trajectory is its own.
    """
    kept = ~cases.left_out
    away = found["away"]
    alone, beside = (found[name].output.loss[kept] for name in ("away", "other_batch"))
    if np.any(_off(alone, beside) > 1e-5):
        ledger.leave_out(f"{SLOPE}: losses depend on the batch")
        return
    for name, direction in cases.directions.items():
        gradient = getattr(away.slope, name)
        if gradient is None:
            continue
        slope = len(away.output.loss) * gradient * direction  # the gradient is that of the mean
        names = (f"{name} behind", "away", f"{name} ahead")
        losses = np.stack([found[one].output.loss for one in names])
        if name == "log_z":  # one number for all trajectories
            losses = losses.sum(axis=1, keepdims=True)
        fault = _slope_fault(name, slope.reshape(losses.shape[1], -1).sum(axis=1), losses)
        ledger.holds(SLOPE, fault)


def _slope_fault(name: str, slope: np.ndarray, losses: np.ndarray) -> str | None:
    """Why numbers [n] are not the slopes of losses [3, n], from a step behind to one ahead."""
    before, after = np.diff(losses, axis=0) / STEP
    largest = np.maximum(np.abs(before), np.abs(after))
    rounding = 8 * np.finfo(losses.dtype).eps * np.abs(losses[1]) / STEP
    limit = 0.02 * np.maximum(largest, np.abs(slope)) + 1e-3 * largest.max() + rounding
    low, high = np.minimum(before, after) - limit, np.maximum(before, after) + limit
    bad = ~((slope >= low) & (slope <= high))
    if bad.sum() <= len(bad) // 8:  # a loss may have a kink within a step
        return None
    of = "all trajectories" if name == "log_z" else "trajectory {}"
    return fault_at(
        bad,
        lambda b: (
            f"By {name} of {of.format(b)} it is {slope[b]:.5g}, and the loss changes by "
            f"{(before[b] + after[b]) / 2:.5g}"
        ),
        "slopes",
    )


def _check_alone(
    ledger: Ledger, objective: Objective, cases: Cases, found: dict[str, _Found]
) -> None:
    """With columns of padding appended, so that one more program serves two laws."""

    def evaluate(batch: Batch) -> ObjectiveOutput:
        parts = jax.tree.map(lambda leaf: leaf[0], _parts(objective, [batch]))
        return jax.tree.map(np.asarray, _evaluate_one(objective, parts))

    together, wide = found["away"].output, evaluate(cases.wide)
    names = ("loss", "residual", "log_weight")
    if any(np.any(_off(getattr(together, n), getattr(wide, n)) > 1e-4) for n in names):
        alone = evaluate(cases["away"])
        for what in names:
            value, wanted = (getattr(output, what) for output in (together, alone))
            _same(ledger, BATCHED, f"under vmap the {what}", value, wanted, 1e-4)
        for what in names:
            value, wanted = (getattr(output, what) for output in (wide, together))
            where = f"with {COLUMNS} more columns of padding the {what}"
            _same(ledger, PADDING, where, value, wanted, 1e-4)
    ledger.holds(BATCHED, None)
