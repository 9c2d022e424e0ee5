"""Objectives with one planted fault each."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import pytest
from jax.lax import stop_gradient

from didact.objectives import Objective, ObjectiveOutput, log_weight
from didact.testing import ConformanceError, check_objective
from didact.testing._laws import Ledger


class Balance(Objective):
    """Trajectory balance written from the abstract type alone; the mutants change one line."""

    needs_flow: ClassVar[bool] = False
    learns_log_z: ClassVar[bool] = True
    pathwise: ClassVar[bool] = False

    def weight(self, scored):
        return log_weight(scored)

    def residual(self, scored):
        return self.weight(scored) - scored.log_z

    def loss(self, scored):
        return self.residual(scored) ** 2

    def reported(self, scored):
        return stop_gradient((self.residual(scored), None, self.weight(scored)))

    def __call__(self, scored):
        return ObjectiveOutput(self.loss(scored), *self.reported(scored))


class OppositeSign(Balance):
    def reported(self, scored):
        return stop_gradient((-self.residual(scored), None, self.weight(scored)))


class WithoutPB(Balance):
    """P_B is forgotten, as if each object had one parent."""

    def weight(self, scored):
        return scored.log_reward - jnp.sum(jnp.where(scored.mask, scored.log_pf, 0), axis=1)


class WithoutLogZ(Balance):
    def residual(self, scored):
        return self.weight(scored)


class CountsPadding(Balance):
    """The loss is divided by the horizon's log P_F too, padding with it."""

    def loss(self, scored):
        return super().loss(scored) * jnp.exp(0.1 * jnp.sum(scored.log_pf, axis=1))


class PaddingInTheGradient(Balance):
    """What is on padding is added and taken away again, and leaves its gradient."""

    def loss(self, scored):
        beyond = jnp.sum(jnp.where(scored.mask, 0, scored.log_pf), axis=1)
        return super().loss(scored) + beyond - stop_gradient(beyond)


class Attached(Balance):
    def reported(self, scored):
        return self.residual(scored), None, stop_gradient(self.weight(scored))


class ByPlace(Balance):
    """The first trajectories count for more."""

    def loss(self, scored):
        return super().loss(scored) / (1 + jnp.arange(len(scored.weight)))


class ForgetsWeights(Balance):
    """log Z is the mean of the batch, those that are left out with it."""

    learns_log_z: ClassVar[bool] = False

    def residual(self, scored):
        weight = self.weight(scored)
        return weight - stop_gradient(jnp.mean(weight))


class LeavesALoss(Balance):
    """The loss is that of a residual one too large."""

    def loss(self, scored):
        return (self.residual(scored) + 1) ** 2


class HeldByAccident(Balance):
    """No gradient reaches P_F."""

    def loss(self, scored):
        return stop_gradient(self.residual(scored)) * self.residual(scored)


class DriftsAtTheOptimum(Balance):
    """A gradient is left that is too small to be seen beside those away from the optimum."""

    def loss(self, scored):
        drift = 0.05 * self.residual(scored)
        return super().loss(scored) + drift - stop_gradient(drift)


class Overflows(Balance):
    def loss(self, scored):
        return jnp.cosh(self.residual(scored)) - 1


class NaNAtTheOptimum(Balance):
    """The slope of a square root at 0."""

    def loss(self, scored):
        return jnp.sqrt(jnp.maximum(self.residual(scored) ** 2 - 1, 0.0))


class SaysItLearnsNothing(Balance):
    learns_log_z: ClassVar[bool] = False

    def residual(self, scored):
        return self.weight(scored) - scored.log_z


class Misdirected(Balance):
    """A likelihood that pushes P_F and pulls P_B twice: it is not still at the optimum."""

    learns_log_z: ClassVar[bool] = False

    def residual(self, scored):
        weight = self.weight(scored)
        share = scored.weight / jnp.sum(scored.weight)
        return weight - stop_gradient(jnp.sum(share * weight))

    def loss(self, scored):
        length = jnp.sum(scored.mask, axis=1)
        return self.weight(scored) * length


class ForgetsTheSquare(Balance):
    """The loss is the residual itself."""

    def loss(self, scored):
        return self.residual(scored)


class Likelihood(Balance):
    """No fault: minus log P_F, which is never negative where edges are counted."""

    learns_log_z: ClassVar[bool] = False

    def residual(self, scored):
        weight = self.weight(scored)
        return weight - stop_gradient(jnp.sum(scored.weight * weight) / jnp.sum(scored.weight))

    def loss(self, scored):
        return -jnp.sum(jnp.where(scored.mask, scored.log_pf, 0), axis=1)


class OppositeLikelihood(Likelihood):
    def loss(self, scored):
        return -super().loss(scored)


class MinusTheSquare(Balance):
    def loss(self, scored):
        return -super().loss(scored)


class OfTheFirstEdge(Likelihood):
    def loss(self, scored):
        first = jnp.argmax(scored.mask, axis=1)[:, None]
        return -jnp.take_along_axis(scored.log_pf, first, axis=1)[:, 0]


class IsAlmostDead(Balance):
    """No loss below a residual of 1.5, and a little less than none."""

    def loss(self, scored):
        return jnp.maximum(jnp.abs(self.residual(scored)) - 1.5, 0) ** 2 - 1e-6


class ForgetsPBOnThePaths(Likelihood):
    pathwise: ClassVar[bool] = True
    path_only: ClassVar[bool] = False

    def loss(self, scored):
        return 2 * jnp.sum(jnp.where(scored.mask, scored.log_pf, 0), axis=1) - scored.log_reward


class AscendsThroughThePaths(Likelihood):
    """Reverse KL with the sign of the reward lost."""

    pathwise: ClassVar[bool] = True
    path_only: ClassVar[bool] = False

    def loss(self, scored):
        return self.weight(scored)


class Absolute(Balance):
    """No fault: a loss with a kink at the optimum."""

    def loss(self, scored):
        return jnp.abs(self.residual(scored))


class SteepAbsolute(Balance):
    """No fault either: rounding of residuals is multiplied."""

    def loss(self, scored):
        return 1000 * jnp.abs(self.residual(scored))


class AbsoluteFromFurtherOn(Balance):
    """The kink is not where the optimum is."""

    def loss(self, scored):
        return jnp.abs(self.residual(scored) - 0.1)


SIGN = "residual is log R + log P_B - log Z - log P_F: positive where a trajectory is too rare"
FAULTS = [
    (OppositeSign, SIGN),
    (WithoutPB, "log_weight is log R + log P_B - log P_F"),
    (WithoutLogZ, SIGN),
    (CountsPadding, "padding does not count"),
    (PaddingInTheGradient, "padding does not count"),
    (Attached, "no gradient flows through residuals and log_weight"),
    (ByPlace, "the order of trajectories does not matter"),
    (ForgetsWeights, "a trajectory of weight 0 does not count"),
    (LeavesALoss, "at the exact optimum there is no loss, and no gradient of it"),
    (DriftsAtTheOptimum, "at the exact optimum there is no loss, and no gradient of it"),
    (AbsoluteFromFurtherOn, "at the exact optimum there is no loss, and no gradient of it"),
    (ForgetsTheSquare, "a likelihood has no gradient of log Z"),
    (OppositeLikelihood, "the gradient of a likelihood goes the way of that of KL"),
    (MinusTheSquare, "the gradient of a likelihood goes the way of that of KL"),
    (OfTheFirstEdge, "the gradient of a likelihood goes the way of that of KL"),
    (AscendsThroughThePaths, "a loss through the paths is -c"),
    (ForgetsPBOnThePaths, "a loss through the paths is -c"),
    (IsAlmostDead, "where one edge or the reward is not that of the optimum"),
    (HeldByAccident, "the gradient is the slope of the loss"),
    (Overflows, "losses and gradients are finite, also where residuals are 1e4"),
    (NaNAtTheOptimum, "losses and gradients are finite"),
    (SaysItLearnsNothing, "away from the optimum the loss has a gradient"),
    (Misdirected, "at the exact optimum the mean gradient of the policy vanishes"),
]


@pytest.mark.parametrize(("kind", "law"), FAULTS, ids=lambda v: getattr(v, "__name__", ""))
def test_a_planted_fault_is_found(kind, law, key):
    with pytest.raises(ConformanceError) as error:
        check_objective(kind(), key=key)
    first, _ = str(error.value).splitlines()
    assert first.startswith(f"{kind.__name__}()")
    assert law in first


def test_a_sign_is_said_to_be_the_opposite(key):
    with pytest.raises(ConformanceError, match="It has the opposite sign"):
        check_objective(OppositeSign(), key=key)


def test_what_has_no_fault_passes(key):
    assert "the gradient is the slope of the loss" in check_objective(Balance(), key=key).laws


def test_a_likelihood_is_judged_as_one(key):
    laws = check_objective(Likelihood(), key=key).laws
    assert any("KL(target || policy)" in law for law in laws)


def test_a_class_is_no_instance():
    with pytest.raises(ConformanceError, match="give an instance of it"):
        Ledger(Balance).must_be(Objective, "objectives")
    with pytest.raises(ConformanceError, match=r"Subclass didact\.objectives\.Objective"):
        Ledger(3).must_be(Objective, "objectives")


@pytest.mark.parametrize("kind", [Absolute, SteepAbsolute])
def test_a_loss_may_have_a_kink_at_the_optimum(kind, key):
    check_objective(kind(), key=key)


def test_a_part_can_be_held_constant_on_purpose(key):
    checked = check_objective(HeldByAccident(), key=key, semi_gradient=True)
    assert any("semi_gradient" in reason for reason in checked.left_out)


@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
def test_it_works_in_either_precision(x64, key):
    with jax.enable_x64(x64):
        check_objective(Balance(), key=key)
