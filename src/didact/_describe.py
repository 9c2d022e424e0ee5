"""What a run says about itself: labels for people."""

from typing import Any

from ._experiment import Experiment
from ._snapshots import is_vector
from .environments import Diffusion, Strings


def describe(experiment: Experiment) -> dict[str, Any]:
    """Labels of an experiment for people: what a report shows beside the numbers."""
    env, target = experiment.environment, experiment.target
    facts = {
        "environment": f"{type(env).__name__}"
        + "".join(
            f" {name}={getattr(env, name)}" for name in ("dim", "side") if hasattr(env, name)
        ),
        "target": type(target).__name__,
        "title": f"{type(target).__name__} on {type(env).__name__}",
        "method": _method(experiment),
        "num_modes": target.num_modes,
        "log_z": target.log_z,
        "steps": experiment.steps,
        "batch_size": experiment.batch_size,
    }
    for name in ("dim", "side", "convention", "num_terminal_states", "mode_mass"):
        for owner in (target, env):
            if hasattr(owner, name):
                facts.setdefault(name, getattr(owner, name))
    if is_vector(env):
        facts["space"] = "vectors"
        facts["num_steps"] = env.num_steps
        if isinstance(env, Diffusion):
            facts["sigma"] = env.process.sigma
    if isinstance(env, Strings):
        blocks = getattr(target, "blocks", None)
        facts |= {
            "space": "strings",
            "alphabet": getattr(target, "alphabet", None),
            "length": env.length,
            "blocks": None if blocks is None else list(blocks.smiles),
            "grows_in_front": env.grows_in_front,
        }
    return facts


def _method(experiment: Experiment) -> str:
    sentence = f"A Student trained by {type(experiment.objective).__name__}"
    if experiment.teacher_reward is not None:
        sentence += f" with {experiment.teacher_reward.title}"
    if experiment.replay is not None:
        by = {
            "none": "uniform replay",
            "reward": "replay prioritised by reward",
            "teacher": "replay prioritised by the Teacher's reward",
            "teacher-reward": "replay prioritised by the Teacher's reward times the reward",
            "loss": "replay prioritised by loss",
            "weight": "importance-weighted replay",
        }[experiment.replay.priority]
        sentence += f" and {by}"
    sources = {
        "student": "the Student",
        "teacher": "the Teacher",
        "replay": "the buffer",
        "samples": "exact samples",
        "search": "local search",
        "uniform": "a uniform policy",
        "chains": "Markov chains",
    }
    pattern = [sources.get(name, name) for name in experiment.behaviour.pattern]
    if len(set(pattern)) == 1:
        return f"{sentence}; all batches come from {pattern[0]}."
    return f"{sentence}; batches come in turn from {', '.join(pattern)}."
