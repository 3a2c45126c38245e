"""``train-teacher``: small pipelines trained from images."""
