"""The multilayer perceptron of the paper's grid experiments."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int, PRNGKeyArray

from .._checks import require
from .._types import Environment, PolicyOutput
from ._network import Heads, Layer, Network, NetworkConfig


@dataclasses.dataclass(frozen=True)
class MLPConfig(NetworkConfig):
    """Shape of an `MLP`: `depth` hidden layers of `width` units."""

    width: int = 256
    depth: int = 2
    negative_slope: float = 0.01

    def __post_init__(self):
        require("width", self.width, at_least=1)
        require("depth", self.depth, at_least=1)

    @property
    def guided(self) -> bool:
        """It knows the features alone."""
        return False

    def build(
        self,
        environment: Environment,
        *,
        flow_head: bool,
        backward_head: bool,
        key: PRNGKeyArray,
    ) -> "MLP":
        """A freshly initialised network for an environment."""
        heads = Heads.of(environment, flow_head=flow_head, backward_head=backward_head)
        return self.with_heads(environment, heads, key=key)

    def with_heads(self, environment: Environment, heads: Heads, *, key: PRNGKeyArray) -> "MLP":
        """A freshly initialised network that takes an environment's features, with outputs of
        these sizes.
        """
        features = jax.eval_shape(lambda: environment.features(environment.initial_state()))
        if not isinstance(features, jax.ShapeDtypeStruct):
            raise ValueError(
                f"An MLP takes a vector of features, which {type(environment).__name__} has not: "
                "give the Experiment a network made for it (DiffusionMLPConfig for Diffusion)."
            )
        integer = not jnp.issubdtype(features.dtype, jnp.inexact)
        widths = [self.width] * self.depth
        inputs = [environment.feature_size, *widths]
        outputs = [*widths, heads.total]
        keys = jax.random.split(key, len(inputs))
        layers = tuple(
            Layer.initialise(n, m, key=k) for n, m, k in zip(inputs, outputs, keys, strict=True)
        )
        return MLP(layers=layers, heads=heads, integer_features=integer, config=self)


class MLP(Network):
    """LeakyReLU layers, with heads for P_F, a learned P_B and log F side by side.

    Integer features are a multi-hot input given by its indices: the first product is then a
    sum of rows of the weight.
    """

    layers: tuple[Layer, ...]
    heads: Heads = eqx.field(static=True)
    integer_features: bool = eqx.field(static=True)
    config: MLPConfig = eqx.field(static=True)

    def __call__(self, features: Array, guidance: Array | None = None) -> PolicyOutput:
        """Outputs at one state."""
        first, *rest = self.layers
        if self.integer_features:
            hidden = _multi_hot_product(first.weight, features) + first.bias
        else:
            hidden = first(features)
        for layer in rest:
            hidden = jax.nn.leaky_relu(hidden, self.config.negative_slope)
            hidden = layer(hidden)
        return self.heads.split(hidden)


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
    return summed_rows(weight, features)


@jax.custom_jvp
def summed_rows(weight: Array, features: Array) -> Array:
    """The sum of the rows of `weight` that `features` names, with a product as its gradient."""
    return jnp.sum(weight[features], axis=0)


@summed_rows.defjvp
def _summed_rows_jvp(primals, tangents):
    weight, features = primals
    words = jnp.arange(weight.shape[0], dtype=features.dtype)
    code = jnp.sum(features[:, None] == words, axis=0, dtype=weight.dtype)
    return summed_rows(weight, features), code @ tangents[0]
