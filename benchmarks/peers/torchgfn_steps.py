"""torchgfn's training steps, for `compare.py`; with the argument `compiled` by `torch.compile`.

On-policy, so that the log-probabilities of the rollout are used in the loss and not computed anew
(`save_logprobs`), as its own fast scripts do. Its run-time checks are off.
"""

import math
import sys
from typing import Any

import torch
from _serve import Train, serve
from gfn.estimators import (
    DiscretePolicyEstimator,
    PinnedBrownianMotionBackward,
    PinnedBrownianMotionForward,
)
from gfn.gflownet import TBGFlowNet
from gfn.gym import HyperGrid
from gfn.gym.diffusion_sampling import DiffusionSampling
from gfn.preprocessors import KHotPreprocessor
from gfn.utils.compile import try_compile_gflownet
from gfn.utils.modules import MLP, DiffusionFixedBackwardModule, DiscreteUniform


class DiffusionNetwork(torch.nn.Module):
    """The same network as didact's: two layers on time, two on position, two on both."""

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.input_dim, gelu = dim + 1, torch.nn.GELU()
        self.register_buffer("phase", 2 * math.pi * torch.arange(1, width + 1))
        linear = torch.nn.Linear
        self.time = torch.nn.Sequential(linear(2 * width, width), gelu, linear(width, width), gelu)
        self.position = torch.nn.Sequential(linear(dim, width), gelu, linear(width, width), gelu)
        self.joint = torch.nn.Sequential(
            linear(2 * width, width), gelu, linear(width, width), gelu, linear(width, dim)
        )
        torch.nn.init.zeros_(self.joint[-1].weight)
        torch.nn.init.zeros_(self.joint[-1].bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """The drift."""
        phase = states[..., -1:] * self.phase
        time = self.time(torch.cat([phase.sin(), phase.cos()], dim=-1))
        return self.joint(torch.cat([time, self.position(states[..., :-1])], dim=-1))


def build(task: dict[str, Any]) -> Train:
    """Training of a task."""
    torch.manual_seed(0)
    env, pf, pb = {"grid": _grid, "diffusion": _diffusion}[task["kind"]](task)
    model = TBGFlowNet(pf=pf, pb=pb, init_logZ=0.0)
    if "compiled" in sys.argv:
        # Batches shrink as trajectories end: without this each size is compiled anew.
        torch._dynamo.config.assume_static_by_default = False
        try_compile_gflownet(model)
    groups = [
        {"params": list(pf.parameters()), "lr": task["rate"]},
        {"params": [model.logZ], "lr": task["log_z_rate"]},
    ]
    optimiser = torch.optim.Adam(groups)
    everything = [p for group in groups for p in group["params"]]

    def train(steps: int) -> float:
        transitions = 0
        for _ in range(steps):
            trajectories = model.sample_trajectories(env, n=task["batch_size"], save_logprobs=True)
            optimiser.zero_grad()
            model.loss(env, trajectories, recalculate_all_logprobs=False).backward()
            torch.nn.utils.clip_grad_norm_(everything, task["max_norm"])
            optimiser.step()
            transitions += int(trajectories.terminating_idx.sum())
        return transitions / steps

    return train


def _grid(task: dict[str, Any]):
    env = HyperGrid(task["dim"], task["side"], reward_fn_str="deceptive", validate_modes=False)
    code = KHotPreprocessor(height=env.height, ndim=env.ndim)
    network = MLP(
        code.output_dim, env.n_actions, hidden_dim=task["width"], activation_fn="leaky_relu"
    )
    pf = DiscretePolicyEstimator(network, env.n_actions, preprocessor=code)
    uniform = DiscreteUniform(env.n_actions - 1)
    pb = DiscretePolicyEstimator(uniform, env.n_actions, is_backward=True, preprocessor=code)
    return env, pf, pb


def _diffusion(task: dict[str, Any]):
    env = DiffusionSampling("gmm25_prior", None, task["num_steps"])
    sigma = math.sqrt(5)
    pf = PinnedBrownianMotionForward(
        env.dim, DiffusionNetwork(env.dim, task["width"]), sigma, task["num_steps"]
    )
    pb = PinnedBrownianMotionBackward(
        env.dim, DiffusionFixedBackwardModule(env.dim), sigma, task["num_steps"]
    )
    return env, pf, pb


if __name__ == "__main__":
    serve(build, ("torchgfn", "torch"))
