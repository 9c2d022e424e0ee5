"""The multilayer perceptron of the paper's grid experiments."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int, PRNGKeyArray

from .._checks import require
from .._types import Environment, PolicyOutput


@dataclasses.dataclass(frozen=True)
class MLPConfig:
    """Shape of an `MLP`: `depth` hidden layers of `width` units."""

    width: int = 256
    depth: int = 2
    negative_slope: float = 0.01

    def __post_init__(self):
        require("width", self.width, at_least=1)
        require("depth", self.depth, at_least=1)

    def build(
        self,
        environment: Environment,
        *,
        flow_head: bool,
        backward_head: bool,
        key: PRNGKeyArray,
    ) -> "MLP":
        """A freshly initialised network for an environment."""
        sizes = (
            environment.forward_size,
            environment.backward_size if backward_head else 0,
            int(flow_head),
        )
        integer = not jnp.issubdtype(
            jax.eval_shape(lambda: environment.features(environment.initial_state())).dtype,
            jnp.inexact,
        )
        widths = [self.width] * self.depth
        inputs = [environment.feature_size, *widths]
        outputs = [*widths, sum(sizes)]
        keys = jax.random.split(key, len(inputs))
        layers = tuple(
            Layer.initialise(n, m, key=k) for n, m, k in zip(inputs, outputs, keys, strict=True)
        )
        return MLP(layers, sizes, integer, self)


class Layer(eqx.Module):
    """An affine map, `weight` [in, out] and `bias` [out]."""

    weight: Inexact[Array, "inputs outputs"]
    bias: Inexact[Array, " outputs"]

    @staticmethod
    def initialise(inputs: int, outputs: int, *, key: PRNGKeyArray) -> "Layer":
        """Uniform in ±1/sqrt(inputs), as torch's Linear."""
        bound = 1 / math.sqrt(inputs)
        weight_key, bias_key = jax.random.split(key)
        return Layer(
            jax.random.uniform(weight_key, (inputs, outputs), minval=-bound, maxval=bound),
            jax.random.uniform(bias_key, (outputs,), minval=-bound, maxval=bound),
        )


class MLP(eqx.Module):
    """LeakyReLU layers, with heads for P_F, a learned P_B and log F side by side.

    Integer features are a multi-hot input given by its indices: the first product is then a
    sum of rows of the weight.
    """

    layers: tuple[Layer, ...]
    head_sizes: tuple[int, int, int] = eqx.field(static=True)
    integer_features: bool = eqx.field(static=True)
    config: MLPConfig = eqx.field(static=True)

    def __call__(self, features: Array) -> PolicyOutput:
        """Outputs at one state."""
        first, *rest = self.layers
        if self.integer_features:
            hidden = _multi_hot_product(first.weight, features) + first.bias
        else:
            hidden = features @ first.weight + first.bias
        for layer in rest:
            hidden = jax.nn.leaky_relu(hidden, self.config.negative_slope)
            hidden = hidden @ layer.weight + layer.bias
        return self._split(hidden)

    def _split(self, out: Float[Array, " outputs"]) -> PolicyOutput:
        forward, backward, flow = self.head_sizes
        return PolicyOutput(
            forward=out[:forward],
            backward=out[forward : forward + backward] if backward else None,
            log_flow=out[-1] if flow else None,
        )


def _multi_hot_product(
    weight: Inexact[Array, "vocabulary width"], features: Int[Array, " features"]
) -> Inexact[Array, " width"]:
    """The sum of the rows of `weight` that `features` names.

    Its gradient is a scatter of rows, or the product with the multi-hot code: the code's
    arithmetic grows with the vocabulary, the scatter's cost with the number of features,
    and on a CPU they meet where there are about 50 times as many words as features.
    """
    if weight.shape[0] > 50 * features.shape[0]:
        return jnp.sum(weight[features], axis=0)
    return _summed_rows(weight, features)


@jax.custom_jvp
def _summed_rows(weight: Array, features: Array) -> Array:
    return jnp.sum(weight[features], axis=0)


@_summed_rows.defjvp
def _summed_rows_jvp(primals, tangents):
    weight, features = primals
    words = jnp.arange(weight.shape[0], dtype=features.dtype)
    code = jnp.sum(features[:, None] == words, axis=0, dtype=weight.dtype)
    return _summed_rows(weight, features), code @ tangents[0]
