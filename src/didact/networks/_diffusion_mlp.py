"""The network of the paper's diffusion experiments."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import require
from .._types import Environment, PolicyOutput
from ._mlp import summed_rows
from ._network import Heads, Layer, Network, NetworkConfig


@dataclasses.dataclass(frozen=True)
class DiffusionMLPConfig(NetworkConfig):
    r"""Shape of a `DiffusionMLP`, for `didact.environments.Diffusion`.

    **Arguments:** `width`: units of each layer; `harmonics`: sines and as many cosines of time;
    `waves`: sines and as many cosines of each coordinate, of wavelength 4/k at the scale of the
    reference process, k = 1 … `waves`, beside the coordinates: with them a network learns densities
    of many modes much faster (0, as published: the coordinates alone);
    `depth`: hidden layers after time and position have met; `langevin`: add
    $c_\theta(s, t) \odot \nabla\log R(s)$ to the drift, with a learned factor for each
    coordinate and the gradient clipped to ± `gradient_clip`; every evaluation of the network then
    costs one of the gradient.
    """

    width: int = 256
    harmonics: int = 256
    waves: int = 0
    depth: int = 2
    langevin: bool = False
    gradient_clip: float = 100.0

    def __post_init__(self):
        require("width", self.width, at_least=1)
        require("harmonics", self.harmonics, at_least=1)
        require("waves", self.waves, at_least=0)
        require("depth", self.depth, at_least=1)
        require("gradient_clip", self.gradient_clip, above=0)

    @property
    def guided(self) -> bool:
        """Whether there is a Langevin term."""
        return self.langevin

    def build(
        self,
        environment: Environment,
        *,
        flow_head: bool,
        backward_head: bool,
        key: PRNGKeyArray,
    ) -> "DiffusionMLP":
        """A network whose last layer is 0: the reference process."""
        features = jax.eval_shape(lambda: environment.features(environment.initial_state()))
        if not all(hasattr(features, name) for name in ("position", "scaled", "index")):
            raise ValueError(
                f"A DiffusionMLP takes position and index, which {type(environment).__name__} has "
                "not: give the Experiment another network (MLPConfig)."
            )
        heads = Heads.of(environment, flow_head=flow_head, backward_head=backward_head)
        dim, width = environment.feature_size, self.width
        keys = jax.random.split(key, 4 + self.depth)
        outputs = heads.total + (dim if self.langevin else 0)
        joint = [
            Layer.initialise(2 * width if i == 0 else width, width, key=k)
            for i, k in enumerate(keys[4:])
        ]
        return DiffusionMLP(
            time=(
                Layer.initialise(2 * self.harmonics, width, key=keys[0]),
                Layer.initialise(width, width, key=keys[1]),
            ),
            position=(
                Layer.initialise(dim * (1 + 2 * self.waves), width, key=keys[2]),
                Layer.initialise(width, width, key=keys[3]),
            ),
            joint=tuple(joint),
            last=Layer(jnp.zeros((width, outputs)), jnp.zeros(outputs)),
            num_steps=environment.num_steps,
            heads=heads,
            config=self,
        )


class DiffusionMLP(Network):
    """Two layers on sines and cosines of time, two on the position, then `depth` on both, with
    GELU; heads for P_F, a learned P_B, log F and the Langevin factor.
    """

    time: tuple[Layer, Layer]
    position: tuple[Layer, Layer]
    joint: tuple[Layer, ...]
    last: Layer
    num_steps: int = eqx.field(static=True)
    heads: Heads = eqx.field(static=True)
    config: DiffusionMLPConfig = eqx.field(static=True)

    def __call__(self, features, guidance: Float[Array, " dim"] | None = None) -> PolicyOutput:
        """Outputs at one state, from its `position` and `index`."""
        first, *rest = self.joint
        width = self.config.width
        here = _two_layers(self.position, self._waves(features))
        # Of time there are few values: each passes its layers once a batch, and the first joint
        # layer too, whose product with [time, position] is the sum of two.
        when = summed_rows(self._times() @ first.weight[:width], features.index[None])
        hidden = _gelu(when + here @ first.weight[width:] + first.bias)
        for layer in rest:
            hidden = _gelu(layer(hidden))
        out = self.last(hidden)
        result = self.heads.split(out)
        if guidance is None:
            return result
        most = self.config.gradient_clip
        # A clipped gradient is where the density is steep, not where the sampler ought to learn.
        push = out[self.heads.total :] * jnp.clip(guidance, -most, most)
        drift = result.forward.at[: push.shape[0]].add(push)
        return PolicyOutput(drift, result.backward, result.log_flow)

    def _waves(self, features) -> Float[Array, " inputs"]:
        """The coordinates, and waves of them."""
        if self.config.waves == 0:
            return features.position
        number = jnp.arange(1, self.config.waves + 1)
        phase = jnp.outer(number, features.scaled * (jnp.pi / 2)).reshape(-1)
        return jnp.concatenate([features.scaled, jnp.sin(phase), jnp.cos(phase)])

    def _times(self) -> Float[Array, "nodes width"]:
        """The embedding of every time i/T."""
        time = jnp.arange(self.num_steps + 1) / self.num_steps
        phase = 2 * jnp.pi * time[:, None] * jnp.arange(1, self.config.harmonics + 1)
        waves = jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=1)
        return jax.vmap(lambda row: _two_layers(self.time, row))(waves)


def _two_layers(layers: tuple[Layer, Layer], x: Array) -> Array:
    return _gelu(layers[1](_gelu(layers[0](x))))


def _gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)
