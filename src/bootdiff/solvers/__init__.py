"""Solvers of the teacher's ODE: DDIM for x_t, Euler and Heun for y_t."""

from bootdiff.solvers.ddim import ddim, ddim_step, trailing_times
from bootdiff.solvers.signal_ode import SOLVERS, Euler, Heun, Solver, even_times, noisy, solve

__all__ = ["SOLVERS", "Euler", "Heun", "Solver", "ddim", "ddim_step", "even_times", "noisy", "solve", "trailing_times"]
