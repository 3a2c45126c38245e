"""The stages of the GPU benchmarks, a file each: ``run(context)`` puts tables into the context's record."""
