"""The work of ``train-teacher``: small pipelines are trained from images."""
