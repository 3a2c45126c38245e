"""Solvers of the teacher's ODE: DDIM on x_t, Euler and Heun on y_t."""

from bootdiff.solvers.ddim import ddim, ddim_step, trailing_times
from bootdiff.solvers.signal_ode import SOLVERS, Euler, Heun, Solver, even_times, noisy, solve

__all__ = ["SOLVERS", "Euler", "Heun", "Solver", "ddim", "ddim_step", "even_times", "noisy", "solve", "trailing_times"]
