"""Solvers of the teacher's ODE: DDIM for x_t, Euler and Heun for y_t."""

from bootdiff.solvers.ddim import Level, ddim, ddim_step, signal_of_step, step_between, teacher_step, trailing_times
from bootdiff.solvers.signal_ode import SOLVERS, Euler, Heun, Solver, even_times, noisy, solve

__all__ = [
    "SOLVERS",
    "Euler",
    "Heun",
    "Level",
    "Solver",
    "ddim",
    "ddim_step",
    "even_times",
    "noisy",
    "signal_of_step",
    "solve",
    "step_between",
    "teacher_step",
    "trailing_times",
]
