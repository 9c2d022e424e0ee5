"""The laws of an environment."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from .._types import EnumerableEnvironment, Environment, Kernel, SiteEnvironment
from ._enumeration import check_graph, check_states
from ._forms import COMPILES, difference, form_of, numbers_as_arrays, scalar_fault, show_form
from ._kernel import edge_form, log_prob_fault
from ._laws import Checked, Ledger, show
from ._paths import check_walks
from ._process import unchanged
from ._sites import check_sites, numbered
from ._statistics import generator

SIZES = ("num_steps", "fewest_steps", "feature_size", "forward_size", "backward_size")
COUNTS = ("num_internal", "num_terminal_states", "num_actions")
STATIC = "sizes are plain integers, also in a compiled program"
ONE_FORM = "states have one form: the same arrays, shapes and dtypes"
ONE_OBJECT = "objects have one form: the same arrays, shapes and dtypes"
ONE_VOCABULARY = "P_F and P_B have edges of one form"


def check_environment(
    environment: Environment,
    *,
    key: PRNGKeyArray | None = None,
    max_states: int = 2**13,
    num_paths: int = 64,
    shared_features: bool = False,
) -> Checked:
    r"""Check the laws of a `didact.environments.Environment`.

    An `EnumerableEnvironment` is checked at all its states, or at `max_states` that are drawn
    where it has more:

    - `index_of` is the inverse of `state_at`, terminal states have the last numbers, and a
      terminal state and its object determine each other;
    - `backward_step` undoes `step` and `step` undoes `backward_step`, and the state that is come to
      has the features and kernels of the one with its number; an edge that P_F allows P_B allows,
      and the other way round; no two actions are one edge; no edge leads into the initial
      state, or back to a terminal one;
    - each edge leads one deeper, every state is reached, and the longest and the shortest
      trajectory are as long as `num_steps` and `fewest_steps` say;
    - P_F, P_B and a learned P_B sum to 1, and draws have the law that they state;
    - where there is `mutate` (`didact.environments.SiteEnvironment`), it changes one value of an
      object, and comes back as often as it went.

    Any other environment, and one with too many states, is checked along trajectories that are
    drawn with random parameters, and on the ways back from their ends by P_B. Where edges are
    real, densities integrate to 1, `step` and `sample_of` keep volume (or P_F, P_B and R would be
    densities with respect to different measures; a state is measured by all of its real numbers,
    and must not hold one that follows from the others), and where there is a `log_reference` p, P_B
    is the law of that process backwards: with all parameters 0,

    $$p(s)\,P_F(s'\mid s) = p(s')\,P_B(s\mid s').$$

    For all of them: states, features and edges have one form; sizes are static; features,
    log-probabilities and their gradients are finite, at terminal states too; two states with edges
    out of them have different features; everything can be compiled and batched; and nothing that
    belongs to the whole process is changed.

    **Arguments:** `key` of parameters and draws (None: always the same ones); `max_states`,
    `num_paths`: how much is looked at; `shared_features`: two states may look the same to a
    network, as symmetric ones do where that is meant. Each law of draws raises a false alarm with a
    chance of 1e-7.

    **Errors:** `ConformanceError` for the first law that is broken.
    """
    key = jax.random.key(0) if key is None else key
    ledger = Ledger(environment, shared_features=shared_features)
    ledger.must_be(Environment, "environments")
    with unchanged(ledger, environment):
        _check_sizes(ledger, environment)
        _check_forms(ledger, environment)
        extent, all_of_it = "", False
        if isinstance(environment, EnumerableEnvironment):
            extent, all_of_it = _check_enumerable(ledger, environment, key, max_states)
        if not all_of_it:
            check_walks(ledger, environment, key, num_paths)
            extent += f"{num_paths} trajectories and their ways back"
        check_sites(ledger, environment, key)
    return ledger.close(extent)


def _check_enumerable(
    ledger: Ledger, env: EnumerableEnvironment, key: PRNGKeyArray, max_states: int
) -> tuple[str, bool]:
    """What was looked at, and whether that is all of it."""
    count = env.num_internal + env.num_terminal_states
    if not numbered(env):
        ledger.leave_out("the numbers of states: there are 2^31 or more")
        return "", False
    _check_number_forms(ledger, env)
    if count <= max_states:
        found = check_states(ledger, env, key, np.arange(count))
        check_graph(ledger, env, found)
        return f"all {count:,} states", True
    drawn = generator(key).choice(count, max_states - 2, replace=False)
    check_states(ledger, env, key, np.union1d(drawn, [0, count - 1]))
    ledger.leave_out("laws of all states together: there are too many")
    return f"{max_states:,} of {count:,} states, ", False


def _check_sizes(ledger: Ledger, env: Environment) -> None:
    names = SIZES + (COUNTS if isinstance(env, EnumerableEnvironment) else ())
    traced = numbers_as_arrays(env)
    sizes = form_of(ledger, "a size", lambda e: [getattr(e, name) for name in names], traced)
    for name, size in zip(names, sizes, strict=True):
        shown = "a traced array" if hasattr(size, "shape") else show(size)
        fault = f"{name} is {shown}: mark the field that decides it eqx.field(static=True)."
        is_integer = isinstance(size, int | np.integer) and not isinstance(size, bool)
        ledger.holds(STATIC, None if is_integer else fault)
        fault = f"{name} is {size}: it must be at least 1."
        ledger.holds("sizes are at least 1", None if size >= 1 else fault)
    fault = f"fewest_steps is {env.fewest_steps}, and num_steps is {env.num_steps}."
    right = env.fewest_steps <= env.num_steps
    ledger.holds("fewest_steps <= num_steps", None if right else fault)


def _check_forms(ledger: Ledger, env: Environment) -> None:
    """What its methods return, from tracing them with all numbers as arguments."""
    env = numbers_as_arrays(env)

    def form(method: str, *args: Any) -> Any:
        return form_of(ledger, method, lambda e, *rest: getattr(e, method)(*rest), env, *args)

    state = form("initial_state")
    arrays = all(hasattr(leaf, "shape") for leaf in jax.tree.leaves(state))
    fault = f"initial_state returns {show(state)}: its parts must be JAX arrays."
    ledger.holds(ONE_FORM, None if arrays else fault)
    for name in ("is_initial", "is_terminal"):
        fault = scalar_fault(name, form(name, state), jnp.bool_, "boolean")
        ledger.holds("is_initial and is_terminal are booleans", fault)
    fault = scalar_fault("log_reference", form("log_reference", state), jnp.floating, "float")
    ledger.holds("log_reference is one float", fault)
    _check_features(ledger, env, form("features", state))

    edges = []
    for name, size in (
        ("forward_kernel", env.forward_size),
        ("backward_kernel", env.backward_size),
    ):
        for params in (None, jax.ShapeDtypeStruct((size,), jnp.result_type(float))):
            if params is None and name == "forward_kernel":
                continue
            kernel = form(name, state, params)
            fault = f"{name} returns {show_form(kernel)}."
            ledger.holds("kernels are Kernels", None if isinstance(kernel, Kernel) else fault)
            edge = edge_form(ledger, kernel)
            ledger.holds("log_prob is one number", log_prob_fault(ledger, kernel, edge))
            edges.append((name, edge))
    for name, edge in edges[1:]:
        what = f"An edge of {name}"
        ledger.holds(ONE_VOCABULARY, difference(what, edge, edges[0][1], "one of forward_kernel"))

    x = form("sample_of", state)
    moves = {
        "step": form("step", state, edges[0][1]),
        "backward_step": form("backward_step", state, edges[0][1]),
        "terminal_state": form("terminal_state", x),
    }
    for name, found in moves.items():
        ledger.holds(ONE_FORM, difference(f"A state from {name}", found, state, "initial_state"))
    if isinstance(env, SiteEnvironment):
        mutant = form("mutate", jax.eval_shape(lambda: jax.random.key(0)), x)
        ledger.holds(ONE_OBJECT, difference("An object from mutate", mutant, x, "sample_of"))
    ledger.holds(COMPILES, None)


def _check_number_forms(ledger: Ledger, env: EnumerableEnvironment) -> None:
    env = numbers_as_arrays(env)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    found = form_of(ledger, "state_at", lambda e, i: e.state_at(i), env, number)
    state = form_of(ledger, "initial_state", lambda e: e.initial_state(), env)
    ledger.holds(ONE_FORM, difference("A state from state_at", found, state, "initial_state"))
    for name in ("index_of", "depth"):
        form = form_of(ledger, name, lambda e, s, n=name: getattr(e, n)(s), env, state)
        fault = scalar_fault(name, form, jnp.integer, "integer")
        ledger.holds("index_of and depth are integers", fault)


def _check_features(ledger: Ledger, env: Environment, form: Any) -> None:
    """A single float array is a vector of `feature_size`; records are known to their network."""
    if not hasattr(form, "shape"):
        return
    fault = "features returns booleans, which are neither looked up nor multiplied: give numbers."
    ledger.holds("features are numbers", fault if form.dtype == jnp.bool_ else None)
    if not jnp.issubdtype(form.dtype, jnp.inexact):
        return
    fault = f"features returns {show_form(form)}, and feature_size is {env.feature_size}."
    right = form.shape == (env.feature_size,)
    ledger.holds("real features are a vector of feature_size", None if right else fault)
