"""The policy of the paper's biochemical experiments, which compares a string with its children."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._checks import require
from .._types import Environment, PolicyOutput
from ._mlp import summed_rows
from ._network import Heads, Layer, Network, NetworkConfig


@dataclasses.dataclass(frozen=True)
class SSRConfig(NetworkConfig):
    r"""Shape of an `SSR`, for environments of strings (`didact.environments.PrependAppend`).

    **Arguments:** `width`: units of the hidden layer of the encoder, of the embedding and of the
    hidden layer of the scorer; `clip`: logits are clipped to ± this, beyond which there is no
    gradient.
    """

    width: int = 128
    clip: float = 50.0
    negative_slope: float = 0.01

    def __post_init__(self):
        require("width", self.width, at_least=1)
        require("clip", self.clip, above=0)

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
    ) -> "SSR":
        """A freshly initialised network for an environment."""
        num_symbols, length = (
            getattr(environment, name, None) for name in ("num_symbols", "length")
        )
        if not isinstance(num_symbols, int) or not isinstance(length, int):
            raise ValueError(
                f"An SSR compares strings, of which {type(environment).__name__} has none: give "
                "the Experiment another network (MLPConfig)."
            )
        heads = Heads.of(environment, flow_head=flow_head, backward_head=backward_head)
        keys = jax.random.split(key, 5)
        width = self.width
        # Among the heads P_F has no outputs of its own: a logit is the score of a child.
        others = heads.total - heads.forward
        return SSR(
            encoder=(
                Layer.initialise(length * num_symbols, width, key=keys[0]),
                Layer.initialise(width, width, key=keys[1]),
            ),
            scorer=(
                Layer.initialise(2 * width, width, key=keys[2]),
                Layer.initialise(width, 1, key=keys[3]),
            ),
            others=Layer.initialise(width, others, key=keys[4]) if others else None,
            num_symbols=num_symbols,
            length=length,
            prepends=heads.forward == 2 * num_symbols,
            heads=heads,
            config=self,
        )


class SSR(Network):
    r"""The state-to-state reward policy of Shen et al. (2023), "Towards understanding and improving
    GFlowNet training".

    An encoder e of one hidden layer embeds a string, given by its one-hot code, empty places 0; the
    logit of a child s' of s is a scorer of one hidden layer, all with LeakyReLU:

    $$\ell(s \to s') = w \cdot \phi(U_1 e(s) + U_2 e(s') + b) + c, \qquad
    e(s) = V \phi(\text{one-hot}(s)\,W + a) + d$$

    Known divergence: none in the function. Since e ends in a linear map, $U_2 V$ is one matrix,
    formed once a batch, and a child costs one matrix product in place of two; what the code of a
    child differs in from that of its parent is one row of W, or all of them moved by a place.
    """

    encoder: tuple[Layer, Layer]
    scorer: tuple[Layer, Layer]
    others: Layer | None
    num_symbols: int = eqx.field(static=True)
    length: int = eqx.field(static=True)
    prepends: bool = eqx.field(static=True)
    heads: Heads = eqx.field(static=True)
    config: SSRConfig = eqx.field(static=True)

    def __call__(
        self, features: Int[Array, " length"], guidance: Array | None = None
    ) -> PolicyOutput:
        """Outputs at one string: logits of the children by prepending, then by appending."""
        width = self.config.width
        embed, (join, score) = self.encoder[1], self.scorer
        here, there = join.weight[:width], join.weight[width:]
        own, children = self._first_layer(features)
        state = embed(self._activate(own))
        compared = self._activate(children) @ (embed.weight @ there)
        compared = compared + (state @ here + embed.bias @ there + join.bias)
        logits = jax.vmap(score)(self._activate(compared))[:, 0]
        clip = self.config.clip
        forward = jnp.clip(logits, -clip, clip)
        if self.others is None:
            return PolicyOutput(forward, None, None)
        return self.heads.split(jnp.concatenate([forward, self.others(state)]))

    def _first_layer(
        self, features: Int[Array, " length"]
    ) -> tuple[Float[Array, " width"], Float[Array, "children width"]]:
        """The encoder's first product, bias included, for the string and for each child."""
        first, empty = self.encoder[0], self.length * self.num_symbols
        weight = jnp.pad(first.weight, ((0, 1), (0, 0)))  # an empty place adds nothing
        own = summed_rows(weight, features) + first.bias
        at_place = first.weight.reshape(self.length, -1)
        # A product, not a look-up: its gradient is one too, in place of a scatter of large rows.
        end = jnp.arange(self.length) == jnp.sum(features < empty)
        added = (end.astype(weight.dtype) @ at_place).reshape(self.num_symbols, -1)
        appended = own + added
        if not self.prepends:
            return own, appended
        moved = jnp.minimum(features + self.num_symbols, empty)
        moved = summed_rows(weight, moved) + first.bias
        return own, jnp.concatenate([moved + first.weight[: self.num_symbols], appended])

    def _activate(self, x: Array) -> Array:
        return jax.nn.leaky_relu(x, self.config.negative_slope)
